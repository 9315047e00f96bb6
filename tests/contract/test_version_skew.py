"""Handler and launcher of different builds: launchers live for weeks, so each must get on with the other's older and later
contract. The other build is made of descriptors at run time and speaks over real sockets.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor_common.kube.resources import PODS, VIRTUAL_MACHINE_INSTANCES
from podvisor_common.rpc.client import call, unix_channel
from podvisor_common.rpc.errors import FailedPrecondition, InvalidArgument, RpcError, Unimplemented
from podvisor_common.rpc.server import RpcService, serve_unix
from podvisor_launcher.lifecycle.freezing import Freezing
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.lifecycle.machine import Machine
from podvisor_launcher.lifecycle.reports import Reports
from podvisor_launcher.rpc.guest_agent import GuestAgentCalls
from podvisor_launcher.rpc.servicer import launcher_service
from podvisor_launcher.settings import Settings
from podvisor_launcher.virt.events import ensure_event_loop

from tests.support.contract import (
    LATER_FIELD,
    LATER_METHOD,
    LATER_NUMBER,
    LAUNCHER,
    Contract,
    Message,
    said_later,
)
from tests.unit.handler.builders import pod_manifest
from tests.unit.handler.fake_launcher import needs_root, sockets_directory
from tests.unit.handler.world import RUNNING, World, handler, start, world_in
from tests.unit.launcher.specs import cloud_init_disk, spec

FINALIZED = {"finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"]}
WITHIN_S = 10
# Verbs that came after the first release, in the order in which a guest can be asked for them.
NEWER_VERBS = {"PauseDomain", "ResumeDomain"}
UNKNOWN_TO_THE_DRIVER = {"ResetDomain", "RebootDomain", "TakeScreenshot"}
OF_THE_AGENT = {
    "GetGuestInfo", "ListGuestUsers", "ListGuestFilesystems", "FreezeGuest", "ThawGuest",
}  # fmt: skip


class Peer:
    """A launcher of another build. `says` is what it does to every message before it sends it."""

    def __init__(
        self, contract: Contract, version: int, says: Callable[[Message], Message] = lambda m: m
    ) -> None:
        self.applied: list[Message] = []
        self.shutdowns: list[int] = []
        self.refusal: RpcError | None = None  # of every specification
        self._contract = contract
        self._version = version
        self._says = says
        self._report = contract.domain("DomainReport", epoch=1, sequence=1, state=1)
        self._changed = asyncio.Condition()

    @property
    def service(self) -> RpcService:
        """What serve_unix() serves."""
        return self._contract.service(
            LAUNCHER,
            {
                "GetInfo": self._get_info,
                "ApplyDomain": self._apply,
                "WatchDomain": self._watch,
                "ShutdownDomain": self._shutdown,
            },
        )

    async def report(self, **fields: Any) -> None:
        """The machine's state has changed."""
        async with self._changed:
            self._report.sequence += 1
            self._report.MergeFrom(self._contract.domain("DomainReport", **fields))
            self._changed.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a call that makes `holds` true."""
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(holds)

    async def _get_info(self, _: Message) -> Message:
        return self._answer("GetInfoResponse", version="9.9.9", contract_version=self._version)

    async def _apply(self, request: Message) -> Message:
        if self.refusal is not None:
            raise self.refusal
        async with self._changed:
            self.applied.append(request.spec)
            self._changed.notify_all()
        return self._answer("ApplyDomainResponse", accepted_generation=request.spec.generation)

    async def _shutdown(self, request: Message) -> Message:
        async with self._changed:
            self.shutdowns.append(request.grace_period_s)
            self._changed.notify_all()
        return self._answer("ShutdownDomainResponse")

    async def _watch(self, _: Message) -> AsyncIterator[Message]:
        sent = 0
        while True:
            async with self._changed:
                while self._report.sequence == sent:
                    await self._changed.wait()
                sent = self._report.sequence
                reply = self._answer("WatchDomainResponse", report=self._report)
            yield reply

    def _answer(self, name: str, **fields: Any) -> Message:
        return self._says(self._contract.launcher(name, **fields))


@contextlib.asynccontextmanager
async def serving(service: RpcService, pods: Path) -> AsyncIterator[None]:
    """Serves `service` where the launcher of the pod has its socket."""
    path = sockets_directory(pods) / "launcher.sock"
    with tempfile.TemporaryDirectory(prefix="pv") as short:
        async with serve_unix(f"{short}/s", [service], publish_as=path, grace_s=0.0):
            yield


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as it:
        yield it


async def listed(world: World) -> handler_pb2.Machine:
    """The one machine as the handler's own contract shows it."""
    async with unix_channel(str(world.run / "handler.sock")) as channel:
        stub = handler_pb2_grpc.HandlerServiceStub(channel)
        request = handler_pb2.ListDomainsRequest()
        answer = await call(stub.ListDomains, request, timeout_s=5, wait_for_ready=True)
    (machine,) = answer.machines
    return machine


