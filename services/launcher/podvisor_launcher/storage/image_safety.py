"""What an image is by its first and last bytes, and whether a guest may have it.

Invariant: pure. QEMU is always told the format that is found here and never looks for itself: a guest that writes a header of
its choice into a raw disk would else choose which file its next start reads.
"""

from dataclasses import dataclass

from podvisor_launcher.storage import qcow2
from podvisor_launcher.storage.errors import Unusable

HEAD_BYTES = qcow2.HEAD_BYTES
TAIL_BYTES = 512

RAW, QCOW2 = "raw", "qcow2"
SECTOR_BYTES = 512
# By place and bytes. Of qcow, version 1 and those after 3 end up in qcow2's own check.
_REFUSED = (
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),  # the copy of the footer that a dynamic image begins with
    (0x40, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"QED\0", "QED"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"WithoutFreeSpace", "Parallels"),
    (0, b"WithouFreSpacExt", "Parallels"),
)
_VMDK_VERSIONS = (b"version=1", b"version=2", b"version=3")


class UnsafeImage(Unusable):
    """The image is not one that may be used."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The format of an image, raw or qcow2, and the size in bytes that a guest sees."""

    format: str
    virtual_size_bytes: int


def examine(head: bytes, tail: bytes, file_bytes: int, known_format: str = "") -> ImageFacts:
    """What the image of `file_bytes` is, by its first HEAD_BYTES and its last TAIL_BYTES.

    `known_format` is what it is whatever it looks like. Raises UnsafeImage and UnsafeQcow2.
    """
    format_ = known_format or _detected(head, tail)
    if format_ == RAW:
        if file_bytes < SECTOR_BYTES:
            raise UnsafeImage("the image is too small to be a disk")
        return ImageFacts(RAW, file_bytes + -file_bytes % SECTOR_BYTES)
    if not head.startswith(qcow2.MAGIC):
        raise UnsafeImage(
            "the image was in format qcow2 when a guest wrote to it last and is not any more"
        )
    return ImageFacts(QCOW2, qcow2.virtual_size(head, file_bytes))


def _detected(head: bytes, tail: bytes) -> str:
    if head.startswith(qcow2.MAGIC):
        return QCOW2
    for place, magic, name in _REFUSED:
        if head.startswith(magic, place):
            raise _refused(name)
    if _is_vmdk_description(head):
        raise _refused("VMDK")
    # The footer of a VHD is 512 bytes, or 511 if an old program wrote it.
    if b"conectix" in (tail[:8], tail[1:9]):
        raise _refused("VHD")
    return RAW


def _is_vmdk_description(head: bytes) -> bool:
    """A text that begins with comments, then says its version."""
    if not head.startswith(b"#"):
        return False
    if head.startswith(b"# Disk DescriptorFile"):
        return True
    lines = (line.strip() for line in head.split(b"\n"))
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    return first.lower().startswith(_VMDK_VERSIONS)


def _refused(name: str) -> UnsafeImage:
    return UnsafeImage(f"its image is in format {name}, which is not supported, only qcow2 and raw")
