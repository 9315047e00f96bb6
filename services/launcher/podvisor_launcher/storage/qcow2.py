"""The header of a qcow2 image, read with suspicion, https://www.qemu.org/docs/master/interop/qcow2.html.

Invariant: pure. An image that passes is complete in itself and makes QEMU neither open another file nor take much memory.
"""

from dataclasses import dataclass
from struct import Struct, error, unpack_from

from podvisor_launcher.storage.errors import Unusable

MAGIC = b"QFI\xfb"
HEAD_BYTES = 65536  # what is read of an image: the header and its extensions; in practice 0.5 KiB

# Larger than any file system that an image could be in would hold; QEMU's own limit is 2 PiB and more.
MAX_VIRTUAL_BYTES = 64 << 40
_MIN_VIRTUAL_BYTES = 512
_CLUSTER_BITS = range(9, 22)
# What QEMU refuses, too, but only after it has opened the image.
_MAX_L1_BYTES = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_REFCOUNT_ORDER = 6
# What the guest sees is complete without them, so that they do no harm; but QEMU reads all of them whenever it opens the image.
_MAX_SNAPSHOTS = 64
_ENTRY_BYTES = 8  # of the L1 table

_V2 = Struct(">4sIQIIQIIQQIIQ")
_V3 = Struct(">QQQII")
_V2_BYTES, _V3_MIN_BYTES = 72, 104
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_FEATURES = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2
_EXTENSIONS_END, _EXTENSION_CRYPTO, _EXTENSION_DATA_FILE = 0, 0x0537BE77, 0x44415441


class UnsafeQcow2(Unusable):
    """The header asks for what is not allowed, or cannot be right."""


@dataclass(frozen=True, slots=True)
class _Header:
    backing_offset: int
    cluster_bits: int
    virtual_bytes: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    refcount_order: int
    header_bytes: int


def virtual_size(head: bytes, file_bytes: int) -> int:
    """The size in bytes that a guest sees of the image of `file_bytes` that begins with `head`, its first HEAD_BYTES or
    whole. Raises UnsafeQcow2."""
    header = _parse(head)
    _check_what_is_named(header)
    _check_geometry(header)
    _check_places(header, file_bytes)
    _check_extensions(header, head)
    return header.virtual_bytes


def _parse(head: bytes) -> _Header:
    try:
        magic, version, backing, _, bits, size, crypt, l1, l1_at, refs_at, refs, count, at = (
            _V2.unpack_from(head)
        )
        if magic != MAGIC or version not in (2, 3):
            raise UnsafeQcow2(f"version {version} of format qcow2 is not supported")
        features, _, _, order, length = (
            _V3.unpack_from(head, _V2_BYTES) if version == 3 else (0, 0, 0, 4, _V2_BYTES)
        )
    except error as short:
        raise UnsafeQcow2("the header of its qcow2 image is cut off") from short
    if version == 3 and length < _V3_MIN_BYTES:
        raise UnsafeQcow2("the header of its qcow2 image is too short")
    return _Header(
        backing, bits, size, crypt, l1, l1_at, refs_at, refs, count, at, features, order, length
    )


def _check_what_is_named(header: _Header) -> None:
    if header.backing_offset:
        raise UnsafeQcow2("the image names a backing file, which is not allowed")
    if header.incompatible & _DATA_FILE:
        raise UnsafeQcow2("the image names an external data file, which is not allowed")
    if header.encryption:
        raise UnsafeQcow2("the image is encrypted, which is not supported")
    if header.incompatible & _CORRUPT:
        raise UnsafeQcow2("the image is marked as corrupt: qemu-img check -r all may repair it")
    if header.incompatible & ~_KNOWN_FEATURES:
        raise UnsafeQcow2("the image needs features of qcow2 that are not known")


def _check_geometry(header: _Header) -> None:
    if header.virtual_bytes < _MIN_VIRTUAL_BYTES:
        raise UnsafeQcow2("the image is too small to be a disk")
    if header.virtual_bytes > MAX_VIRTUAL_BYTES:
        raise UnsafeQcow2(
            f"the image claims to be larger than {MAX_VIRTUAL_BYTES >> 40} TiB, which is not supported"
        )
    if header.cluster_bits not in _CLUSTER_BITS or header.refcount_order > _MAX_REFCOUNT_ORDER:
        raise UnsafeQcow2("the sizes in the header of its qcow2 image are impossible")
    if header.l1_entries * _ENTRY_BYTES > _MAX_L1_BYTES:
        raise UnsafeQcow2("the L1 table of its qcow2 image is larger than 32 MiB")
    if not 0 < header.refcount_clusters << header.cluster_bits <= _MAX_REFCOUNT_TABLE_BYTES:
        raise UnsafeQcow2("the refcount table of its qcow2 image is empty or larger than 8 MiB")
    if header.snapshots > _MAX_SNAPSHOTS:
        raise UnsafeQcow2(f"the image holds more than {_MAX_SNAPSHOTS} internal snapshots")
    l2_entry_bytes = 16 if header.incompatible & _EXTENDED_L2 else 8
    mapped_by_l2 = (1 << 2 * header.cluster_bits) // l2_entry_bytes
    if header.l1_entries * mapped_by_l2 < header.virtual_bytes:
        raise UnsafeQcow2("the L1 table of its qcow2 image is too small for its size")


def _check_places(header: _Header, file_bytes: int) -> None:
    cluster = 1 << header.cluster_bits
    tables = [
        (header.l1_offset, header.l1_entries * _ENTRY_BYTES),
        (header.refcount_offset, header.refcount_clusters * cluster),
    ]
    if header.snapshots:
        tables.append((header.snapshots_offset, 1))
    for offset, length in tables:
        if offset < cluster or offset % cluster or offset + length > file_bytes:
            raise UnsafeQcow2(
                "a table of its qcow2 image is outside of the file: it may be cut off"
            )


def _check_extensions(header: _Header, head: bytes) -> None:
    """They follow the header and end within its cluster."""
    place, end = header.header_bytes, min(1 << header.cluster_bits, len(head))
    while place + 8 <= end:
        kind, length = unpack_from(">II", head, place)
        if kind == _EXTENSIONS_END:
            return
        if kind == _EXTENSION_DATA_FILE:
            raise UnsafeQcow2("the image names an external data file, which is not allowed")
        if kind == _EXTENSION_CRYPTO:
            raise UnsafeQcow2("the image is encrypted, which is not supported")
        place += 8 + length + -length % 8
    if place != end:
        raise UnsafeQcow2("the extensions in the header of its qcow2 image have no end")
