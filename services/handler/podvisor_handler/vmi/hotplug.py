"""How far the volumes are that may come and go, and what is said of each.

Invariant: pure. A pod holds a volume if the controller says so in the status of the instance: names and labels of pods can be
written by anybody. A volume counts as let go only when its launcher, which is connected, says of the present manifest that
neither it nor the guest has it: then the controller removes what holds it.
"""

from collections.abc import Callable

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.v1.names import EventReason, VolumePhase

from podvisor_handler.launchers.state import Connection
from podvisor_handler.storage.plan import HandOver
from podvisor_handler.vmi import hardware
from podvisor_handler.vmi.absence import proves_absence
from podvisor_handler.vmi.disks import hotpluggable_volumes, leaving_volumes, refused_disks
from podvisor_handler.vmi.plan import Observed
from podvisor_handler.vmi.problems import printable


def select_holders(
    vmi: v1.VirtualMachineInstance, pod_named: Callable[[str], core.Pod | None]
) -> dict[str, core.Pod]:
    """The running pods that hold volumes of `vmi` on this node, by volume. `pod_named` knows the pods of its namespace here."""
    found = {}
    for volume in vmi.status.volume_status or ():
        if volume.hotplug_volume is None:
            continue
        pod = pod_named(volume.hotplug_volume.attach_pod_name)
        if pod is None or pod.metadata.uid != volume.hotplug_volume.attach_pod_uid:
            continue
        if pod.status.phase == "Running" and not pod.metadata.is_being_deleted:
            found[volume.name] = pod
    return found


def volumes_of(now: Observed) -> list[v1.VolumeStatus]:
    """The volumes that may come and go and those on their way out: what the handler says of them and nothing else."""
    report = now.launcher.report
    if now.pod is None or report is None or now.launcher.connection is not Connection.CONNECTED:
        return known_volumes(now)
    disks = {disk.name: disk for disk in report.disks}
    refused = refused_disks(now.vmi, now.pod)
    said = {volume.name: volume for volume in now.vmi.status.volume_status or ()}
    wanted = [
        _wanted(now, said.get(name), name, disks.get(name), refused.get(name, ""))
        for name in hotpluggable_volumes(now.vmi)
    ]
    leaving = [
        _leaving(now, report, said[name], disks.get(name)) for name in leaving_volumes(now.vmi)
    ]
    return [*wanted, *leaving]


def known_volumes(now: Observed) -> list[v1.VolumeStatus]:
    """The same as it was said before."""
    names = {*hotpluggable_volumes(now.vmi), *leaving_volumes(now.vmi)}
    known = [hardware.own_part(v) for v in now.vmi.status.volume_status or () if v.name in names]
    return [volume for volume in known if volume != v1.VolumeStatus(name=volume.name)]


def has_let_go(now: Observed, pod_uid: str) -> bool:
    """Whether nobody has what a pod holds: it was said in the status, and the launcher, which is connected, says so still."""
    launcher = now.launcher
    if (
        now.pod is None
        or launcher.report is None
        or launcher.connection is not Connection.CONNECTED
    ):
        return False
    told = [
        entry
        for entry in now.vmi.status.volume_status or ()
        if entry.hotplug_volume is not None and entry.hotplug_volume.attach_pod_uid == pod_uid
    ]
    still = {volume.name for volume in volumes_of(now) if volume.unmounted_pod_uid == pod_uid}
    return bool(told) and all(entry.is_let_go and entry.name in still for entry in told)


def events_of(
    current: v1.VirtualMachineInstanceStatus, desired: v1.VirtualMachineInstanceStatus
) -> list[tuple[str, str, str]]:
    """Type, reason and message of the events that go with writing `desired` over `current`."""
    events: list[tuple[str, str, str]] = []
    said = {volume.name: volume for volume in current.volume_status or ()}
    for volume in desired.volume_status or ():
        known = said.get(volume.name) or v1.VolumeStatus(name=volume.name)
        if not volume.reason or (known.reason, known.message) == (volume.reason, volume.message):
            continue
        if volume.phase == VolumePhase.UNMOUNTED_FROM_POD and known.target:
            message = f"Volume {volume.name} has been unplugged from the guest"
            events.append(("Normal", EventReason.VOLUME_UNPLUGGED, message))
        is_failure = volume.reason == EventReason.HOTPLUG_FAILED
        events.append(("Warning" if is_failure else "Normal", volume.reason, volume.message))
    return events