def delete(world: World) -> None:
    """Somebody deletes the instance."""
    deleted = {**world.vmi()["metadata"], "deletionTimestamp": "2026-01-02T04:00:00Z"}
    world.server.put(VIRTUAL_MACHINE_INSTANCES, {**world.vmi(), "metadata": deleted})


def older() -> Peer:
    return Peer(Contract.older(), 1)


def later() -> Peer:
    return Peer(Contract.later(), 7, said_later)


@needs_root
@pytest.mark.parametrize(("build", "agreed"), [(older, 1), (later, 3)])
async def test_this_handler_with_another_launcher(
    world: World, build: Callable[[], Peer], agreed: int
) -> None:
    """From the specification to the end, by the older of the two contracts; fields of a later one are no news."""
    peer = build()
    start(world, **FINALIZED)
    async with serving(peer.service, world.pods), handler(world):
        await peer.until(lambda: len(peer.applied) == 1)
        assert (peer.applied[0].name, peer.applied[0].memory.guest_bytes) == ("myvm", 64_000_000)
        await peer.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        assert world.condition("Ready")["status"] == "True"
        machine = await listed(world)
        assert (machine.launcher_version, machine.contract_version) == ("9.9.9", agreed)
        delete(world)
        await peer.until(lambda: peer.shutdowns == [5])
        await peer.report(
            state=domain_pb2.DOMAIN_STATE_ENDED, reason=domain_pb2.DOMAIN_REASON_SHUTDOWN
        )
        await world.until(lambda: world.status("phase") == "Succeeded")


@needs_root
async def test_a_state_that_only_the_launcher_knows(world: World) -> None:
    """The handler says that it does not know, does not take it for an end, and can still ask for one."""
    peer = later()
    start(world, **FINALIZED)
    async with serving(peer.service, world.pods), handler(world):
        await peer.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        await peer.report(state=LATER_NUMBER, reason=LATER_NUMBER)
        await world.until(lambda: world.condition("Ready")["status"] == "Unknown")
        assert world.condition("Ready")["reason"] == "UnknownState"
        assert world.status("phase") == "Running"
        delete(world)
        await peer.until(lambda: peer.shutdowns == [5])


@needs_root
async def test_a_wait_for_what_only_the_launcher_knows(world: World) -> None:
    """What a person reads are the launcher's own words."""
    peer = later()
    start(world)
    async with serving(peer.service, world.pods), handler(world):
        await peer.report(
            state=domain_pb2.DOMAIN_STATE_WAITING, reason=LATER_NUMBER, message="No moon tonight."
        )
        await world.until(lambda: world.condition("Synchronized") != {})
        found = world.condition("Synchronized")
        assert (found["reason"], found["message"]) == ("LauncherWaiting", "No moon tonight.")


@needs_root
async def test_a_refusal_for_a_reason_that_only_the_launcher_knows(world: World) -> None:
    """A person reads its words; a program reads that it was the launcher's refusal."""
    peer = later()
    peer.refusal = FailedPrecondition("Not on a Sunday.", reason="OfALaterRelease")
    start(world)
    async with serving(peer.service, world.pods), handler(world):
        await world.until(lambda: world.condition("Synchronized") != {})
        found = world.condition("Synchronized")
        assert (found["reason"], found["message"]) == ("LauncherRefused", "Not on a Sunday.")


@needs_root
@pytest.mark.parametrize(("exit_code", "phase"), [(0, "Succeeded"), (1, "Failed")])
async def test_an_end_for_a_reason_that_only_the_launcher_knows(
    world: World, exit_code: int, phase: str
) -> None:
    """A word that nobody here understands makes nothing Failed: the launcher's exit code tells."""
    peer = later()
    start(world)
    async with serving(peer.service, world.pods), handler(world):
        await peer.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        await peer.report(state=domain_pb2.DOMAIN_STATE_ENDED, reason=LATER_NUMBER)
        await world.until(lambda: world.condition("Ready")["status"] == "False")
        assert world.status("phase") == "Running"
        pod = pod_manifest(phase="Succeeded" if exit_code == 0 else "Failed", exit_code=exit_code)
        world.server.put(PODS, pod)
        await world.until(lambda: world.status("phase") == phase)


@needs_root
async def test_a_launcher_of_another_contract_is_told_and_left_alone(world: World) -> None:
    """Its package is unknown here: nothing but the handshake is ever sent to it."""
    contract, calls = Contract.renamed("podvisor.launcher.v2"), []

    async def get_info(request: Message) -> Message:
        calls.append(request)
        return contract.message("podvisor.launcher.v2.GetInfoResponse", contract_version=1)

    service = contract.service("podvisor.launcher.v2.LauncherService", {"GetInfo": get_info})
    start(world)
    async with serving(service, world.pods), handler(world):
        await world.until(lambda: world.condition("Synchronized") != {})
        found = world.condition("Synchronized")
        assert found["reason"] == "LauncherIncompatible"
        assert "podvisor.launcher.v1" in found["message"]
        assert world.status("phase") == "Scheduled"
    assert calls == []


