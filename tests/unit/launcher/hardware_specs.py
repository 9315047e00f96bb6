"""Specifications with hardware that not every machine has, by the golden file of each."""

from podvisor.domain.v1 import domain_pb2 as pb

from tests.unit.launcher.specs import container_disk, interface, spec, volume_disk

_CLOCKS = [
    pb.TimerSpec(name="hpet", absent=True),
    pb.TimerSpec(name="pit", tick_policy="delay"),
    pb.TimerSpec(name="rtc", tick_policy="catchup", track="guest"),
    pb.TimerSpec(name="kvmclock"),
    pb.TimerSpec(name="hypervclock"),
]
_FEATURES = pb.FeaturesSpec(
    apic_end_of_interrupt=pb.SWITCH_ON,
    smm=pb.SWITCH_ON,
    pv_spinlock=pb.SWITCH_OFF,
    kvm_hidden=True,
)
_HYPERV = pb.HypervSpec(
    features=[
        pb.HypervFeatureSpec(name="relaxed"),
        pb.HypervFeatureSpec(name="vapic"),
        pb.HypervFeatureSpec(name="spinlocks", retries=8191),
        pb.HypervFeatureSpec(name="vpindex"),
        pb.HypervFeatureSpec(name="runtime"),
        pb.HypervFeatureSpec(name="synic"),
        pb.HypervFeatureSpec(name="stimer", direct=True),
        pb.HypervFeatureSpec(name="reset", off=True),
        pb.HypervFeatureSpec(name="vendor_id", vendor_id="podvisor"),
        pb.HypervFeatureSpec(name="frequencies"),
        pb.HypervFeatureSpec(name="reenlightenment"),
        pb.HypervFeatureSpec(name="tlbflush"),
        pb.HypervFeatureSpec(name="ipi"),
        pb.HypervFeatureSpec(name="evmcs", off=True),
    ]
)


def board(**changes: object) -> pb.DomainSpec:
    """A machine of whose board nothing is as usual."""
    values: dict[str, object] = {
        "clock": pb.ClockSpec(offset_s=-3600, timers=_CLOCKS),
        "features": _FEATURES,
        "chassis": pb.ChassisSpec(
            manufacturer="Acme", version="2", serial="C-1", asset="A-1", sku="K-1"
        ),
        "system": pb.SystemSpec(
            manufacturer="Acme", product="Machine", version="3", sku="S-1", family="Small"
        ),
        "firmware_serial": "e4686d2c",
        "bootloader": pb.BootloaderSpec(bios_serial=True),
        "ends_on_reboot": True,
        "cpu_features": [
            pb.CpuFeatureSpec(name="aes", policy="require"),
            pb.CpuFeatureSpec(name="svm", policy="disable"),
        ],
    }
    return spec(**(values | changes))


def peripherals(**changes: object) -> pb.DomainSpec:
    """A machine with one of each device, and a disk, an interface and an input that have ports."""
    values: dict[str, object] = {
        "disks": [container_disk()],
        "interfaces": [interface(), interface("plugged", tap="tap1", is_pluggable=True)],
        "graphics": True,
        "video_model": "virtio",
        "rng": True,
        "watchdog": pb.WatchdogSpec(name="dog", action="poweroff"),
        "sound": pb.SoundSpec(name="card", model="ich9"),
        "inputs": [
            pb.InputSpec(name="pointer", bus="usb", type="tablet"),
            pb.InputSpec(name="other", bus="virtio", type="tablet"),
        ],
        "memory_balloon": pb.MemoryBalloonSpec(stats_period_s=10),
        "panic_models": ["isa", "pvpanic"],
        "tpm": True,
    }
    return spec(**(values | changes))


_DISKS = [
    volume_disk("a"),
    volume_disk("own", dedicated_io_thread=True),
    volume_disk("b"),
    volume_disk("c"),
    volume_disk("slow", bus=pb.DISK_BUS_SCSI),
]

HARDWARE = {
    "board": board(),
    "board-under-kvm": board(
        accelerator=pb.ACCELERATOR_KVM, clock=pb.ClockSpec(timezone="Europe/Paris", timers=_CLOCKS)
    ),
    "bare-board": spec(features=pb.FeaturesSpec(without_acpi=True, without_apic=True)),
    "hyperv": spec(
        accelerator=pb.ACCELERATOR_KVM,
        clock=pb.ClockSpec(timers=[pb.TimerSpec(name="hypervclock")]),
        features=pb.FeaturesSpec(hyperv=_HYPERV),
        panic_models=["hyperv"],
    ),
    "hyperv-passthrough": spec(
        accelerator=pb.ACCELERATOR_KVM,
        cpu=pb.CpuSpec(sockets=1, cores=1, threads=1, model="host-passthrough"),
        features=pb.FeaturesSpec(hyperv=pb.HypervSpec(passthrough=True)),
    ),
    "efi": spec(bootloader=pb.BootloaderSpec(efi=pb.EfiSpec())),
    "secure-boot": spec(
        bootloader=pb.BootloaderSpec(efi=pb.EfiSpec(secure_boot=True)),
        features=pb.FeaturesSpec(smm=pb.SWITCH_ON),
    ),
    "kernel-boot": spec(
        kernel_boot=pb.KernelBootSpec(
            image_root="/run/podvisor/images/_kernel",
            kernel_path="/boot/vmlinuz",
            initrd_path="/boot/initrd",
            kernel_args="console=ttyS0 quiet",
        )
    ),
    "peripherals": peripherals(),
    "sound-ac97": spec(sound=pb.SoundSpec(name="card", model="ac97")),
    "video-ramfb": spec(graphics=True, video_model="ramfb"),
    "io-threads-shared": spec(disks=_DISKS, io_threads=pb.IoThreadsSpec(shared=2)),
    "io-threads-pool": spec(disks=_DISKS, io_threads=pb.IoThreadsSpec(pool=2)),
    "block-multi-queue": spec(
        disks=_DISKS, block_multi_queue=True, cpu=pb.CpuSpec(sockets=1, cores=2, threads=2)
    ),
    "virtio-transitional": peripherals(
        disks=[container_disk(), container_disk("fast", bus=pb.DISK_BUS_SCSI)],
        virtio_transitional=True,
    ),
    "hugepages": spec(
        memory=pb.MemorySpec(guest_bytes=64 << 20),
        hugepage_bytes=2 << 20,
        filesystems=[pb.FilesystemSpec(name="data", directory="/run/podvisor/volumes/data")],
    ),
}
