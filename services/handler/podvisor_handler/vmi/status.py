"""What the handler says of one VirtualMachineInstance in its status.

Invariant: pure. status_of() returns every field that the handler owns, or None when it has nothing
to say; needs_write() is true only when a reader would see a difference. Text that comes from a
launcher is untrusted: it is shortened, made printable, and never decides anything.
"""

from datetime import datetime
from typing import Any

import msgspec
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import meta, v1
from podvisor_common.api.v1.names import ConditionType, EventReason, Phase, Reason
from podvisor_common.kube.conditions import set_condition

from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi import (
    guest_interfaces,
    guest_status,
    hardware,
    hotplug,
    interface_status,
    outcome,
)
from podvisor_handler.vmi.interface_problems import NETWORK_NOT_READY, interface_problem
from podvisor_handler.vmi.plan import Observed, Problem
from podvisor_handler.vmi.problems import (
    LAUNCHER_WAITING,
    REASONS,
    printable,
    reported_problem,
)

# A launcher that is restarted is back before anybody needs to know.
UNRESPONSIVE_AFTER_S = 10.0
FAILURE_LASTS_AFTER_S = 10.0
LAUNCHER_REFUSED = "LauncherRefused"
LAUNCHER_UNRESPONSIVE = "LauncherUnresponsive"
LIBVIRT_UNRESPONSIVE = "LibvirtUnresponsive"

_PAUSED = {
    domain_pb2.DOMAIN_REASON_IO_ERROR: (
        Reason.PAUSED_IO_ERROR,
        "VMI was paused, low-level IO error detected",
    ),
    domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE: ("Paused", "VMI was paused"),
}
_PAUSED_UNKNOWN = (
    "Paused",
    "VMI was paused for a reason that this version of virt-handler does not know",
)
_PAUSED_BY_USER = (Reason.PAUSED_BY_USER, "VMI was paused by user")
_LAUNCHER_STEPS = {"DisksReady": "disks_ready", "DomainStarted": "domain_started"}
# Of which nothing said is no news. That a guest has no interface any more is.
_HARDWARE_FIELDS = ("machine", "memory", "current_cpu_topology")
# Of which nothing said is news: the guest has no agent any more.
_OF_AGENT = ("guest_os_info", "fs_freeze_status")
_OWN_PHASES = (Phase.RUNNING, Phase.SUCCEEDED, Phase.FAILED)


def status_of(now: Observed, at: datetime) -> v1.VirtualMachineInstanceStatus | None:
    """The handler's fields of the status at the moment `at`; None when they are the controller's."""
    if now.vmi.is_final:
        return None
    ended = outcome.outcome_of(now)
    if ended is not None:
        return _ended(now, ended, at)
    launcher, report = now.launcher, now.launcher.report
    runs = report is not None and report.state in (
        domain_pb2.DOMAIN_STATE_RUNNING,
        domain_pb2.DOMAIN_STATE_PAUSED,
    )
    if runs or now.vmi.status.phase == Phase.RUNNING:
        silent = launcher.connection is not Connection.CONNECTED
        if silent and launcher.silent_for_s < UNRESPONSIVE_AFTER_S:
            return None
        return _running(now, at)
    return _starting(now, at)


def needs_write(
    current: v1.VirtualMachineInstanceStatus, desired: v1.VirtualMachineInstanceStatus
) -> bool:
    """Whether writing `desired` over `current` changes something that a reader can see."""
    if desired.phase and desired.phase != current.phase:
        return True
    for field in _HARDWARE_FIELDS:
        wanted = getattr(desired, field)
        if wanted is not None and wanted != getattr(current, field):
            return True
    if (desired.interfaces or []) != (current.interfaces or []):
        return True
    if any(getattr(desired, field) != getattr(current, field) for field in _OF_AGENT):
        return True
    if _volumes_differ(current, desired.volume_status or []):
        return True
    wanted_conditions = {c.type: _visible(c) for c in desired.conditions or ()}
    found_conditions = {c.type: _visible(c) for c in current.conditions or ()}
    if any(found_conditions.get(type_) != seen for type_, seen in wanted_conditions.items()):
        return True
    return any(
        condition.type not in wanted_conditions and _is_own(condition)
        for condition in current.conditions or ()
    )


