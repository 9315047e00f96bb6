"""What the handler says of an instance, and when it says it."""

from dataclasses import replace
from datetime import timedelta

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import meta, v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi.outcome import outcome_of
from podvisor_handler.vmi.plan import Launcher, Observed, Problem
from podvisor_handler.vmi.problems import printable
from podvisor_handler.vmi.status import events_of, needs_write, status_of, written_out

from tests.unit.handler.builders import CREATED, pod, vmi
from tests.unit.handler.observations import (
    AT,
    LATER,
    RUNNING_MACHINE,
    UNHEARD_OF,
    condition,
    observed,
    said,
    written,
)


def test_a_guest_that_runs() -> None:
    status = said(observed())
    assert status.phase == "Running"
    assert condition(status, "Ready") == ("True", "")
    assert condition(status, "LiveMigratable")[0] == "False"
    assert status.machine is not None
    assert status.machine.type == "pc-q35-10.0"
    assert status.interfaces is not None
    (interface,) = status.interfaces
    assert interface.name == "default"
    assert interface.ip_address == "10.244.0.7"
    assert interface.ip_addresses == ["10.244.0.7"]
    assert interface.info_source == "domain"
    assert interface.mac.startswith("02:")
    assert status.memory is not None
    assert status.memory.guest_at_boot == "62500Ki"
    assert status.phase_transition_timestamps is not None
    (transition,) = status.phase_transition_timestamps
    assert (transition.phase, transition.phase_transition_timestamp) == (
        "Running",
        "2026-01-02T03:04:08Z",
    )


def test_the_timeline_counts_from_creation() -> None:
    now = observed()
    step = now.launcher.report.timeline.add(name="DomainStarted")  # type: ignore[union-attr]
    step.at.FromDatetime(meta.parse_time(CREATED) + timedelta(milliseconds=1234))
    timeline = said(now).start_timeline
    assert timeline is not None
    assert timeline.domain_started == 1234
    assert timeline.running == 3000
    again = said(observed(machine=written(said(now))), LATER).start_timeline
    assert again == timeline


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-1, 0), (1, -1), (1, 2**31 - 1)])
def test_a_step_at_no_moment_is_left_out(seconds: int, nanos: int) -> None:
    now = observed()
    step = now.launcher.report.timeline.add(name="DomainStarted")  # type: ignore[union-attr]
    step.at.seconds, step.at.nanos = seconds, nanos
    status = said(now)
    assert status.phase == "Running"
    assert status.start_timeline is not None
    assert status.start_timeline.domain_started is None


def test_nothing_is_written_twice() -> None:
    first = said(observed())
    again = said(observed(machine=written(first)), LATER)
    assert not needs_write(written(first).status, again)
    assert again == first


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(observed(), id="runs"),
        pytest.param(observed(domain_pb2.DOMAIN_STATE_PAUSED), id="stands still"),
        pytest.param(observed(shutting_down=True, machine=vmi(deleted=True)), id="is going"),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_WAITING, reason=domain_pb2.DOMAIN_REASON_INVALID_DISK),
            id="waits for a disk",
        ),
        pytest.param(
            observed(None, connection=Connection.UNRESPONSIVE, silent_for_s=11), id="is silent"
        ),
    ],
)
def test_twenty_looks_at_the_same_say_nothing(now: Observed) -> None:
    shown = written(said(now))
    later = replace(now, vmi=shown)
    for minute in range(20):
        again = said(later, AT + timedelta(minutes=minute))
        assert not needs_write(shown.status, again)
        assert events_of(shown.status, again) == []


def test_a_restarted_handler_keeps_what_is_known() -> None:
    """Before it has wired the network again it does not know the addresses; the status keeps them."""
    first = said(observed())
    again = said(observed(machine=written(first), network=None), LATER)
    assert again.interfaces == first.interfaces
    assert not needs_write(written(first).status, again)


