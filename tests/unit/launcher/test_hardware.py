"""What a launcher tells of the hardware, from libvirt's description and the files on disk."""

from pathlib import Path

from podvisor_launcher.domain.build import ConsolePaths, Image, ResolvedDisk, build_domain
from podvisor_launcher.domain.xml import format_xml
from podvisor_launcher.lifecycle.hardware import Disk, hardware_of

from tests.unit.launcher.specs import cloud_init_disk, container_disk, spec

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
    assert hardware.disks == (Disk("root", "vda", 5 << 30), Disk("seed", "vdb", 2048))


def test_a_file_that_cannot_be_read_has_no_size(tmp_path: Path) -> None:
    hardware = hardware_of(description(tmp_path / "gone", tmp_path / "gone"))
    assert hardware.disks == (Disk("root", "vda", 0), Disk("seed", "vdb", 0))
