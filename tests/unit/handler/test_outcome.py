"""How an instance ends, by whatever tells of it: its launcher, its pod, its container, or nobody."""

from dataclasses import replace

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi.outcome import outcome_of
from podvisor_handler.vmi.plan import Observed

from tests.unit.handler.builders import pod, pod_manifest, vmi
from tests.unit.handler.observations import (
    RUNNING_MACHINE,
    UNHEARD_OF,
    condition,
    observed,
    said,
)


def without_processes(now: Observed) -> Observed:
    """The same, with nothing left of the launcher's container."""
    return replace(now, launcher=replace(now.launcher, is_over=True))


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


@pytest.mark.parametrize(
    ("machine", "phase", "reason"),
    [
        (vmi(), "Failed", "NeverStarted"),
        (vmi(deleted=True), "Succeeded", "NeverStarted"),
        (RUNNING_MACHINE, "Failed", "PodFailed"),
        (BEING_DELETED, "Succeeded", "PodFailed"),
    ],
)
def test_a_container_that_the_runtime_does_not_know(
    machine: v1.VirtualMachineInstance, phase: str, reason: str
) -> None:
    """Such as one whose image was never pulled: no guest has crashed there."""
    manifest = pod_manifest(phase="Failed", exit_code=137)
    (compute,) = manifest["status"]["containerStatuses"]
    compute["state"]["terminated"]["reason"] = core.CONTAINER_STATUS_UNKNOWN
    carrier = msgspec.convert(manifest, core.Pod)
    now = observed(None, machine=machine, carrier=carrier, connection=Connection.WAITING)
    ended = outcome_of(now)
    assert ended is not None
    assert (ended.phase, ended.reason) == (phase, reason)


def test_an_end_without_a_known_reason_is_told_by_the_pod() -> None:
    ended = observed(domain_pb2.DOMAIN_STATE_ENDED, machine=RUNNING_MACHINE, reason=UNHEARD_OF)
    assert outcome_of(ended) is None
    clean = replace(ended, pod=pod(phase="Succeeded", exit_code=0))
    assert said(clean).phase == "Succeeded"


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
