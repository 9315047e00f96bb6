"""A bootable disk from a kernel and an initramfs, without root and without loop devices.

An unpartitioned FAT file system with syslinux in its boot sector starts as a hard disk under BIOS.
"""

import tempfile
from pathlib import Path

from .host import run

_MIB = 1 << 20
# A fixed time in the FAT directory and a fixed serial number: same inputs, same image.
_EPOCH = {"SOURCE_DATE_EPOCH": "1700000000", "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}
_VOLUME_ID = "50564953"


def make_raw(target: Path, kernel: bytes, initramfs: bytes, command_line: str) -> None:
    """Write a raw disk image that boots this kernel; as small as its content allows."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch)
        (work / "vmlinuz").write_bytes(kernel)
        (work / "initrd").write_bytes(initramfs)
        (work / "syslinux.cfg").write_text(
            "DEFAULT guest\nPROMPT 0\nTIMEOUT 0\nLABEL guest\n"
            f" KERNEL /vmlinuz\n APPEND initrd=/initrd {command_line}\n"
        )
        image = work / "disk.img"
        size_mib = (len(kernel) + len(initramfs)) // _MIB + 2
        with image.open("wb") as out:
            out.truncate(size_mib * _MIB)
        run("mkfs.vfat", "--invariant", "-i", _VOLUME_ID, "-n", "PODVISOR", str(image))
        for name in ("vmlinuz", "initrd", "syslinux.cfg"):
            run("mcopy", "-m", "-i", str(image), str(work / name), "::/", env=_EPOCH)
        run("syslinux", str(image), env=_EPOCH)
        image.replace(target)


def make_qcow2(target: Path, raw: Path) -> None:
    """Convert a raw image to a compressed qcow2."""
    scratch = target.with_suffix(".new")
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(scratch))
    scratch.replace(target)


def make_hostile_qcow2(target: Path) -> None:
    """An image that asks whoever opens it to read /etc/passwd; for tests that refuse it."""
    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw",
        str(target), "1M")  # fmt: skip
