"""Devices of a manifest that are neither disks nor interfaces → those of a DomainSpec.

Invariant: pure. What the manifest leaves to its defaults is said here, so that a launcher needs none.
"""

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names

from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.processors import cpu_topology

DEFAULT_BALLOON_PERIOD_S = 10
_MOST_PERIOD_S = 86400
# Of I/O threads under `auto`: more would only be in each other's way.
_THREADS_PER_PROCESSOR = 2


def set_peripherals(
    spec: domain_pb2.DomainSpec, vmi: v1.VirtualMachineInstance, pod: core.Pod
) -> None:
    """Complete `spec`, which has its disks, by the other devices of `vmi`, and the cluster's settings, in `pod`. Raises
    SpecRefused."""
    domain, devices = vmi.spec.domain, vmi.spec.domain.devices
    spec.rng = devices.rng is not None
    spec.tpm = devices.tpm is not None and devices.tpm.enabled is not False
    spec.block_multi_queue = devices.block_multi_queue is True
    spec.virtio_transitional = devices.use_virtio_transitional is True
    if devices.watchdog is not None:
        spec.watchdog.CopyFrom(_watchdog(devices.watchdog))
    if devices.sound is not None:
        sound = devices.sound
        spec.sound.CopyFrom(domain_pb2.SoundSpec(name=sound.name, model=sound.model or "ich9"))
    for each in _inputs(devices):
        spec.inputs.add(name=each.name, bus=each.bus or "usb", type=each.type or "tablet")
    if devices.autoattach_mem_balloon:
        spec.memory_balloon.stats_period_s = _balloon_period_s(pod)
        spec.memory_balloon.SetInParent()
    if devices.video is not None and spec.graphics:
        spec.video_model = devices.video.type
    spec.panic_models.extend(dict.fromkeys(p.model or "isa" for p in devices.panic_devices or ()))
    threads = _io_threads(domain, spec)
    if threads is not None:
        spec.io_threads.CopyFrom(threads)


def _watchdog(watchdog: v1.Watchdog) -> domain_pb2.WatchdogSpec:
    if watchdog.i6300esb is None:
        raise SpecRefused("spec.domain.devices.watchdog: it names no model")
    action = watchdog.i6300esb.action or "reset"
    return domain_pb2.WatchdogSpec(name=watchdog.name, action=action)


def _inputs(devices: v1.Devices) -> list[v1.Input]:
    if not devices.inputs and devices.autoattach_input_device:
        return [v1.Input(name="default-0", bus="usb", type="tablet")]
    return devices.inputs or []


def _balloon_period_s(pod: core.Pod) -> int:
    """What the cluster's settings were when the pod was made."""
    said = pod.metadata.annotation(names.BALLOON_PERIOD_ANNOTATION)
    if said is None or not said.isdecimal():
        return DEFAULT_BALLOON_PERIOD_S
    return min(int(said[:9]), _MOST_PERIOD_S)


def _io_threads(domain: v1.Domain, spec: domain_pb2.DomainSpec) -> domain_pb2.IoThreadsSpec | None:
    """None where there is no disk for them."""
    disks = [
        disk
        for disk in spec.disks
        if disk.bus == domain_pb2.DISK_BUS_VIRTIO and not disk.hotpluggable
    ]
    own = sum(disk.dedicated_io_thread for disk in disks)
    others = len(disks) - own
    if not domain.io_threads_policy or not others:
        return None
    match domain.io_threads_policy:
        case "shared":
            return domain_pb2.IoThreadsSpec(shared=1)
        case "auto":
            sockets, cores, threads = cpu_topology(domain)
            limit = sockets * cores * threads * _THREADS_PER_PROCESSOR
            return domain_pb2.IoThreadsSpec(shared=min(others, max(limit - own, 1)))
        case "supplementalPool":
            count = domain.io_threads and domain.io_threads.supplemental_pool_thread_count
            if not count or count < 0:
                raise SpecRefused(
                    "spec.domain.ioThreads.supplementalPoolThreadCount: how many there are is not given"
                )
            return domain_pb2.IoThreadsSpec(pool=count)
        case policy:
            raise SpecRefused(f"spec.domain.ioThreadsPolicy: {policy!r} is not known")