def _wanted(
    now: Observed,
    said: v1.VolumeStatus | None,
    name: str,
    disk: domain_pb2.DiskReport | None,
    refusal: str,
) -> v1.VolumeStatus:
    attachment = disk.attachment if disk is not None else domain_pb2.DISK_ATTACHMENT_UNSPECIFIED
    if disk is not None and attachment == domain_pb2.DISK_ATTACHMENT_ATTACHED:
        message = f"Successfully attach hotplugged volume {name} to VM"
        return _device(name, said, disk, VolumePhase.READY, EventReason.VOLUME_READY, message)
    if disk is not None and attachment == domain_pb2.DISK_ATTACHMENT_DETACHING:
        # Removed and wanted anew: the guest lets go of it first.
        return _detaching(name, said, disk)
    attempt, holder = now.handovers.get(name), now.holders.get(name)
    phase, reason, message = VolumePhase.PENDING, "", ""
    if holder is not None:
        phase = VolumePhase.ATTACHED_TO_NODE
        if attempt is not None and attempt.is_taken and _is_current(now, attempt.order, holder):
            phase, reason = VolumePhase.MOUNTED_TO_POD, EventReason.VOLUME_MOUNTED_TO_POD
            message = f"Volume {name} has been mounted in virt-launcher pod"
    elif said is not None and _is_bound(said):
        phase = VolumePhase.BOUND
    problem = refusal or (attempt.problem if attempt is not None and holder is not None else "")
    problem = problem or printable(disk.message if disk is not None else "")
    if problem:
        reason, message = EventReason.HOTPLUG_FAILED, problem
    return v1.VolumeStatus(name=name, phase=phase, reason=reason, message=message)


def _leaving(
    now: Observed,
    report: domain_pb2.DomainReport,
    said: v1.VolumeStatus,
    disk: domain_pb2.DiskReport | None,
) -> v1.VolumeStatus:
    name, holder = said.name, said.hotplug_volume
    assert holder is not None
    if not _has_let_go(now, report, disk) or name in now.handing_over:
        return _detaching(name, said, disk)
    return v1.VolumeStatus(
        name=name,
        phase=VolumePhase.UNMOUNTED_FROM_POD,
        reason=EventReason.VOLUME_UNMOUNTED_FROM_POD,
        message=f"Volume {name} has been unmounted from virt-launcher pod",
        unmounted_pod_uid=holder.attach_pod_uid,
    )


def _has_let_go(
    now: Observed, report: domain_pb2.DomainReport, disk: domain_pb2.DiskReport | None
) -> bool:
    """Whether neither guest nor launcher has a volume that is not wanted."""
    is_sure = proves_absence(report, now.vmi.metadata.generation or 1)
    return is_sure and (disk is None or _is_empty(now, disk))


def _is_empty(now: Observed, disk: domain_pb2.DiskReport) -> bool:
    """Whether a disk has no volume. The drive of a CD-ROM stays, a fixed part of the machine, when its volume is gone."""
    drives = {d.name for d in now.vmi.spec.domain.devices.disks or () if d.cdrom is not None}
    return disk.name in drives and disk.attachment == domain_pb2.DISK_ATTACHMENT_UNSPECIFIED


def _detaching(
    name: str, said: v1.VolumeStatus | None, disk: domain_pb2.DiskReport | None
) -> v1.VolumeStatus:
    message = printable(disk.message) if disk is not None else ""
    reason = EventReason.HOTPLUG_FAILED if message else ""
    return _device(name, said, disk, VolumePhase.DETACHING, reason, message)


def _device(
    name: str,
    said: v1.VolumeStatus | None,
    disk: domain_pb2.DiskReport | None,
    phase: VolumePhase,
    reason: str,
    message: str,
) -> v1.VolumeStatus:
    seen = hardware.volume_of(name, disk, said)
    return v1.VolumeStatus(
        name=name,
        target=seen.target,
        size=seen.size,
        phase=phase,
        reason=reason,
        message=message,
    )


def _is_current(now: Observed, order: HandOver, holder: core.Pod) -> bool:
    """Whether a hand-over was from the present pod to the present launcher."""
    report = now.launcher.report
    epoch = report.epoch if report is not None else 0
    return (order.holder, order.epoch) == (holder.metadata.uid, epoch)


def _is_bound(volume: v1.VolumeStatus) -> bool:
    """A claim has something exactly when there is a volume behind it."""
    info = volume.persistent_volume_claim_info
    return info is not None and bool(info.capacity)
