"""What the handler says of an instance, and when it says it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, meta, v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.outcome import outcome_of
from podvisor_handler.vmi.plan import Launcher, Observed, Problem
from podvisor_handler.vmi.problems import printable
from podvisor_handler.vmi.status import events_of, needs_write, status_of, written_out

from tests.unit.handler.builders import CREATED, pod, vmi
from tests.unit.handler.fake_launcher import VMI_UID

AT = datetime(2026, 1, 2, 3, 4, 8, tzinfo=UTC)
LATER = AT + timedelta(minutes=5)
# A value of a later release, which no type checker lets through.
_LATER: Any = 1000
WIRED = PodNetwork(1450, ("10.244.0.7",))


def without_processes(now: Observed) -> Observed:
    """The same, with nothing left of the launcher's container."""
    return replace(now, launcher=replace(now.launcher, is_over=True))


def observed(
    state: domain_pb2.DomainState.ValueType | None = domain_pb2.DOMAIN_STATE_RUNNING,
    *,
    machine: v1.VirtualMachineInstance | None = None,
    carrier: core.Pod | None = None,
    connection: Connection = Connection.CONNECTED,
    silent_for_s: float = 0.0,
    network: PodNetwork | None = WIRED,
    problem: Problem | None = None,
    **report: Any,
) -> Observed:
    said = None
    if state is not None:
        report.setdefault("machine_type", "pc-q35-10.0")
        said = domain_pb2.DomainReport(
            epoch=1, sequence=1, uid=VMI_UID, state=state, applied_generation=1, **report
        )
    return Observed(
        vmi=machine or vmi(),
        pod=carrier or pod(),
        launcher=Launcher(connection, said, silent_for_s),
        network=network,
        problem=problem,
    )


def said(now: Observed, at: datetime = AT) -> v1.VirtualMachineInstanceStatus:
    status = status_of(now, at)
    assert status is not None
    return status


def condition(status: v1.VirtualMachineInstanceStatus, type_: str) -> tuple[str, str]:
    found = meta.find_condition(status.conditions, type_)
    return (found.status, found.reason) if found else ("", "")


