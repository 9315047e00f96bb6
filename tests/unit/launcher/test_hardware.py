"""What a launcher tells of the hardware, from libvirt's description and the files on disk."""

from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import ConsolePaths, Image, ResolvedDisk, build_domain
from podvisor_launcher.domain.xml import format_xml
from podvisor_launcher.lifecycle.hardware import Disk, hardware_of

from tests.unit.launcher.specs import (
    block_source,
    cloud_init_disk,
    container_disk,
    spec,
    volume_disk,
)

CONSOLES = ConsolePaths("/serial.sock", "/vnc.sock", "/serial.log")
QCOW2_HEADER = b"QFI\xfb" + bytes(20) + (5 << 30).to_bytes(8)


def description(root: Path, seed: Path) -> str:
    """The domain of a machine with an overlay and a data source."""
    machine = spec(disks=[container_disk("root"), cloud_init_disk("seed")])
    disks = {
        "root": ResolvedDisk(Image(str(root), "qcow2"), backing=Image("/image", "raw")),
        "seed": ResolvedDisk(Image(str(seed), "raw"), read_only=True),
    }
    return format_xml(build_domain(machine, disks, CONSOLES))


def test_disks_have_their_names_and_sizes(tmp_path: Path) -> None:
    root, seed = tmp_path / "root.qcow2", tmp_path / "seed.iso"
    root.write_bytes(QCOW2_HEADER)
    seed.write_bytes(bytes(2048))
    hardware = hardware_of(description(root, seed))
    assert hardware.machine_type == "q35"
    assert hardware.disks == (
        Disk(
            "root",
            "vda",
            5 << 30,
            ResolvedDisk(Image(str(root), "qcow2"), backing=Image("/image", "raw")),
        ),
        Disk("seed", "vdb", 2048, ResolvedDisk(Image(str(seed), "raw"), read_only=True)),
    )


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


def test_a_file_that_cannot_be_read_has_no_size(tmp_path: Path) -> None:
    hardware = hardware_of(description(tmp_path / "gone", tmp_path / "gone"))
    assert [disk.capacity_bytes for disk in hardware.disks] == [0, 0]
