"""Hardware that not every machine has: what can never be built, and that none of it moves what is there already."""

import os
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.launcher_pod import KERNEL_LIMIT_BYTES
from podvisor_launcher.domain.build import (
    ConsolePaths,
    Image,
    ResolvedDisk,
    UnbuildableSpec,
    build_domain,
    check_spec,
)
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.hotplug import build_plugged, io_thread_for, missing_controller
from podvisor_launcher.domain.interfaces import build_plugged as build_plugged_interface
from podvisor_launcher.domain.place_elements import Address
from podvisor_launcher.lifecycle.spec_changes import restart_required
from podvisor_launcher.lifecycle.start import check_time_zone
from podvisor_launcher.storage.errors import InvalidDisk
from podvisor_launcher.storage.kernel_boot import check_kernel

from tests.unit.launcher.hardware_specs import HARDWARE, board, peripherals
from tests.unit.launcher.specs import container_disk, interface, spec, volume_disk

CONSOLES = ConsolePaths("/serial", "/vnc", "/log", "/agent", "/shares", "/nvram")


def built(machine: pb.DomainSpec) -> Domain:
    disks = {
        disk.name: ResolvedDisk(Image(f"/disks/{disk.name}", "raw"), direct=True)
        for disk in machine.disks
    }
    return build_domain(machine, disks, CONSOLES)


def hyperv(**feature: object) -> pb.DomainSpec:
    features = [pb.HypervFeatureSpec(**feature)]  # type: ignore[arg-type]
    return spec(features=pb.FeaturesSpec(hyperv=pb.HypervSpec(features=features)))


def place(address: Address | None) -> tuple[str | None, ...]:
    return (address.bus, address.slot, address.function) if address is not None else ()


def places(machine: pb.DomainSpec) -> dict[str, tuple[str | None, ...]]:
    """Where the guest finds disks, interfaces, shared files and controllers."""
    devices = built(machine).devices
    found = {each.target.dev: place(each.address) for each in devices.disks}
    found |= {each.alias.name: place(each.address) for each in devices.interfaces if each.alias}
    found |= {each.target.dir: place(each.address) for each in devices.filesystems}
    return found | {
        f"{each.type} {each.index}": place(each.address)
        for each in devices.controllers
        if each.type != "usb"
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"rng": True},
        {"watchdog": pb.WatchdogSpec(action="reset")},
        {"sound": pb.SoundSpec(name="s", model="ac97")},
        {"memory_balloon": pb.MemoryBalloonSpec()},
        {"panic_models": ["pvpanic"]},
        {"inputs": [pb.InputSpec(name="i", bus="usb", type="tablet")]},
        {"inputs": [pb.InputSpec(name="i", bus="virtio", type="tablet")]},
        {"tpm": True},
        {"video_model": "bochs", "graphics": True},
        {"io_threads": pb.IoThreadsSpec(shared=1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_no_other_device_moves(changes: dict[str, object]) -> None:
    """Not even what comes behind all other devices."""
    devices: dict[str, object] = {
        "disks": [container_disk(), container_disk("fast", bus=pb.DISK_BUS_SCSI)],
        "interfaces": [interface(), interface("plugged", tap="tap1", is_pluggable=True)],
        "filesystems": [pb.FilesystemSpec(name="data", directory="/data")],
    }
    before, after = places(spec(**devices)), places(spec(**devices, **changes))
    assert {name: after[name] for name in before} == before
    added = set(after) - set(before)
    assert len(added) == sum(each.bus == "virtio" for each in spec(**changes).inputs)
    assert all(name.startswith("pci ") for name in added)


def test_devices_of_different_kinds_may_have_one_name() -> None:
    devices = built(
        spec(
            disks=[container_disk("a")],
            watchdog=pb.WatchdogSpec(name="a", action="reset"),
            sound=pb.SoundSpec(name="a", model="ac97"),
            inputs=[pb.InputSpec(name="a", bus="usb", type="tablet")],
        )
    ).devices
    aliases = [
        *(each.alias for each in devices.disks),
        *(each.alias for each in devices.watchdogs),
        *(each.alias for each in devices.sounds),
        *(each.alias for each in devices.inputs),
    ]
    assert [each and each.name for each in aliases] == [
        "ua-a",
        "ua-watchdog_a",
        "ua-sound_a",
        "ua-input_a",
    ]


def test_every_device_has_a_place_of_its_own() -> None:
    devices = built(peripherals()).devices
    everything = (
        *devices.disks, *devices.interfaces, *devices.controllers, *devices.videos, *devices.inputs,
        *devices.sounds, *devices.watchdogs, *devices.rngs, *devices.panics, devices.memory_balloon,
    )  # fmt: skip
    taken = [place(each.address) for each in everything if each is not None and each.address]
    assert len(taken) > 15
    assert len(set(taken)) == len(taken)


@pytest.mark.parametrize("name", ["board-under-kvm", "hyperv"])
def test_what_is_kvms_own_is_left_out_without_it(name: str) -> None:
    machine = pb.DomainSpec()
    machine.CopyFrom(HARDWARE[name])
    machine.accelerator = pb.ACCELERATOR_TCG
    domain = built(machine)
    features, clock = domain.features, domain.clock
    assert features is not None
    assert clock is not None
    assert (features.hyperv, features.kvm, features.pv_spinlock) == (None, None, None)
    assert not {each.name for each in clock.timers} & {"kvmclock", "hypervclock"}
    assert "hyperv" not in {each.model for each in domain.devices.panics}


_PIT = pb.TimerSpec(name="pit")
_BAD_TIMER = pb.TimerSpec(name="rtc", tick_policy="x")
_BOTH = pb.BootloaderSpec(efi=pb.EfiSpec(), bios_serial=True)
_EFI = pb.BootloaderSpec(efi=pb.EfiSpec())
_SECURE = pb.BootloaderSpec(efi=pb.EfiSpec(secure_boot=True))
_LONG = pb.KernelBootSpec(kernel_path="/a", kernel_args="x" * 2049)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (spec(clock=pb.ClockSpec(timezone="../etc/passwd")), "no time zone"),
        (spec(clock=pb.ClockSpec(timezone="UTC", offset_s=1)), "time zone or an offset"),
        (spec(clock=pb.ClockSpec(offset_s=1 << 40)), "too far from UTC"),
        (spec(clock=pb.ClockSpec(timers=[_PIT, _PIT])), "there once"),
        (spec(clock=pb.ClockSpec(timers=[pb.TimerSpec(name="tsc")])), '"tsc" is not known'),
        (spec(clock=pb.ClockSpec(timers=[_BAD_TIMER])), '"x" is not known'),
        (spec(chassis=pb.ChassisSpec(sku="a\nb")), "printable ASCII"),
        (spec(system=pb.SystemSpec(family="x" * 257)), "printable ASCII"),
        (spec(bootloader=_BOTH), "either a BIOS or UEFI"),
        (spec(bootloader=_SECURE), "management mode"),
        (spec(bootloader=_EFI, features=pb.FeaturesSpec(without_acpi=True)), "needs ACPI"),
        (spec(kernel_boot=pb.KernelBootSpec(initrd_path="/a")), "needs a kernel"),
        (spec(kernel_boot=_LONG), "too long"),
        (hyperv(name="x"), 'no interface "x"'),
        (hyperv(name="spinlocks", retries=1), "4095 times"),
        (hyperv(name="vendor_id", vendor_id="a,b"), "no comma"),
        (spec(video_model="qxl"), "video card"),
        (spec(watchdog=pb.WatchdogSpec(action="explode")), "watchdog"),
        (spec(sound=pb.SoundSpec(name="s", model="sb16")), "sound card"),
        (spec(inputs=[pb.InputSpec(name="i", bus="ps2", type="tablet")]), "input"),
        (spec(inputs=[pb.InputSpec(name="", bus="usb", type="tablet")]), "name of its own"),
        (spec(panic_models=["isa", "isa"]), "name of its own"),
        (spec(panic_models=["s390"]), "panic device"),
        (spec(cpu_features=[pb.CpuFeatureSpec(name="aes", policy="maybe")]), "processor feature"),
        (spec(io_threads=pb.IoThreadsSpec(shared=1, pool=1)), "I/O threads"),
    ],
)
def test_what_can_never_be_built_is_refused(machine: pb.DomainSpec, words: str) -> None:
    with pytest.raises(UnbuildableSpec, match=words):
        check_spec(machine)


