"""What libvirt really gets, one golden file per feature; `UPDATE_GOLDEN=1` writes them anew."""

import os
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.board_elements import Tcg, TranslationCache
from podvisor_launcher.domain.build import (
    ConsolePaths,
    Image,
    ResolvedDisk,
    UnbuildableSpec,
    build_domain,
    check_spec,
)
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.pci import PciBus, TooManyDevices
from podvisor_launcher.domain.xml import format_xml, parse_xml

from tests.unit.launcher.conftest import TEST_DRIVER
from tests.unit.launcher.hardware_specs import HARDWARE
from tests.unit.launcher.specs import (
    block_source,
    cloud_init_disk,
    container_disk,
    interface,
    passt,
    spec,
    volume_disk,
)

GOLDEN = Path(__file__).parent / "golden"
CONSOLES = ConsolePaths(
    "/sockets/serial0.sock",
    "/sockets/vnc.sock",
    "/console/serial0.log",
    "/agent.sock",
    "/shares",
    "/private/nvram.fd",
)

# From which on libvirt knows what is in those files.
_SINCE = {
    "passt": 11_000_000,
    "peripherals": 9_001_000,
    "virtio-transitional": 9_001_000,
    "io-threads-pool": 10_000_000,
}
_TCP = [pb.ForwardedPort(protocol="tcp", number=number) for number in (8080, 22)]
SPECS = {
    "introduction": spec(disks=[container_disk(), cloud_init_disk()], interfaces=[interface()]),
    "kvm": spec(
        accelerator=pb.ACCELERATOR_KVM,
        cpu=pb.CpuSpec(sockets=2, cores=2, threads=1),
        disks=[container_disk()],
    ),
    "named-cpu": spec(cpu=pb.CpuSpec(sockets=1, cores=1, threads=1, model="Nehalem")),
    "host-model-under-tcg": spec(cpu=pb.CpuSpec(sockets=1, cores=1, threads=1, model="host-model")),
    "graphics": spec(graphics=True, serial_log=False, firmware_serial="e4686d2c"),
    "buses": spec(
        disks=[
            container_disk("root", bus=pb.DISK_BUS_SATA),
            container_disk("cd", bus=pb.DISK_BUS_SATA, device=pb.DISK_DEVICE_CDROM),
            container_disk("fast", bus=pb.DISK_BUS_SCSI, serial="S1"),
            container_disk("stick", bus=pb.DISK_BUS_USB, read_only=True),
        ]
    ),
    "boot-order": spec(
        disks=[container_disk("first", boot_order=2), container_disk("second")],
        interfaces=[interface(boot_order=1)],
    ),
    "interfaces": spec(
        disks=[container_disk()],
        interfaces=[
            interface("may-go", mac="02:00:00:00:00:01", tap="tap1", is_pluggable=True),
            interface("wide", queues=4, acpi_index=7),
            interface("old", mac="02:00:00:00:00:02", tap="tap2", model="e1000", link_down=True),
            interface("placed", mac="02:00:00:00:00:03", tap="tap3", pci_address="0000:04:00.0"),
        ],
    ),
    "passt": spec(
        interfaces=[
            passt("all"),
            passt("some", pb.ForwardedPort(protocol="udp", number=53), *_TCP),
        ],
    ),
    "volumes": spec(
        disks=[
            volume_disk("file", dedicated_io_thread=True, serial="S1", boot_order=1),
            volume_disk("shared", shareable=True, pci_address="0000:04:00.0"),
            volume_disk(
                "block",
                bus=pb.DISK_BUS_SCSI,
                volume=block_source("block"),
                match_volume_block_sizes=True,
            ),
            volume_disk(
                "lun", bus=pb.DISK_BUS_SCSI, volume=block_source("lun"), device=pb.DISK_DEVICE_LUN
            ),
            volume_disk(
                "cd", bus=pb.DISK_BUS_SATA, volume=None, device=pb.DISK_DEVICE_CDROM, tray_open=True
            ),
            volume_disk("later", hotpluggable=True),
        ]
    ),
    "bare": spec(serial_console=False),
    "filesystems": spec(
        disks=[container_disk()],
        filesystems=[
            pb.FilesystemSpec(name="data", directory="/run/podvisor/volumes/data"),
            pb.FilesystemSpec(
                name="config", directory="/run/podvisor/files/config", read_only=True
            ),
        ],
    ),
}
SPECS |= HARDWARE


def volume(disk: pb.DiskSpec) -> ResolvedDisk:
    sizes = (4096, 4096) if disk.match_volume_block_sizes else (0, 0)
    path = "/".join(part for part in (disk.volume.path, disk.volume.file) if part)
    return ResolvedDisk(
        Image(path, "raw", is_block=not disk.volume.file), None, False, True, *sizes
    )


