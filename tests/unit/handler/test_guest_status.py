"""What the status tells of the inside of a guest."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from podvisor.domain.v1 import domain_pb2, guest_pb2
from podvisor_common.api import meta, v1
from podvisor_common.kube.resources import PODS
from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi.status import events_of, needs_write

from tests.unit.handler.builders import pod, pod_manifest, vmi
from tests.unit.handler.fake_launcher import FakeLauncher, needs_root, serving
from tests.unit.handler.observations import condition, observed, said, written
from tests.unit.handler.world import NO_NETWORK, RUNNING, handler, start, world_in

Agent = domain_pb2.GuestAgentReport
DEBIAN = guest_pb2.GuestOs(
    id="debian",
    name="Debian GNU/Linux",
    pretty_name="Debian GNU/Linux 12 (bookworm)",
    version="12 (bookworm)",
    version_id="12",
    kernel_release="6.1.0",
    kernel_version="#1 SMP",
    machine="x86_64",
)
TOLD = Agent(connected=True, answered=True, os=DEBIAN)
SYNCHRONIZED = domain_pb2.AccessCredentialsReport(synchronized=True)
FAILED = domain_pb2.AccessCredentialsReport(message="The Secret \x1b is missing.")


def test_the_system_of_a_guest_is_told_by_its_agent() -> None:
    told = said(observed(guest_agent=TOLD))
    assert told.guest_os_info == v1.GuestOSInfo(
        name="Debian GNU/Linux",
        id="debian",
        pretty_name="Debian GNU/Linux 12 (bookworm)",
        version="12 (bookworm)",
        version_id="12",
        kernel_release="6.1.0",
        kernel_version="#1 SMP",
        machine="x86_64",
    )
    assert needs_write(said(observed(guest_agent=Agent(connected=True))), told)


@pytest.mark.parametrize(
    ("agent", "is_kept"),
    [
        (Agent(connected=True), True),
        (None, True),
        (Agent(), False),
        (Agent(connected=True, os=guest_pb2.GuestOs()), False),
    ],
    ids=["has not told yet", "of an older launcher", "gone", "tells nothing"],
)
def test_what_was_told_before(agent: Agent | None, is_kept: bool) -> None:
    first = said(observed(guest_agent=TOLD))
    report: dict[str, Any] = {"guest_agent": agent} if agent is not None else {}
    now = said(observed(machine=written(first), **report))
    assert (now.guest_os_info == first.guest_os_info) is is_kept
    assert needs_write(first, now) is not is_kept


def test_the_words_of_a_guest_are_bounded() -> None:
    os = guest_pb2.GuestOs(name="\x1b[2J" + "x" * 10_000)
    info = said(observed(guest_agent=Agent(connected=True, os=os))).guest_os_info
    assert info is not None
    assert info.name.isprintable()
    assert len(info.name) < 300


def test_file_systems_that_stand_still() -> None:
    running = said(observed())
    frozen = said(observed(filesystems_frozen=True))
    assert (running.fs_freeze_status, frozen.fs_freeze_status) == ("", "frozen")
    assert needs_write(running, frozen)
    assert needs_write(frozen, running)
    silent = observed(
        None, machine=written(frozen), connection=Connection.UNRESPONSIVE, silent_for_s=60
    )
    assert said(silent).fs_freeze_status == "frozen"


def test_access_credentials() -> None:
    type_ = "AccessCredentialsSynchronized"
    before = said(observed())
    assert condition(before, type_) == ("", "")
    there = said(observed(access_credentials=SYNCHRONIZED))
    assert condition(there, type_) == ("True", "")
    assert needs_write(before, there)
    [event] = events_of(written(before).status, there)
    assert event[:2] == ("Normal", "AccessCredentialsSyncSuccess")
    failed = said(observed(access_credentials=FAILED))
    assert condition(failed, type_) == ("False", "AccessCredentialsSyncFailed")
    [event] = events_of(written(there).status, failed)
    assert event == ("Warning", "AccessCredentialsSyncFailed", "The Secret   is missing.")
    # A launcher that has just started has not tried.
    again = said(observed(machine=written(there)))
    assert condition(again, type_) == ("True", "")
    assert events_of(written(there).status, again) == []


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([{"type": "ContainersReady", "status": "True"}], ("True", "")),
        (
            [{"type": "ContainersReady", "status": "False", "reason": "ContainersNotReady"}],
            ("False", "ContainersNotReady"),
        ),
        ([], ("False", "PodConditionMissing")),
    ],
    ids=["passes", "does not pass", "not made yet"],
)
def test_a_guest_is_as_ready_as_its_probe_says(
    conditions: list[dict[str, str]], expected: tuple[str, str]
) -> None:
    found = tuple(meta.Condition(**each) for each in conditions)
    carrier = pod()
    carrier = replace(carrier, status=replace(carrier.status, conditions=found))
    probed = vmi(spec={"readinessProbe": {"guestAgentPing": {}}})
    status = said(observed(machine=probed, carrier=carrier))
    assert condition(status, "Ready") == expected
    assert status.phase == "Running"
    assert condition(said(observed(carrier=carrier)), "Ready") == ("True", "")


@needs_root
async def test_what_the_kubelet_finds_reaches_the_instance(tmp_path: Path) -> None:
    probe: dict[str, Any] = {"readinessProbe": {"guestAgentPing": {}}}
    launcher = FakeLauncher()
    async with world_in(tmp_path) as world, serving(launcher, world.pods), handler(world):
        start(world, spec=NO_NETWORK | probe)
        await launcher.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        assert world.condition("Ready")["reason"] == "PodConditionMissing"
        for status in ("True", "False"):
            found = pod_manifest()
            conditions = [{"type": "ContainersReady", "status": status, "reason": "Found"}]
            found["status"]["conditions"] = conditions
            world.server.put(PODS, found)
            await world.until(lambda status=status: world.condition("Ready")["status"] == status)  # type: ignore[misc]
        assert world.condition("Ready")["reason"] == "Found"