def _volumes_differ(
    current: v1.VirtualMachineInstanceStatus, wanted: list[v1.VolumeStatus]
) -> bool:
    """In what the handler says of them. An entry that only the controller says something in is no concern of its."""
    found = {volume.name: hardware.own_part(volume) for volume in current.volume_status or ()}
    if any(found.pop(volume.name, None) != volume for volume in wanted):
        return True
    return any(volume != v1.VolumeStatus(name=volume.name) for volume in found.values())


def events_of(
    current: v1.VirtualMachineInstanceStatus, desired: v1.VirtualMachineInstanceStatus
) -> list[tuple[str, str, str]]:
    """Type, reason and message of the events that go with writing `desired` over `current`."""
    events: list[tuple[str, str, str]] = []
    if desired.phase and desired.phase != current.phase:
        ready = meta.find_condition(desired.conditions, ConditionType.READY)
        message = ready.message if ready else ""
        if desired.phase == Phase.RUNNING:
            events.append(("Normal", EventReason.STARTED, "VirtualMachineInstance started."))
        elif desired.phase == Phase.SUCCEEDED:
            events.append(("Normal", EventReason.STOPPED, message))
        elif desired.phase == Phase.FAILED:
            events.append(("Warning", EventReason.STOPPED, message))
            return events
    wanted = meta.find_condition(desired.conditions, ConditionType.SYNCHRONIZED)
    found = meta.find_condition(current.conditions, ConditionType.SYNCHRONIZED)
    if wanted is not None and (found is None or _visible(found) != _visible(wanted)):
        is_hotplug = wanted.reason == Reason.HOT_PLUG_NETWORK_INTERFACE_ERROR
        reason = EventReason.HOTPLUG_FAILED if is_hotplug else EventReason.SYNC_FAILED
        events.append(("Warning", reason, wanted.message))
    events += guest_status.events_of(current, desired)
    return [*events, *_pause_events(current, desired), *hotplug.events_of(current, desired)]


def _pause_events(
    current: v1.VirtualMachineInstanceStatus, desired: v1.VirtualMachineInstanceStatus
) -> list[tuple[str, str, str]]:
    """Of a guest that stands still from now on or goes on. One that has ended does neither."""
    found = meta.find_condition(current.conditions, ConditionType.PAUSED)
    wanted = meta.find_condition(desired.conditions, ConditionType.PAUSED)
    if wanted is not None and (found is None or found.reason != wanted.reason):
        type_ = "Normal" if wanted.reason == Reason.PAUSED_BY_USER else "Warning"
        return [(type_, EventReason.PAUSED, wanted.message)]
    if found is not None and wanted is None and desired.phase == Phase.RUNNING:
        return [("Normal", EventReason.UNPAUSED, "VirtualMachineInstance unpaused.")]
    return []


def written_out(status: v1.VirtualMachineInstanceStatus) -> dict[str, Any]:
    """The status as it is applied. An empty reason is written as such: a field that an apply leaves
    out keeps what another writer put there.
    """
    content: dict[str, Any] = msgspec.to_builtins(status)
    for condition in content.get("conditions", ()):
        condition.setdefault("reason", "")
        condition.setdefault("message", "")
    return content


def _starting(now: Observed, at: datetime) -> v1.VirtualMachineInstanceStatus:
    problem = now.launcher.refusal or _silence(now) or _problem(now)
    conditions: list[meta.Condition] = []
    if problem is not None:
        conditions = _with(now, conditions, ConditionType.SYNCHRONIZED, "False", problem, at)
    return v1.VirtualMachineInstanceStatus(
        conditions=conditions or None, volume_status=hotplug.volumes_of(now) or None
    )


