"""New qcow2 images, https://www.qemu.org/docs/master/interop/qcow2.html: an empty one, or an overlay in which nothing is written yet.

Invariant: pure, and what `qemu-img create` makes by default. That takes a process and a flush, 20 ms of every start.
"""

from struct import pack

from podvisor_launcher.storage.qcow2 import MAGIC

_CLUSTER_BITS = 16
_CLUSTER_BYTES = 1 << _CLUSTER_BITS
_ENTRY_BYTES = 8
_MAPPED_BY_L2 = (
    _CLUSTER_BYTES * _CLUSTER_BYTES // _ENTRY_BYTES
)  # what an entry of the L1 table is for
_HEADER_BYTES = 104
_REFCOUNT_ORDER = 4  # 16 bits each
# Clusters: the header, the refcount table, its only block, then the L1 table.
_REFCOUNT_TABLE, _REFCOUNT_BLOCK, _L1_TABLE = 1, 2, 3
_EXTENSION_BACKING_FORMAT, _EXTENSIONS_END = 0xE2792ACA, 0
_LONGEST_PATH_BYTES = 1023


def new_image(size_bytes: int, *, backing: str = "", backing_format: str = "") -> bytes:
    """An image of `size_bytes`, a multiple of 512, over the file `backing` unless that is empty. Raises ValueError for what the
    format cannot hold: a path of more than 1023 bytes."""
    path = backing.encode("utf-8", "surrogateescape")
    if len(path) > _LONGEST_PATH_BYTES:
        raise ValueError("the path of the backing file is too long")
    extensions = _extension(_EXTENSION_BACKING_FORMAT, backing_format.encode()) if path else b""
    extensions += _extension(_EXTENSIONS_END, b"")
    l1_entries = -(-size_bytes // _MAPPED_BY_L2)
    l1_bytes = l1_entries * _ENTRY_BYTES
    header = pack(
        ">4sIQIIQIIQQIIQQQQII",
        MAGIC,
        3,
        _HEADER_BYTES + len(extensions) if path else 0,
        len(path),
        _CLUSTER_BITS,
        size_bytes,
        0,  # not encrypted
        l1_entries,
        _L1_TABLE * _CLUSTER_BYTES,
        _REFCOUNT_TABLE * _CLUSTER_BYTES,
        1,  # cluster of refcount table
        *(0, 0),  # no snapshots
        *(0, 0, 0),  # no features
        _REFCOUNT_ORDER,
        _HEADER_BYTES,
    )
    clusters = _L1_TABLE + -(-l1_bytes // _CLUSTER_BYTES)
    return b"".join(
        (
            _padded(header + extensions + path),
            _padded(pack(">Q", _REFCOUNT_BLOCK * _CLUSTER_BYTES)),
            _padded(pack(">H", 1) * clusters),
            bytes(l1_bytes),
        )
    )


def _extension(kind: int, content: bytes) -> bytes:
    return pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


def _padded(content: bytes) -> bytes:
    return content.ljust(_CLUSTER_BYTES, b"\0")