@contextlib.asynccontextmanager
async def this_launcher(directory: Path) -> AsyncIterator[str]:
    """This build's launcher on libvirt's test driver; the path of its socket."""
    ensure_event_loop()
    for name in ("sockets", "private", "console"):
        (directory / name).mkdir()
    settings = Settings(run_dir=directory, libvirt_uri="test:///default")
    reports = Reports(epoch=7)
    machine = Machine(settings, reports, lambda _: None)
    questions = GuestQuestions(machine.agent, machine.libvirt)
    guest = GuestAgentCalls(questions, Freezing(settings.freeze, machine.agent, questions))
    tasks = [
        asyncio.create_task(machine.libvirt.run(), name="libvirt"),
        asyncio.create_task(machine.run(), name="machine"),
    ]
    try:
        with tempfile.TemporaryDirectory(prefix="pv") as short:
            service = launcher_service(machine, reports, guest)
            async with serve_unix(f"{short}/s", [service], grace_s=0.0):
                yield f"{short}/s"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def spec_of(contract: Contract, name: str, **changes: object) -> Message:
    """A specification as a handler with that contract writes it."""
    wanted = spec(name=name, **changes)
    return type(contract.domain("DomainSpec")).FromString(wanted.SerializeToString())


@pytest.mark.parametrize(
    ("contract", "says"),
    [(Contract.older(), lambda message: message), (Contract.later(), said_later)],
    ids=["older", "later"],
)
async def test_another_handler_with_this_launcher(
    tmp_path: Path, contract: Contract, says: Callable[[Message], Message]
) -> None:
    """Every verb of the other's contract, but for what only a later one has."""
    name = f"skewed-{len(contract.verbs)}"

    async with this_launcher(tmp_path) as path, unix_channel(path) as channel:

        async def ask(method: str, **fields: Any) -> Message:
            request = says(contract.launcher(f"{method}Request", **fields))
            return await contract.call(channel, method, request)

        async def until(state: int) -> Message:
            async with (
                asyncio.timeout(WITHIN_S),
                contextlib.aclosing(
                    contract.watch(channel)  # type: ignore[type-var]
                ) as replies,
            ):
                async for reply in replies:
                    if reply.report.state == state:
                        return reply.report
            raise AssertionError("the stream ended")

        assert (await ask("GetInfo", client_version="9.9.9")).contract_version == 3
        disks = [cloud_init_disk(user_data=b"#cloud-config\n")]
        # The driver may still know of the domain before, which no other one may share its UUID with.
        wanted = spec_of(contract, name, disks=disks, firmware_uuid=str(uuid4()))
        assert (await ask("ApplyDomain", spec=wanted)).accepted_generation == 1
        running = await until(domain_pb2.DOMAIN_STATE_RUNNING)
        assert running.applied_generation == 1
        assert f"default_{name}" in (await ask("GetDomainXml")).xml
        for verb in sorted(NEWER_VERBS & set(contract.verbs)):
            await ask(verb)
        await ask("ShutdownDomain", grace_period_s=30)
        ended = await until(domain_pb2.DOMAIN_STATE_ENDED)
        assert ended.reason == domain_pb2.DOMAIN_REASON_SHUTDOWN
        await ask("DestroyDomain")
        for method in OF_THE_AGENT & set(contract.verbs):
            with pytest.raises(FailedPrecondition, match="no agent that is connected"):
                await ask(method)
        if LATER_METHOD in contract.verbs:
            with pytest.raises(Unimplemented):
                await contract.call(channel, LATER_METHOD, contract.launcher("GetInfoRequest"))
    not_asked = {LATER_METHOD} | NEWER_VERBS | UNKNOWN_TO_THE_DRIVER | OF_THE_AGENT
    assert set(contract.verbs) - not_asked == {
        "GetInfo", "ApplyDomain", "WatchDomain", "GetDomainXml", "ShutdownDomain", "DestroyDomain",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda wanted: setattr(wanted, "accelerator", LATER_NUMBER), "accelerator"),
        (lambda wanted: setattr(wanted.disks[0], "bus", LATER_NUMBER), "unknown bus"),
        (lambda wanted: setattr(wanted.disks[0], f"source_{LATER_FIELD}", "x"), "no source that"),
    ],
    ids=["accelerator", "bus", "kind of source"],
)
async def test_what_this_launcher_cannot_build_is_refused_by_name(
    tmp_path: Path, change: Callable[[Message], None], complaint: str
) -> None:
    """A value that changes what the machine is must not be passed over as an unknown field may be."""
    contract = Contract.later()
    wanted = spec_of(contract, "unbuildable", disks=[cloud_init_disk()])
    change(wanted)
    async with this_launcher(tmp_path) as path, unix_channel(path) as channel:
        request = contract.launcher("ApplyDomainRequest", spec=wanted)
        with pytest.raises(InvalidArgument, match=complaint) as refused:
            await contract.call(channel, "ApplyDomain", request)
    assert refused.value.reason == "InvalidSpec"