@pytest.mark.parametrize(
    ("now", "type_", "expected"),
    [
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_PAUSED, reason=domain_pb2.DOMAIN_REASON_IO_ERROR),
            "Paused",
            ("True", "PausedIOError"),
            id="paused by an I/O error",
        ),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_PAUSED),
            "Paused",
            ("True", "PausedByUser"),
            id="paused",
        ),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_PAUSED),
            "Ready",
            ("False", "GuestNotRunning"),
            id="paused, not ready",
        ),
        pytest.param(
            observed(connection=Connection.UNRESPONSIVE, silent_for_s=11),
            "Ready",
            ("Unknown", "LauncherUnresponsive"),
            id="launcher is silent",
        ),
        pytest.param(
            observed(reason=domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE),
            "Ready",
            ("Unknown", "LibvirtUnresponsive"),
            id="libvirt is silent",
        ),
        pytest.param(
            observed(UNHEARD_OF, machine=vmi(phase="Running")),
            "Ready",
            ("Unknown", "UnknownState"),
            id="a state of a later release",
        ),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_PAUSED, reason=UNHEARD_OF),
            "Paused",
            ("True", "Paused"),
            id="paused for a reason of a later release",
        ),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_WAITING, reason=UNHEARD_OF, message="no"),
            "Synchronized",
            ("False", "LauncherWaiting"),
            id="waits for something of a later release",
        ),
        pytest.param(
            observed(
                domain_pb2.DOMAIN_STATE_WAITING,
                reason=domain_pb2.DOMAIN_REASON_MISSING_SECRET,
                message='Volume "ci": Secret "s" does not exist.',
            ),
            "Synchronized",
            ("False", "MissingSecret"),
            id="Secret is missing",
        ),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_WAITING, reason=domain_pb2.DOMAIN_REASON_INVALID_DISK),
            "Synchronized",
            ("False", "InvalidDisk"),
            id="image is no disk",
        ),
        pytest.param(
            observed(None, problem=Problem("InvalidSpec", "spec.x: no")),
            "Synchronized",
            ("False", "InvalidSpec"),
            id="the handler itself refuses",
        ),
    ],
)
def test_conditions(now: Observed, type_: str, expected: tuple[str, str]) -> None:
    assert condition(said(now), type_) == expected


@pytest.mark.parametrize(
    ("connection", "silent_for_s", "refusal", "expected"),
    [
        (Connection.WAITING, 9999, None, ("", "")),
        (Connection.UNRESPONSIVE, 3, None, ("", "")),
        (Connection.UNRESPONSIVE, 11, None, ("False", "LauncherUnresponsive")),
        (Connection.WAITING, 0, Problem("LauncherRefused", "no"), ("False", "LauncherRefused")),
    ],
    ids=["image is being pulled", "may be restarting", "was there and is silent", "refused"],
)
def test_what_keeps_a_guest_from_starting(
    connection: Connection, silent_for_s: float, refusal: Problem | None, expected: tuple[str, str]
) -> None:
    now = Observed(vmi(), pod(), Launcher(connection, None, silent_for_s, refusal=refusal))
    status = said(now)
    assert condition(status, "Synchronized") == expected
    assert status.phase == ""
    again = written(status)
    solved = said(observed(domain_pb2.DOMAIN_STATE_PREPARING, machine=again))
    assert solved.conditions is None
    assert needs_write(again.status, solved) is (expected != ("", ""))


@pytest.mark.parametrize(("failing_for_s", "shown"), [(3, False), (11, True)])
def test_what_fails_again_and_again_is_told(failing_for_s: float, shown: bool) -> None:
    failure = Problem("NetworkNotReady", "cannot wire the pod's network: not supported")
    connected = Launcher(Connection.CONNECTED)
    now = Observed(vmi(), pod(), connected, failure=failure, failing_for_s=failing_for_s)
    expected = ("False", "NetworkNotReady") if shown else ("", "")
    status = said(now)
    assert condition(status, "Synchronized") == expected
    solved = said(observed(domain_pb2.DOMAIN_STATE_PREPARING, machine=written(status)))
    assert needs_write(written(status).status, solved) is shown


