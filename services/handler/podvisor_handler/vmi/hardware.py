"""What the status tells of the hardware that a guest got.

Invariant: pure. What the specification decides is computed from it; what only the launcher can know is believed within
bounds, for the devices of the manifest alone. What is not known at the moment stays as it was said before.
"""

import re

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_common.api.quantity import Quantity, format_bytes
from podvisor_common.api.v1 import names

from podvisor_handler.vmi.build import guest_memory_bytes
from podvisor_handler.vmi.plan import Observed
from podvisor_handler.vmi.processors import cpu_topology

_MACHINE_TYPE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TARGET = re.compile(r"[a-z]{2,16}")
_CAPACITY_LIMIT_BYTES = 1 << 62  # what a signed number of the API holds


def machine_of(now: Observed) -> v1.Machine | None:
    """The machine type that libvirt resolved."""
    report = now.launcher.report
    if report is None or not _MACHINE_TYPE.fullmatch(report.machine_type):
        return now.vmi.status.machine
    return v1.Machine(type=report.machine_type)


def topology_of(now: Observed) -> v1.CPUTopology:
    """The processors, which nothing changes while the guest runs."""
    sockets, cores, threads = cpu_topology(now.vmi.spec.domain)
    return v1.CPUTopology(sockets=sockets, cores=cores, threads=threads)


def memory_of(now: Observed) -> v1.MemoryStatus:
    """The guest's memory, which nothing changes while it runs, and what its pod requests beyond it."""
    amount = format_bytes(guest_memory_bytes(now.vmi))
    return v1.MemoryStatus(
        guest_at_boot=amount,
        guest_current=amount,
        guest_requested=amount,
        memory_overhead=_memory_overhead(now),
    )


def _memory_overhead(now: Observed) -> Quantity | None:
    pod, known = now.pod, now.vmi.status.memory
    said = pod.metadata.annotation(names.MEMORY_OVERHEAD_ANNOTATION) if pod is not None else None
    if said is not None and said.isdecimal():
        return format_bytes(int(said))
    return known.memory_overhead if known is not None else None


def volumes_of(now: Observed) -> list[v1.VolumeStatus]:
    """The fixed volumes of the machine with the devices they became: what the handler says of them and nothing else."""
    report = now.launcher.report
    disks = {disk.name: disk for disk in report.disks} if report is not None else {}
    if not disks:
        return known_volumes(now)
    said = {volume.name: volume for volume in now.vmi.status.volume_status or ()}
    return [volume_of(name, disks.get(name), said.get(name)) for name in _volume_names(now)]


def known_volumes(now: Observed) -> list[v1.VolumeStatus]:
    """The same as it was said before."""
    said = {volume.name: volume for volume in now.vmi.status.volume_status or ()}
    known = [said.get(name) or v1.VolumeStatus(name=name) for name in _volume_names(now)]
    return [own_part(volume) for volume in known]


def own_part(volume: v1.VolumeStatus) -> v1.VolumeStatus:
    """An entry without what the controller says in it."""
    return v1.VolumeStatus(
        name=volume.name,
        target=volume.target,
        size=volume.size,
        phase=volume.phase,
        reason=volume.reason,
        message=volume.message,
        unmounted_pod_uid=volume.unmounted_pod_uid,
    )


def _volume_names(now: Observed) -> list[str]:
    volumes = now.vmi.spec.volumes or ()
    return [volume.name for volume in volumes if not volume.is_hotpluggable]


def volume_of(
    name: str, disk: domain_pb2.DiskReport | None, said: v1.VolumeStatus | None
) -> v1.VolumeStatus:
    """A volume as the device that it became, as far as that is believed. A size that cannot be told at the moment is what was
    `said` of that device."""
    if disk is None or not _TARGET.fullmatch(disk.target):
        return v1.VolumeStatus(name=name)
    is_size = 0 < disk.capacity_bytes < _CAPACITY_LIMIT_BYTES
    known = said.size if said is not None and said.target == disk.target else None
    size = disk.capacity_bytes if is_size else known
    return v1.VolumeStatus(name=name, target=disk.target, size=size)
