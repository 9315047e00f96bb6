"""A storm of users: each starts, restarts, stops and deletes machines of its own, in an order that a seed gives.

Invariant: what users do, they do as a person or a verb does: by editing the run strategy, or by a request appended to the
status. At most one machine of each user is up at a time. Waiting is watching; some users do not wait before they change their
mind, and then the last word counts.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)

from tests.support.machine import vm

Json = dict[str, Any]

USERS = 5
IMPATIENCE = 0.3
# What becomes of the machines of one user.
FINALS = ("gone", "gone", "stopped", "running")

_decode = msgspec.json.Decoder(v1.VirtualMachine).decode


def bare(name: str, run_strategy: str) -> Json:
    """A machine without a disk: its firmware finds nothing to boot and rests, which leaves the processors to podvisor."""
    domain = {"resources": {"requests": {"memory": "64M"}}, "devices": {}}
    changes = {"domain": domain, "volumes": [], "terminationGracePeriodSeconds": 1}
    machine = vm(name, run_strategy=run_strategy, **changes)
    # Admission adds it, where there is one.
    machine["metadata"]["finalizers"] = [names.VM_FINALIZER]
    return machine


class Scene:
    """Machines, instances and launcher pods of one namespace, as watches tell of them."""

    def __init__(self, client: KubeClient, namespace: str, patience_s: float) -> None:
        self.client = client
        self.namespace = namespace
        self.patience_s = patience_s
        self.vms = Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine, namespace=namespace)
        self.vmis = Informer(
            client, VIRTUAL_MACHINE_INSTANCES, v1.VirtualMachineInstance, namespace=namespace
        )
        self.pods = Informer(
            client,
            PODS,
            core.Pod,
            namespace=namespace,
            label_selector=f"{names.APP_LABEL}={names.LAUNCHER_APP}",
        )
        self._changed = asyncio.Event()
        for informer in (self.vms, self.vmis, self.pods):
            informer.subscribe(lambda _, __, ___: self._note())

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until what was told so far `holds`. Raises AssertionError when it takes too long."""
        try:
            async with asyncio.timeout(self.patience_s):
                while not holds():
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {self.patience_s:g} s: {what}") from None

    def vm(self, name: str) -> v1.VirtualMachine | None:
        """The machine as last told."""
        return self.vms.get(ObjectKey(self.namespace, name))

    def vmi(self, name: str) -> v1.VirtualMachineInstance | None:
        """The instance as last told."""
        return self.vmis.get(ObjectKey(self.namespace, name))

    def says(self, name: str, word: str) -> bool:
        """The machine's status says so, and no request waits."""
        machine = self.vm(name)
        if machine is None or machine.status.state_change_requests:
            return False
        return machine.status.printable_status == word

    def runs(self, name: str, *, not_uid: str = "") -> bool:
        """An instance runs, another one than that, and the machine says so."""
        vmi = self.vmi(name)
        is_it = vmi is not None and vmi.metadata.uid != not_uid and vmi.status.phase == "Running"
        return is_it and self.says(name, "Running")

    def is_stopped(self, name: str) -> bool:
        """There is no instance, and the machine says so."""
        return self.vmi(name) is None and self.says(name, "Stopped")

    def _note(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@asynccontextmanager
async def watching(
    client: KubeClient, namespace: str, *, patience_s: float
) -> AsyncIterator[Scene]:
    """A scene whose watches are open. No single step of a user may take longer than `patience_s`."""
    scene = Scene(client, namespace, patience_s)
    informers = (scene.vms, scene.vmis, scene.pods)
    tasks = [
        asyncio.create_task(informer.run(), name=f"scene-{informer.resource.plural}")
        for informer in informers
    ]
    try:
        async with asyncio.timeout(20):
            for informer in informers:
                await informer.wait_synced()
        yield scene
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class Sailor:
    """One machine in the storm: what is still to be done with it, and what was."""

    name: str
    strategy: str
    steps: list[str]
    final: str
    is_up: bool = False
    uid: str = ""
    log: list[str] = field(default_factory=list)


def crew(user: int, chance: random.Random) -> list[Sailor]:
    """The machines of one user."""
    sailors = []
    for number, final in enumerate(chance.sample(FINALS, len(FINALS))):
        last = {"gone": chance.choice([["stop", "delete"], ["delete"]]), "stopped": ["stop"]}
        strategy = chance.choice(["Halted", "Manual"])
        steps = ["start", "restart", *last.get(final, [])]
        sailors.append(Sailor(f"u{user}m{number}", strategy, steps, final))
    return sailors


@dataclass(slots=True)
class User:
    """Somebody with machines of its own."""

    scene: Scene
    chance: random.Random
    sailors: list[Sailor]

    async def run(self) -> None:
        """Do everything that is to be done, one random step after the other."""
        while possible := [sailor for sailor in self.sailors if self._may_act(sailor)]:
            await self._act(self.chance.choice(possible))

    def _may_act(self, sailor: Sailor) -> bool:
        if not sailor.steps or sailor.steps[0] != "start":
            return bool(sailor.steps)
        others = [other for other in self.sailors if other is not sailor]
        if any(other.is_up for other in others):
            return False
        # What stays up comes last.
        return sailor.final != "running" or not any("start" in other.steps for other in others)

    async def _act(self, sailor: Sailor) -> None:
        step = sailor.steps.pop(0)
        name, before = sailor.name, sailor.uid
        match step:
            case "start":
                await self._start(sailor)
                sailor.is_up = True
                await self._see(sailor, lambda: self.scene.runs(name))
            case "restart":
                await self._ask(sailor, {"action": "Stop", "uid": before}, {"action": "Start"})
                await self._see(sailor, lambda: self.scene.runs(name, not_uid=before))
            case "stop":
                await self._stop(sailor)
                await self.scene.until(lambda: self.scene.is_stopped(name), self._story(sailor))
                sailor.is_up, sailor.uid = False, ""
            case "delete":
                sailor.log.append("delete")
                await self.scene.client.delete(VIRTUAL_MACHINES, self._key(sailor))
                await self.scene.until(lambda: self._is_gone(name), self._story(sailor))
                sailor.is_up = False

    async def _see(self, sailor: Sailor, runs: Callable[[], bool]) -> None:
        """Wait until it runs, or change one's mind: then the uid of what may come up is not known."""
        sailor.uid = ""
        changes_mind = sailor.steps[:1] in (["stop"], ["delete"])
        if changes_mind and self.chance.random() < IMPATIENCE:
            sailor.log.append("does not wait")
            return
        await self.scene.until(runs, self._story(sailor))
        vmi = self.scene.vmi(sailor.name)
        assert vmi is not None
        sailor.uid = vmi.metadata.uid

    async def _start(self, sailor: Sailor) -> None:
        strategy = self.chance.choice(["Always", "Manual", "RerunOnFailure"])
        if strategy != sailor.strategy:
            await self._edit(sailor, strategy)
        if strategy == "Manual":
            await self._ask(sailor, {"action": "Start"})

    async def _stop(self, sailor: Sailor) -> None:
        may_ask = sailor.strategy in ("Manual", "RerunOnFailure") and sailor.uid
        if may_ask and self.chance.random() < 0.5:
            await self._ask(sailor, {"action": "Stop", "uid": sailor.uid})
        else:
            await self._edit(sailor, "Halted")

    async def _edit(self, sailor: Sailor, strategy: str) -> None:
        sailor.log.append(f"{sailor.strategy} to {strategy}")
        sailor.strategy = strategy
        patch = {"spec": {"runStrategy": strategy}}
        await self.scene.client.merge_patch(VIRTUAL_MACHINES, self._key(sailor), patch)

    async def _ask(self, sailor: Sailor, *requests: Json) -> None:
        """Append requests, as the verbs do: to what is there, unless that has changed meanwhile."""
        sailor.log.append("asks to " + ", ".join(request["action"] for request in requests))
        client, key = self.scene.client, self._key(sailor)
        async with asyncio.timeout(self.scene.patience_s):
            while True:
                machine = _decode(await client.get(VIRTUAL_MACHINES, key))
                known = msgspec.to_builtins(machine.status.state_change_requests or [])
                patch = {
                    "metadata": {"resourceVersion": machine.metadata.resource_version},
                    "status": {"stateChangeRequests": [*known, *requests]},
                }
                try:
                    await client.merge_patch(VIRTUAL_MACHINES, key, patch, subresource="status")
                except ApiConflict:
                    continue
                return

    def _key(self, sailor: Sailor) -> ObjectKey:
        return ObjectKey(self.scene.namespace, sailor.name)

    def _is_gone(self, name: str) -> bool:
        return self.scene.vm(name) is None and self.scene.vmi(name) is None

    def _story(self, sailor: Sailor) -> str:
        return f"{sailor.name} as asked for: {'; '.join(sailor.log)}"


async def blow(scene: Scene, seed: int) -> list[Sailor]:
    """Let all users loose on machines made for them, and wait until every machine is as it was left."""
    users = []
    for number in range(USERS):
        chance = random.Random(f"{seed}/{number}")
        users.append(User(scene, chance, crew(number, chance)))
    sailors = [sailor for user in users for sailor in user.sailors]
    for sailor in sailors:
        manifest = bare(sailor.name, sailor.strategy)
        await scene.client.create(VIRTUAL_MACHINES, scene.namespace, manifest)
    await scene.until(lambda: all(scene.is_stopped(s.name) for s in sailors), "all are stopped")
    async with asyncio.TaskGroup() as group:
        for number, user in enumerate(users):
            group.create_task(user.run(), name=f"user-{number}")
    try:
        await scene.until(lambda: not any(complaints(scene, sailors)), "all is as it was left")
    except AssertionError as error:
        raise AssertionError("\n".join(complaints(scene, sailors))) from error
    return sailors


def complaints(scene: Scene, sailors: list[Sailor]) -> Iterator[str]:
    """What is not as the machines were left."""
    carried = {
        owner.name
        for pod in scene.pods.list()
        if (owner := pod.metadata.controller_reference()) is not None
    }
    running = {sailor.name for sailor in sailors if sailor.final == "running"}
    if carried != running or len(scene.pods.list()) != len(running):
        yield f"there are pods of {sorted(carried)} and machines {sorted(running)}"
    for sailor in sailors:
        machine, vmi = scene.vm(sailor.name), scene.vmi(sailor.name)
        story = f"{sailor.name}, to be {sailor.final} ({'; '.join(sailor.log)})"
        if (machine is None) != (sailor.final == "gone"):
            yield f"{story}: machine {'lost' if machine is None else 'still there'}"
        if (vmi is not None) != (sailor.final == "running"):
            yield f"{story}: instance {'lost' if vmi is None else 'still there'}"
        if machine is not None:
            yield from (f"{story}: {what}" for what in _inconsistencies(machine, vmi))


def _inconsistencies(
    machine: v1.VirtualMachine, vmi: v1.VirtualMachineInstance | None
) -> Iterator[str]:
    status = machine.status
    if status.printable_status != ("Stopped" if vmi is None else "Running"):
        yield f"says {status.printable_status}"
    if status.created != (vmi is not None):
        yield f"says created {status.created}"
    if status.state_change_requests:
        yield f"has requests {status.state_change_requests}"
    if status.run_strategy != machine.spec.run_strategy:
        yield f"acts on {status.run_strategy} and shall on {machine.spec.run_strategy}"
    for type_ in (names.ConditionType.FAILURE, names.ConditionType.RESTART_REQUIRED):
        if meta.find_condition(status.conditions, type_) is not None:
            yield f"has condition {type_}"
    ready = meta.find_condition(status.conditions, names.ConditionType.READY)
    if ready is None or ready.is_true != status.ready or ready.is_true != (vmi is not None):
        yield f"has condition {ready}"
    if vmi is None:
        return
    owner = vmi.metadata.controller_reference()
    if owner is None or owner.uid != machine.metadata.uid:
        yield f"has an instance that belongs to {owner}"
    if status.observed_generation != machine.metadata.generation:
        yield f"has generation {machine.metadata.generation}, runs {status.observed_generation}"
