"""A bootable disk from a kernel and an initramfs, without root and without loop devices.

An unpartitioned FAT file system with syslinux in its boot sector starts as a hard disk under BIOS. Under UEFI without secure boot the
firmware's shell finds what it shall do in startup.nsh: to run the kernel, which for a 64-bit one is a program of UEFI's.
"""

import struct
import tempfile
from pathlib import Path

from .host import run

_MIB = 1 << 20
_LONG_NAME = 0x0F  # attribute of a directory entry that holds a part of a name, and no times
_FIRST_DAY = 0x21  # 1 January 1980
_VOLUME_ID = "50564953"  # fixed, for the same reason as the times below


def make_raw(target: Path, kernel: bytes, initramfs: bytes, command_line: str) -> None:
    """Write a raw disk image that boots this kernel; as small as its content allows."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch)
        (work / "vmlinuz.efi").write_bytes(kernel)
        (work / "initrd").write_bytes(initramfs)
        (work / "syslinux.cfg").write_text(
            "DEFAULT guest\nPROMPT 0\nTIMEOUT 0\nLABEL guest\n"
            f" LINUX /vmlinuz.efi\n APPEND initrd=/initrd {command_line}\n"
        )
        (work / "startup.nsh").write_text(f"vmlinuz.efi initrd=\\initrd {command_line}\r\n")
        image = work / "disk.img"
        size_mib = (len(kernel) + len(initramfs)) // _MIB + 2
        with image.open("wb") as out:
            out.truncate(size_mib * _MIB)
        run("mkfs.vfat", "--invariant", "-i", _VOLUME_ID, "-n", "PODVISOR", str(image))
        for name in ("vmlinuz.efi", "initrd", "syslinux.cfg", "startup.nsh"):
            run("mcopy", "-i", str(image), str(work / name), "::/")
        run("syslinux", str(image))
        image.write_bytes(_without_times(image.read_bytes()))
        image.replace(target)


def _without_times(image: bytes) -> bytes:
    """The FAT image with every file's times set to the epoch of FAT: same inputs, same image."""
    out = bytearray(image)
    sector_size, reserved, fats, entries = struct.unpack_from("<HxHBH", image, 11)
    (sectors_per_fat,) = struct.unpack_from("<H", image, 22)
    start = (reserved + fats * sectors_per_fat) * sector_size
    for at in range(start, start + entries * 32, 32):
        if out[at] and out[at + 11] != _LONG_NAME:
            struct.pack_into("<BHHH", out, at + 13, 0, 0, _FIRST_DAY, _FIRST_DAY)
            struct.pack_into("<HH", out, at + 22, 0, _FIRST_DAY)
    return bytes(out)


def make_qcow2(target: Path, raw: Path) -> None:
    """Convert a raw image to a compressed qcow2."""
    scratch = target.with_suffix(".new")
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(raw), str(scratch))
    scratch.replace(target)


def make_hostile_qcow2(target: Path) -> None:
    """An image that asks whoever opens it to read /etc/passwd; for tests that refuse it."""
    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw",
        str(target), "1M")  # fmt: skip
