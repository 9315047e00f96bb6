"""start, stop and restart by the verbs of subresources.kubevirt.io: one after another at once, by force, and by whom."""

import asyncio
import random

import pytest

from tests.e2e.test_run_strategies import says, stops
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, user_data, vm
from tests.support.verbs import call, put, served

NOBODY = 'User "jane" cannot update resource "virtualmachines/{}"'


@pytest.fixture(autouse=True)
async def api(cluster: Cluster) -> None:
    await served(cluster)


async def said(cluster: Cluster, name: str, verb: str, options: Json | None = None) -> str:
    """What a verb of a machine is refused with; empty when it is done."""
    return (await call(cluster, f"virtualmachines/{name}", verb, options or {})).stderr


async def runs_anew(cluster: Cluster, name: str, before: Json | None) -> Json:
    """The instance that has taken the place of the one before, as soon as the machine says that it runs."""
    uid = before["metadata"]["uid"] if before is not None else None
    found = await Machine(cluster, name).running(not_uid=uid)
    await says(cluster, name, "Running")
    return found


@pytest.mark.parametrize("strategy", ["Halted", "Manual"])
async def test_each_verb_is_in_force_for_the_next(cluster: Cluster, strategy: str) -> None:
    """Whatever the controllers have done about it meanwhile."""
    name = strategy.lower()
    await cluster.apply(vm(name, run_strategy=strategy, terminationGracePeriodSeconds=1))
    assert "VM is not running" in await said(cluster, name, "stop")
    for _ in range(3):
        assert await said(cluster, name, "start") == ""
        assert await said(cluster, name, "stop") == ""
    assert await said(cluster, name, "start", {"paused": True}) == ""
    assert await said(cluster, name, "stop") == ""
    await stops(cluster, name)
    assert await said(cluster, name, "start") == ""
    assert await said(cluster, name, "restart") == ""
    first = await runs_anew(cluster, name, None)
    assert "startStrategy" not in first["spec"]
    assert "VM is already running" in await said(cluster, name, "start")
    assert await said(cluster, name, "restart") == ""
    second = await runs_anew(cluster, name, first)
    for options, last in (({}, "Running"), ({"paused": True}, "Paused")):
        assert await said(cluster, name, "stop") == ""
        assert await said(cluster, name, "start", options) == ""
        second = await Machine(cluster, name).running(not_uid=second["metadata"]["uid"])
        await says(cluster, name, last)


async def test_a_guest_that_does_not_listen_is_ended_by_force(cluster: Cluster) -> None:
    """It was asked to shut down and has ten minutes, which a second call cuts short; and a restart by force gives it none."""
    name = "deaf"
    manifest = vm(name, terminationGracePeriodSeconds=600)
    seed = user_data(name, "runcmd:", "  - killall acpid")
    volumes = manifest["spec"]["template"]["spec"]["volumes"]
    volumes[1]["cloudInitNoCloud"]["userData"] = seed
    await cluster.apply(manifest)
    machine = Machine(cluster, name)
    first = await machine.running()
    await machine.console_shows("deaf login:")
    assert await said(cluster, name, "restart", {"gracePeriodSeconds": 0}) == ""
    await runs_anew(cluster, name, first)
    await machine.console_shows("deaf login:")
    assert await said(cluster, name, "stop") == ""
    assert "shorter graceperiod" in await said(cluster, name, "stop", {"gracePeriod": 600})
    assert await said(cluster, name, "stop", {"gracePeriod": 0}) == ""
    await stops(cluster, name)


async def test_in_any_order_by_many(cluster: Cluster) -> None:
    """Five clients at once: none of them wedges a machine, and the last word counts."""
    names = [f"crowd-{number}" for number in range(3)]
    for name in names:
        await cluster.apply(vm(name, run_strategy="Halted", terminationGracePeriodSeconds=1))
    dice = random.Random(7)

    async def client() -> None:
        for _ in range(6):
            name, verb = dice.choice(names), dice.choice(("start", "stop", "restart"))
            refused = await said(cluster, name, verb)
            # What another one asked for is in the way; nothing else is.
            known = ("VM is", "does not support", "shorter graceperiod", "already underway")
            assert not refused or any(words in refused for words in known), refused

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(client(), name=f"client {number}")
    for name in names:
        refused = await said(cluster, name, "start")
        known = ("VM is already running", "Always does not support", "already underway")
        assert not refused or any(words in refused for words in known), refused
    for name in names:
        await runs_anew(cluster, name, None)
        assert await said(cluster, name, "stop") == ""
    for name in names:
        await stops(cluster, name)


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
async def test_who_may(cluster: Cluster, verb: str) -> None:
    target, refused = "virtualmachines/nobody", NOBODY.format(verb)
    assert refused in (await call(cluster, target, verb, {}, "--as=jane")).stderr
    for role, answer in (("view", refused), ("edit", '"nobody" not found')):
        await cluster.kubectl(
            "create", "rolebinding", f"jane-{role}", f"--clusterrole={role}", "--user=jane"
        )
        assert answer in (await call(cluster, target, verb, {}, "--as=jane")).stderr


MACHINES, CLIENTS = 20, 5
VERBS = ("start", "pause", "unpause", "restart", "stop")
INSTANCES = "virtualmachineinstances"


def without_system(name: str) -> Json:
    """A machine that has nothing to boot: its firmware waits, and costs next to nothing."""
    manifest = vm(name, run_strategy="Halted", terminationGracePeriodSeconds=0, volumes=[])
    manifest["spec"]["template"]["spec"]["domain"]["devices"] = {}
    return manifest


@pytest.mark.alone
async def test_five_people_at_twenty_machines(cluster: Cluster) -> None:
    """Each verb at each machine, in any order; a refusal is one of state, and in the end every machine is as it was asked to be."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    names = [f"m{number:02}" for number in range(MACHINES)]
    manifests = {"apiVersion": "v1", "kind": "List", "items": [without_system(n) for n in names]}
    await cluster.apply(manifests)
    deeds = [(name, verb) for name in names for verb in VERBS]
    dice.shuffle(deeds)

    async def client() -> list[str]:
        wrong = []
        while deeds:
            name, verb = deeds.pop()
            kind = "virtualmachines" if verb in ("start", "stop", "restart") else INSTANCES
            code, text = await put(cluster, f"{kind}/{name}", verb)
            if code == 503:  # nobody answers in time on a busy machine
                deeds.append((name, verb))
            elif code not in (202, 404, 409) and "already underway" not in text:
                wrong.append(f"{verb} {name}: {code} {text}")
        return wrong

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(), name=f"client {n}") for n in range(CLIENTS)]
    assert [wrong for one in clients for wrong in one.result()] == [], f"seed {seed}"
    await asyncio.gather(
        *(_settle(cluster, name, runs=index % 2 == 0) for index, name in enumerate(names))
    )


async def _settle(cluster: Cluster, name: str, *, runs: bool) -> None:
    """Ask a machine to run, and not to be paused, or to stop, until it is so or on its way; and see that it comes to be."""
    async with asyncio.timeout(120):
        while True:
            code, text = await put(cluster, f"virtualmachines/{name}", "start" if runs else "stop")
            if code == 202 or "is already running" in text or "is not running" in text:
                break
            await asyncio.sleep(0.2)
        if not runs:
            await stops(cluster, name)
            return
        await Machine(cluster, name).running(within_s=100)
        await put(cluster, f"{INSTANCES}/{name}", "unpause")
        await says(cluster, name, "Running")
