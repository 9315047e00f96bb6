"""What the status tells of the guest's inside: its operating system, its file systems, its access credentials, its
readiness where it is probed.

Invariant: pure. The words are the guest's or its launcher's, which nobody vouches for: they are shortened and made printable. What a
launcher that has just started has not heard yet stays as it was told.
"""

from podvisor_common.api import meta, v1
from podvisor_common.api.v1.names import ConditionType, EventReason, Reason
from podvisor_common.told import told_text

from podvisor_handler.vmi.guest_interfaces import is_connected
from podvisor_handler.vmi.plan import Observed, Problem
from podvisor_handler.vmi.problems import printable

FROZEN = "frozen"
# Of a pod: its containers are, whatever else it waits for.
CONTAINERS_READY = "ContainersReady"
_TEXT_LIMIT = 256
_OS_FIELDS = (
    "name",
    "id",
    "pretty_name",
    "version",
    "version_id",
    "kernel_release",
    "kernel_version",
    "machine",
)


def os_info_of(now: Observed) -> v1.GuestOSInfo | None:
    """By the agent's words; None where none is connected that has told."""
    if not is_connected(now):
        return None
    report = now.launcher.report
    if report is None or not report.guest_agent.HasField("os"):
        return now.vmi.status.guest_os_info
    told = report.guest_agent.os
    info = v1.GuestOSInfo(
        **{name: told_text(getattr(told, name), _TEXT_LIMIT) for name in _OS_FIELDS}
    )
    return info if info != v1.GuestOSInfo() else None


def freeze_status_of(now: Observed) -> str:
    """`frozen`, or nothing."""
    report = now.launcher.report
    if report is None:
        return now.vmi.status.fs_freeze_status
    return FROZEN if report.filesystems_frozen else ""


def credentials_of(now: Observed) -> tuple[str, Problem] | None:
    """Status and reason of the condition AccessCredentialsSynchronized; None where nobody has tried."""
    report = now.launcher.report
    if report is None or not report.HasField("access_credentials"):
        known = meta.find_condition(
            now.vmi.status.conditions, ConditionType.ACCESS_CREDENTIALS_SYNCHRONIZED
        )
        return (known.status, Problem(known.reason, known.message)) if known else None
    if report.access_credentials.synchronized:
        return "True", Problem("", "")
    return "False", Problem(
        EventReason.ACCESS_CREDENTIALS_SYNC_FAILED, printable(report.access_credentials.message)
    )


def failed_readiness(now: Observed) -> Problem | None:
    """Why a guest that runs is not ready by its readinessProbe, in the kubelet's words; None where it is, or has no such probe."""
    if now.vmi.spec.readiness_probe is None or now.pod is None:
        return None
    known = meta.find_condition(now.pod.status.conditions, CONTAINERS_READY)
    if known is None:
        return Problem(Reason.POD_CONDITION_MISSING, "The readinessProbe has not been made yet.")
    if known.status == "True":
        return None
    return Problem(known.reason or "ContainersNotReady", printable(known.message))


def events_of(
    current: v1.VirtualMachineInstanceStatus, desired: v1.VirtualMachineInstanceStatus
) -> list[tuple[str, str, str]]:
    """Type, reason and message of the events of access credentials that go with writing `desired` over `current`."""
    type_ = ConditionType.ACCESS_CREDENTIALS_SYNCHRONIZED
    found = meta.find_condition(current.conditions, type_)
    wanted = meta.find_condition(desired.conditions, type_)
    if wanted is None or (
        found and (found.status, found.message) == (wanted.status, wanted.message)
    ):
        return []
    if wanted.status == "True":
        message = "Access credentials sync successful."
        return [("Normal", EventReason.ACCESS_CREDENTIALS_SYNC_SUCCESS, message)]
    return [("Warning", EventReason.ACCESS_CREDENTIALS_SYNC_FAILED, wanted.message)]