def test_the_pools_threads_are_no_disks_own() -> None:
    live = built(spec(disks=[volume_disk("a")], io_threads=pb.IoThreadsSpec(pool=2)))
    assert live.io_threads == 2
    assert io_thread_for(volume_disk("b", dedicated_io_thread=True), live) == 3


def test_what_comes_later_is_transitional_as_well() -> None:
    live = built(spec(virtio_transitional=True))
    disk = build_plugged(volume_disk("b"), ResolvedDisk(Image("/b", "raw"), direct=True), live)
    controller = missing_controller(volume_disk("c", bus=pb.DISK_BUS_SCSI), live)
    assert controller is not None
    nic = build_plugged_interface(interface(), transitional=True).model
    other = build_plugged_interface(interface(model="e1000"), transitional=True).model
    assert nic is not None
    assert other is not None
    assert {disk.model, controller.model, nic.type} == {"virtio-transitional"}
    assert other.type == "e1000"


def test_new_hardware_waits_for_the_next_start() -> None:
    assert restart_required(spec(), spec(rng=True, tpm=True)) == ["rng", "tpm"]
    assert restart_required(board(), board()) == []


def test_a_time_zone_must_be_known_here(tmp_path: Path) -> None:
    (tmp_path / "Europe").mkdir()
    (tmp_path / "Europe/Paris").touch()
    check_time_zone(spec(), tmp_path)
    check_time_zone(spec(clock=pb.ClockSpec(timezone="Europe/Paris")), tmp_path)
    for zone in ("Europe", "Europe/Atlantis"):
        with pytest.raises(UnbuildableSpec, match=zone):
            check_time_zone(spec(clock=pb.ClockSpec(timezone=zone)), tmp_path)


def test_a_kernel_is_a_plain_file_of_its_image(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/kernel").touch()
    (tmp_path / "boot/link").symlink_to("/etc/passwd")
    boot = pb.KernelBootSpec(image_root=str(tmp_path), kernel_path="/boot/kernel")
    check_kernel(boot)
    for path, words in (("/boot/link", "symbolic link"), ("/boot/none", "/boot/none")):
        boot.initrd_path = path
        with pytest.raises(InvalidDisk, match=words):
            check_kernel(boot)
    boot.initrd_path = "/boot/initrd"
    with (tmp_path / "boot/initrd").open("wb") as initrd:
        initrd.truncate(KERNEL_LIMIT_BYTES + 1)  # a disk may be larger than a kernel
    check_kernel(boot)
    os.truncate(tmp_path / "boot/kernel", KERNEL_LIMIT_BYTES)
    check_kernel(boot)
    os.truncate(tmp_path / "boot/kernel", KERNEL_LIMIT_BYTES + 1)
    with pytest.raises(InvalidDisk, match="kernel /boot/kernel has 67108865 bytes, at most"):
        check_kernel(boot)
    with pytest.raises(InvalidDisk, match="not there yet"):
        check_kernel(pb.KernelBootSpec(image_root=str(tmp_path / "none"), kernel_path="/k"))