def written(status: v1.VirtualMachineInstanceStatus) -> v1.VirtualMachineInstance:
    """The instance after the API server has taken the status."""
    content = msgspec.to_builtins(status)
    return vmi(phase=content.pop("phase", "Scheduled"), status=content)


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
            observed(_LATER, machine=vmi(phase="Running")),
            "Ready",
            ("Unknown", "UnknownState"),
            id="a state of a later release",
        ),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_PAUSED, reason=_LATER),
            "Paused",
            ("True", "Paused"),
            id="paused for a reason of a later release",
        ),
        pytest.param(
            observed(domain_pb2.DOMAIN_STATE_WAITING, reason=_LATER, message="no"),
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


def test_an_end_without_a_known_reason_is_told_by_the_pod() -> None:
    ended = observed(domain_pb2.DOMAIN_STATE_ENDED, machine=RUNNING_MACHINE, reason=_LATER)
    assert outcome_of(ended) is None
    clean = replace(ended, pod=pod(phase="Succeeded", exit_code=0))
    assert said(clean).phase == "Succeeded"


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


RUNNING_MACHINE = written(said(observed()))
BEING_DELETED = vmi(phase="Running", deleted=True)


@pytest.mark.parametrize(
    ("reason", "machine", "phase"),
    [
        (domain_pb2.DOMAIN_REASON_SHUTDOWN, RUNNING_MACHINE, "Succeeded"),
        (domain_pb2.DOMAIN_REASON_DESTROYED, RUNNING_MACHINE, "Succeeded"),
        (domain_pb2.DOMAIN_REASON_CRASHED, RUNNING_MACHINE, "Failed"),
        (domain_pb2.DOMAIN_REASON_CRASHED, BEING_DELETED, "Failed"),
        (domain_pb2.DOMAIN_REASON_REJECTED, vmi(), "Failed"),
        (domain_pb2.DOMAIN_REASON_START_FAILED, vmi(), "Failed"),
        (domain_pb2.DOMAIN_REASON_GRACE_PERIOD_EXPIRED, BEING_DELETED, "Succeeded"),
        (domain_pb2.DOMAIN_REASON_GRACE_PERIOD_EXPIRED, RUNNING_MACHINE, "Failed"),
        (domain_pb2.DOMAIN_REASON_NEVER_STARTED, vmi(deleted=True), "Succeeded"),
        (domain_pb2.DOMAIN_REASON_NEVER_STARTED, vmi(), "Failed"),
        (domain_pb2.DOMAIN_REASON_UNSPECIFIED, RUNNING_MACHINE, "Failed"),
    ],
)
def test_how_an_instance_ends(
    reason: domain_pb2.DomainReason.ValueType, machine: v1.VirtualMachineInstance, phase: str
) -> None:
    status = said(observed(domain_pb2.DOMAIN_STATE_ENDED, machine=machine, reason=reason))
    assert status.phase == phase
    assert condition(status, "Ready") == ("False", "GuestNotRunning")
    assert (status.reason != "") == (phase == "Failed")


def test_a_container_without_processes_ends_an_instance_unless_somebody_knows_better() -> None:
    lost = without_processes(observed(connection=Connection.UNRESPONSIVE))
    ended = outcome_of(lost)
    assert ended is not None
    assert (ended.phase, ended.reason) == ("Failed", "PodFailed")
    wanted = without_processes(
        observed(connection=Connection.UNRESPONSIVE, machine=vmi(deleted=True))
    )
    asked_for = outcome_of(wanted)
    assert asked_for is not None
    assert asked_for.phase == "Succeeded"
    told = outcome_of(replace(lost, pod=pod(phase="Succeeded", exit_code=0)))
    assert told is not None
    assert told.reason == "Shutdown"
    crashed = domain_pb2.DOMAIN_REASON_CRASHED
    reported = outcome_of(
        without_processes(observed(domain_pb2.DOMAIN_STATE_ENDED, reason=crashed))
    )
    assert reported is not None
    assert reported.reason == "GuestCrashed"


@pytest.mark.parametrize(
    ("carrier", "phase"),
    [
        (pod(phase="Succeeded", exit_code=0), "Succeeded"),
        (pod(phase="Failed", exit_code=1), "Failed"),
        (pod(phase="Failed", exit_code=0), "Succeeded"),
        (pod(phase="Failed"), None),
        (pod(phase="Running"), None),
    ],
    ids=["clean", "crashed", "a sidecar failed", "no container ever ran", "runs"],
)
def test_a_terminal_pod_ends_an_instance(carrier: core.Pod, phase: str | None) -> None:
    ended = outcome_of(observed(None, carrier=carrier, connection=Connection.WAITING))
    assert (ended.phase if ended else None) == phase


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


@pytest.mark.parametrize(
    ("source", "said_key", "named"),
    [
        ({"secretRef": {"name": "late"}}, "userdata or userData", 'Secret "late"'),
        (
            {"secretRef": {"name": "late"}, "networkDataSecretRef": {"name": "net"}},
            "networkdata or networkData",
            'Secret "net"',
        ),
        ({"userData": "x"}, "userdata", "as the launcher said it"),
    ],
)
def test_a_missing_secret_is_named(source: dict[str, Any], said_key: str, named: str) -> None:
    machine = vmi(spec={"volumes": [{"name": "ci", "cloudInitNoCloud": source}]})
    now = observed(
        domain_pb2.DOMAIN_STATE_WAITING,
        machine=machine,
        reason=domain_pb2.DOMAIN_REASON_MISSING_SECRET,
        message=f'Volume "ci": no key {said_key}, as the launcher said it',
    )
    found = meta.find_condition(said(now).conditions, "Synchronized")
    assert found is not None
    assert 'Volume "ci"' in found.message
    assert named in found.message


def test_text_of_a_launcher_is_not_trusted() -> None:
    assert printable("a\x1b[31mb\nc") == "a [31mb c"
    assert len(printable("x" * 10_000)) == 1024
    assert said(observed(machine_type="<script>")).machine is None


_OVER_ITS_LIMIT = 'Usage of EmptyDir volume "private" exceeds the limit "64Gi".'


@pytest.mark.parametrize(
    ("situation", "carrier", "expected"),
    [
        ("its containers still end", pod(), None),
        (
            "the kubelet has said why",
            pod(phase="Failed", exit_code=0, reason="Evicted", message=_OVER_ITS_LIMIT),
            ("Failed", "Evicted", f"The node ended the pod: {_OVER_ITS_LIMIT}"),
        ),
        (
            "the kubelet has nothing to say",
            pod(phase="Succeeded", exit_code=0),
            (
                "Failed",
                "Evicted",
                "The node ended the pod, which nobody had deleted; events of pod"
                " virt-launcher-myvm-abcde say why.",
            ),
        ),
        (
            "it was deleted",
            pod(deletion_grace_s=35),
            ("Succeeded", "Shutdown", "The VirtualMachineInstance was shut down."),
        ),
    ],
)
def test_a_guest_that_ended_with_its_pod(
    situation: str, carrier: core.Pod, expected: tuple[str, str, str] | None
) -> None:
    """A guest obeys when its pod is told to end; that the machine was evicted is to be read all the same."""
    now = observed(
        domain_pb2.DOMAIN_STATE_ENDED,
        machine=vmi(phase="Running"),
        carrier=carrier,
        reason=domain_pb2.DOMAIN_REASON_SHUTDOWN,
        container_stopping=True,
    )
    ended = outcome_of(now)
    assert (ended and (ended.phase, ended.reason, ended.message)) == expected


def test_a_guest_that_was_killed_with_its_pod() -> None:
    """The kubelet grants an evicted pod a second; then nobody is left to report."""
    carrier = pod(phase="Failed", exit_code=137, reason="Evicted", message=_OVER_ITS_LIMIT)
    now = observed(
        machine=vmi(phase="Running"), carrier=carrier, connection=Connection.UNRESPONSIVE
    )
    ended = outcome_of(now)
    assert ended is not None
    assert (ended.phase, ended.reason) == ("Failed", "Evicted")
