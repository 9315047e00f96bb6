"""What a launcher tells of the hardware, in libvirt's words."""

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import ConsolePaths, Image, ResolvedDisk, build_domain
from podvisor_launcher.domain.xml import format_xml
from podvisor_launcher.lifecycle.hardware import Disk, hardware_of, known_sizes, with_sizes

from tests.unit.launcher.specs import (
    block_source,
    cloud_init_disk,
    container_disk,
    spec,
    volume_disk,
)

CONSOLES = ConsolePaths("/serial.sock", "/vnc.sock", "/serial.log", "/agent.sock")


def description(root: str, seed: str) -> str:
    """The domain of a machine with an overlay and a data source."""
    machine = spec(disks=[container_disk("root"), cloud_init_disk("seed")])
    disks = {
        "root": ResolvedDisk(Image(root, "qcow2"), backing=Image("/image", "raw")),
        "seed": ResolvedDisk(Image(seed, "raw"), read_only=True),
    }
    return format_xml(build_domain(machine, disks, CONSOLES))


def test_disks_have_their_names_and_sizes() -> None:
    """Of files that are gone, too: nobody looks at them."""
    found = hardware_of(description("/gone/root.qcow2", "/gone/seed.iso"))
    assert [disk.capacity_bytes for disk in found.disks] == [0, 0]
    hardware = with_sizes(found, {"vda": 5 << 30, "vdb": 2048})
    assert hardware.machine_type == "q35"
    root, below = Image("/gone/root.qcow2", "qcow2"), Image("/image", "raw")
    seed = Image("/gone/seed.iso", "raw")
    assert hardware.disks == (
        Disk("root", "vda", 5 << 30, ResolvedDisk(root, backing=below)),
        Disk("seed", "vdb", 2048, ResolvedDisk(seed, read_only=True)),
    )
    assert known_sizes(hardware) == {"vda": 5 << 30, "vdb": 2048}


def test_a_size_that_libvirt_does_not_tell_is_not_known() -> None:
    found = hardware_of(description("/root.qcow2", "/seed.iso"))
    assert known_sizes(with_sizes(found, {"vdb": 2048})) == {"vda": 0, "vdb": 2048}


def test_a_drive_may_be_empty_and_a_disk_a_device() -> None:
    """What is read of a description is what it was made from."""
    device = Image("/dev/null", "raw", is_block=True)
    machine = spec(
        disks=[
            volume_disk("cd", device=pb.DISK_DEVICE_CDROM, bus=pb.DISK_BUS_SATA, volume=None),
            volume_disk("data", volume=block_source("data")),
        ]
    )
    disks = {"data": ResolvedDisk(device)}
    hardware = hardware_of(format_xml(build_domain(machine, disks, CONSOLES)))
    assert hardware.disks == (Disk("cd", "sda", 0), Disk("data", "vda", 0, ResolvedDisk(device)))
    assert hardware.disk("data") == hardware.disks[1]
    assert hardware.disk("other") is None