def _running(now: Observed, at: datetime) -> v1.VirtualMachineInstanceStatus:
    readiness = _readiness(now)
    conditions = _with(now, [], ConditionType.READY, *readiness, at)
    pause = _pause(now, is_known=readiness[0] != "Unknown")
    if pause is not None:
        conditions = _with(now, conditions, ConditionType.PAUSED, "True", pause, at)
    conditions = _with(
        now,
        conditions,
        ConditionType.LIVE_MIGRATABLE,
        "False",
        Problem("LiveMigrationNotSupported", "Live migration is not supported yet."),
        at,
    )
    if guest_interfaces.is_connected(now):
        there = Problem("", "")
        conditions = _with(now, conditions, ConditionType.AGENT_CONNECTED, "True", there, at)
    credentials = guest_status.credentials_of(now)
    if credentials is not None:
        type_ = ConditionType.ACCESS_CREDENTIALS_SYNCHRONIZED
        conditions = _with(now, conditions, type_, *credentials, at)
    problem = _problem(now)
    if problem is not None:
        conditions = _with(now, conditions, ConditionType.SYNCHRONIZED, "False", problem, at)
    return v1.VirtualMachineInstanceStatus(
        phase=Phase.RUNNING,
        conditions=conditions,
        phase_transition_timestamps=_transitions(now, Phase.RUNNING, at),
        interfaces=interface_status.interface_statuses(now),
        machine=hardware.machine_of(now),
        memory=hardware.memory_of(now),
        current_cpu_topology=hardware.topology_of(now),
        guest_os_info=guest_status.os_info_of(now),
        fs_freeze_status=guest_status.freeze_status_of(now),
        volume_status=[*hardware.volumes_of(now), *hotplug.volumes_of(now)] or None,
        start_timeline=_timeline(now, at),
    )


def _ended(now: Observed, ended: outcome.Outcome, at: datetime) -> v1.VirtualMachineInstanceStatus:
    current = now.vmi.status
    message = printable(ended.message)
    not_running = Problem(Reason.GUEST_NOT_RUNNING, message)
    conditions = _with(now, [], ConditionType.READY, "False", not_running, at)
    problem = reported_problem(now.vmi, now.launcher.report)
    if problem is not None and ended.phase == Phase.FAILED:
        conditions = _with(now, conditions, ConditionType.SYNCHRONIZED, "False", problem, at)
    return v1.VirtualMachineInstanceStatus(
        phase=ended.phase,
        reason=ended.reason if ended.phase == Phase.FAILED else "",
        conditions=conditions,
        phase_transition_timestamps=_transitions(now, ended.phase, at),
        interfaces=current.interfaces,
        machine=current.machine,
        memory=current.memory,
        current_cpu_topology=current.current_cpu_topology,
        guest_os_info=current.guest_os_info,
        volume_status=[*hardware.known_volumes(now), *hotplug.known_volumes(now)] or None,
        start_timeline=_own_timeline(current.start_timeline),
    )


def _problem(now: Observed) -> Problem | None:
    """What keeps the machine from being as it is wanted; what fails once is not worth a word."""
    lasting = now.failure if now.failing_for_s >= FAILURE_LASTS_AFTER_S else None
    reported = reported_problem(now.vmi, now.launcher.report)
    return now.problem or lasting or reported or interface_problem(now)


def _silence(now: Observed) -> Problem | None:
    """A launcher that has answered and does not any more; one that never has is still coming up."""
    launcher = now.launcher
    if launcher.connection is not Connection.UNRESPONSIVE:
        return None
    if launcher.silent_for_s < UNRESPONSIVE_AFTER_S:
        return None
    return Problem(LAUNCHER_UNRESPONSIVE, "The launcher in the pod does not answer any more.")


def _readiness(now: Observed) -> tuple[str, Problem]:
    report, launcher = now.launcher.report, now.launcher
    if launcher.connection is not Connection.CONNECTED and launcher.refusal is not None:
        return "Unknown", launcher.refusal
    if launcher.connection is not Connection.CONNECTED:
        return "Unknown", Problem(
            LAUNCHER_UNRESPONSIVE,
            "The launcher in the pod does not answer; what the guest does is not known.",
        )
    if report is not None and report.reason == domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE:
        return "Unknown", Problem(
            LIBVIRT_UNRESPONSIVE,
            "libvirt in the pod does not answer; what the guest does is not known.",
        )
    if report is not None and report.state not in domain_pb2.DomainState.values():
        return "Unknown", Problem(
            "UnknownState",
            f"The launcher reports state {report.state}, which this version of virt-handler does not know.",
        )
    if report is None or report.state != domain_pb2.DOMAIN_STATE_RUNNING:
        return "False", Problem(Reason.GUEST_NOT_RUNNING, "Guest VM is not reported as running")
    unready = guest_status.failed_readiness(now)
    return ("False", unready) if unready is not None else ("True", Problem("", ""))