def resolved(machine: pb.DomainSpec) -> dict[str, ResolvedDisk]:
    disks = {}
    for disk in machine.disks:
        if disk.WhichOneof("source") == "volume":
            disks[disk.name] = volume(disk)
        elif disk.WhichOneof("source") is None:
            continue
        elif disk.WhichOneof("source") == "cloud_init":
            disks[disk.name] = ResolvedDisk(
                Image(f"/cloud-init/{disk.name}.iso", "raw"), read_only=True
            )
        elif disk.read_only or disk.device == pb.DISK_DEVICE_CDROM:
            disks[disk.name] = ResolvedDisk(Image(f"/images/{disk.name}", "raw"), read_only=True)
        else:
            below = Image(f"/images/{disk.name}", "qcow2")
            disks[disk.name] = ResolvedDisk(Image(f"/disks/{disk.name}.qcow2", "qcow2"), below)
    return disks


@pytest.mark.parametrize("name", SPECS)
def test_golden(name: str) -> None:
    machine = SPECS[name]
    check_spec(machine)
    made = format_xml(build_domain(machine, resolved(machine), CONSOLES)) + "\n"
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(made)
    canonical = ElementTree.canonicalize
    assert canonical(made, strip_text=True) == canonical(path.read_text(), strip_text=True)
    assert format_xml(parse_xml(Domain, made)) + "\n" == made


@pytest.mark.parametrize("feature", SPECS)
def test_libvirts_schema_agrees(feature: str, name: str) -> None:
    if libvirt.getVersion() < _SINCE.get(feature, 0):
        pytest.skip("this libvirt was built without it")
    description = (GOLDEN / f"{feature}.xml").read_text().replace("default_myvm", f"default_{name}")
    keeper = libvirt.open(TEST_DRIVER)
    keeper.defineXMLFlags(description, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    keeper.close()


@pytest.mark.parametrize(("guest_mib", "cache_mib"), [(61, 40), (128, 42), (384, 128), (4096, 256)])
def test_larger_guests_get_a_larger_translation_cache(guest_mib: int, cache_mib: int) -> None:
    machine = spec(memory=pb.MemorySpec(guest_bytes=guest_mib << 20))
    features = build_domain(machine, {}, CONSOLES).features
    assert features is not None
    assert features.tcg == Tcg(cache=TranslationCache(unit="MiB", size=cache_mib))


def test_every_golden_file_has_its_test() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == set(SPECS)


def test_addresses_depend_on_nothing_but_the_order_of_devices() -> None:
    machine = SPECS["introduction"]
    domains = [build_domain(machine, resolved(machine), CONSOLES) for _ in range(2)]
    assert domains[0] == domains[1]
    devices = domains[0].devices
    addresses = [each.address for each in devices.interfaces]
    addresses += [each.address for each in devices.disks]
    behind = [each.bus for each in addresses if each]
    assert behind == ["0x01", "0x02", "0x03"]


def test_a_machine_has_only_so_many_slots() -> None:
    bus = PciBus()
    for _ in range(224):
        bus.next_address()
    with pytest.raises(TooManyDevices):
        bus.next_address()
    places = [(each.address.slot, each.address.function) for each in bus.root_ports if each.address]
    assert len(set(places)) == 224


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (spec(uid=""), "uid"),
        (spec(memory=pb.MemorySpec()), "memory"),
        (spec(cpu=pb.CpuSpec(sockets=1, cores=0, threads=1)), "cpu"),
        (spec(accelerator=pb.ACCELERATOR_UNSPECIFIED), "accelerator"),
        (spec(disks=[container_disk("a"), container_disk("a")]), "name of its own"),
        (spec(disks=[container_disk("")]), "name of its own"),
        (spec(interfaces=[interface("a"), interface("a")]), "name of its own"),
        (spec(disks=[container_disk(bus=pb.DISK_BUS_UNSPECIFIED)]), '"root"'),
        (
            spec(disks=[container_disk(bus=pb.DISK_BUS_SCSI, device=pb.DISK_DEVICE_LUN)]),
            "block device",
        ),
        (spec(disks=[container_disk(device=pb.DISK_DEVICE_CDROM)]), "virtio"),
        (spec(disks=[container_disk(container_disk=None)]), "no source"),
        (spec(filesystems=[pb.FilesystemSpec(name="a", directory="/a")] * 2), "name of its own"),
        (spec(filesystems=[pb.FilesystemSpec(name="a" * 37, directory="/a")]), "36 bytes"),
        (spec(filesystems=[pb.FilesystemSpec(name="a", directory="a")]), "no directory"),
    ],
)
def test_what_can_never_be_built_is_refused(machine: pb.DomainSpec, words: str) -> None:
    with pytest.raises(UnbuildableSpec, match=words):
        check_spec(machine)


def test_a_full_bus_is_refused() -> None:
    machine = spec(
        disks=[container_disk(f"d{number}", bus=pb.DISK_BUS_SATA) for number in range(7)]
    )
    with pytest.raises(UnbuildableSpec, match="sata"):
        build_domain(machine, resolved(machine), CONSOLES)


def test_the_28th_disk_is_called_vdab() -> None:
    machine = spec(disks=[container_disk(f"d{number}") for number in range(28)])
    names = [
        disk.target.dev for disk in build_domain(machine, resolved(machine), CONSOLES).devices.disks
    ]
    assert names[0] == "vda"
    assert names[25:] == ["vdz", "vdaa", "vdab"]