def test_a_launcher_that_is_not_spoken_to_says_nothing_of_its_guest() -> None:
    running = written(said(observed()))
    refusal = Problem("LauncherIncompatible", "the launcher does not speak podvisor.launcher.v1")
    launcher = Launcher(Connection.WAITING, None, silent_for_s=11, refusal=refusal)
    status = said(Observed(running, pod(), launcher))
    assert status.phase == "Running"
    assert condition(status, "Ready") == ("Unknown", "LauncherIncompatible")


def test_being_unreachable_is_never_failed() -> None:
    running = written(said(observed()))
    now = observed(None, machine=running, connection=Connection.UNRESPONSIVE, silent_for_s=9999)
    assert said(now).phase == "Running"
    assert outcome_of(now) is None


def test_a_restarted_launcher_or_handler_is_given_time() -> None:
    running = written(said(observed()))
    for state, connection in (
        (domain_pb2.DOMAIN_STATE_RUNNING, Connection.UNRESPONSIVE),
        (None, Connection.WAITING),
    ):
        now = observed(state, machine=running, connection=connection, silent_for_s=3)
        assert status_of(now, AT) is None


def test_before_the_guest_runs_the_phase_is_the_controllers() -> None:
    for state in (domain_pb2.DOMAIN_STATE_NONE, domain_pb2.DOMAIN_STATE_PREPARING, None):
        status = said(observed(state))
        assert status == v1.VirtualMachineInstanceStatus()
        assert not needs_write(vmi().status, status)


def test_a_problem_that_is_solved_disappears() -> None:
    waiting = said(observed(None, problem=Problem("InvalidSpec", "no")))
    assert needs_write(vmi().status, waiting)
    solved = said(observed(domain_pb2.DOMAIN_STATE_PREPARING, machine=written(waiting)))
    assert solved.conditions is None
    assert needs_write(written(waiting).status, solved)


def test_what_the_controller_says_is_left_alone() -> None:
    pull = {"type": "Synchronized", "status": "False", "reason": "ErrImagePull", "message": ""}
    machine = vmi(status={"conditions": [pull]})
    status = said(observed(domain_pb2.DOMAIN_STATE_NONE, machine=machine))
    assert not needs_write(machine.status, status)


def test_a_final_phase_stays() -> None:
    assert status_of(observed(machine=vmi(phase="Failed")), AT) is None


def test_events_go_with_transitions() -> None:
    running = said(observed())
    assert events_of(vmi().status, running) == [
        ("Normal", "Started", "VirtualMachineInstance started.")
    ]
    assert events_of(RUNNING_MACHINE.status, running) == []
    ended = said(
        observed(
            domain_pb2.DOMAIN_STATE_ENDED,
            machine=RUNNING_MACHINE,
            reason=domain_pb2.DOMAIN_REASON_SHUTDOWN,
        )
    )
    assert events_of(RUNNING_MACHINE.status, ended) == [
        ("Normal", "Stopped", "The VirtualMachineInstance was shut down.")
    ]
    crashed = said(
        observed(
            domain_pb2.DOMAIN_STATE_ENDED,
            machine=RUNNING_MACHINE,
            reason=domain_pb2.DOMAIN_REASON_CRASHED,
            message="QEMU died",
        )
    )
    assert events_of(RUNNING_MACHINE.status, crashed) == [
        ("Warning", "Stopped", "The VirtualMachineInstance crashed. QEMU died")
    ]


def test_an_event_for_a_problem_comes_once() -> None:
    problem = said(observed(None, problem=Problem("InvalidDisk", "no disk")))
    assert events_of(vmi().status, problem) == [("Warning", "SyncFailed", "no disk")]
    assert events_of(written(problem).status, problem) == []


def test_an_empty_reason_is_written_out() -> None:
    """Otherwise the controller's words of before would stay beside the handler's `True`."""
    (ready, _) = written_out(said(observed()))["conditions"]
    assert (ready["status"], ready["reason"], ready["message"]) == ("True", "", "")


def test_text_of_a_launcher_is_not_trusted() -> None:
    assert printable("a\x1b[31mb\nc") == "a [31mb c"
    assert len(printable("x" * 10_000)) == 1024
    assert said(observed(machine_type="<script>")).machine is None