def _pause(now: Observed, *, is_known: bool) -> Problem | None:
    """Why the guest stands still. One that did goes on only when somebody who can know says so: `is_known`."""
    report, reported = now.launcher.report, None
    if report is not None and report.state == domain_pb2.DOMAIN_STATE_PAUSED:
        reported = _reported_pause(report)
        is_known = is_known or report.reason != domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE
    known = meta.find_condition(now.vmi.status.conditions, ConditionType.PAUSED)
    if is_known or known is None:
        return reported
    return Problem(known.reason, known.message)


def _reported_pause(report: domain_pb2.DomainReport) -> Problem:
    known = report.reason in domain_pb2.DomainReason.values()
    otherwise = _PAUSED_BY_USER if known else _PAUSED_UNKNOWN
    reason, message = _PAUSED.get(report.reason, otherwise)
    return Problem(reason, printable(f"{message}: {report.message}" if report.message else message))


def _with(
    now: Observed,
    conditions: list[meta.Condition],
    type_: str,
    status: str,
    why: Problem,
    at: datetime,
) -> list[meta.Condition]:
    """`conditions` and one more, whose transition time is the known one unless it changes."""
    known = [c for c in now.vmi.status.conditions or () if c.type == type_]
    fresh = set_condition(known, type_, status, why.reason, why.message, meta.format_time(at))
    return [*conditions, *fresh]


def _transitions(now: Observed, phase: Phase, at: datetime) -> list[v1.PhaseTransitionTimestamp]:
    known = [
        entry
        for entry in now.vmi.status.phase_transition_timestamps or ()
        if entry.phase in _OWN_PHASES
    ]
    if any(entry.phase == phase for entry in known):
        return known
    moment = meta.format_time(at)
    return [*known, v1.PhaseTransitionTimestamp(phase=phase, phase_transition_timestamp=moment)]


def _timeline(now: Observed, at: datetime) -> v1.StartTimeline:
    """The handler's steps; one that is known already stays what it is."""
    moments: dict[str, datetime] = {"running": at}
    if now.launcher.ready_at is not None:
        moments["launcher_ready"] = now.launcher.ready_at
    if now.network_ready_at is not None:
        moments["network_ready"] = now.network_ready_at
    report = now.launcher.report
    for step in report.timeline if report is not None else ():
        # What is no moment of the past is left out; its launcher is not vouched for.
        is_past = 0 < step.at.seconds <= at.timestamp() and 0 <= step.at.nanos < 10**9
        if step.name in _LAUNCHER_STEPS and is_past:
            moments[_LAUNCHER_STEPS[step.name]] = step.at.ToDatetime(tzinfo=at.tzinfo)
    created = meta.parse_time(now.vmi.metadata.creation_timestamp or meta.format_time(at))
    steps = {
        name: max(0, round((moment - created).total_seconds() * 1000))
        for name, moment in moments.items()
    }
    known = _own_timeline(now.vmi.status.start_timeline)
    for name in _OWN_STEPS:
        value = getattr(known, name, None)
        if value is not None:
            steps[name] = value
    return v1.StartTimeline(**steps)


_OWN_STEPS = ("launcher_ready", "network_ready", "disks_ready", "domain_started", "running")


def _own_timeline(known: v1.StartTimeline | None) -> v1.StartTimeline | None:
    if known is None:
        return None
    return v1.StartTimeline(**{name: getattr(known, name) for name in _OWN_STEPS})


def _is_own(condition: meta.Condition) -> bool:
    """Whether the handler wrote the condition. `Synchronized` and `Ready` have two writers."""
    if condition.type == ConditionType.SYNCHRONIZED:
        return condition.reason in OWN_SYNCHRONIZED_REASONS
    return condition.type in (
        ConditionType.AGENT_CONNECTED,
        ConditionType.ACCESS_CREDENTIALS_SYNCHRONIZED,
        ConditionType.PAUSED,
        ConditionType.LIVE_MIGRATABLE,
    )


OWN_SYNCHRONIZED_REASONS = frozenset(
    {
        *REASONS.values(),
        LAUNCHER_WAITING,
        Reason.HOT_PLUG_NETWORK_INTERFACE_ERROR,
        "InvalidSpec",
        NETWORK_NOT_READY,
        "NetworkRefused",
        "VolumeNotReady",
        "LauncherFailed",
        "LauncherIncompatible",
        LAUNCHER_REFUSED,
        LAUNCHER_UNRESPONSIVE,
    }
)


def _visible(condition: meta.Condition) -> tuple[str, str, str]:
    return condition.status, condition.reason, condition.message
