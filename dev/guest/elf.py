"""The little of ELF that packing needs: a program's loader and libraries, a module's dependencies.

The files are of other architectures than the host, so nothing here runs them.
"""

import struct
from dataclasses import dataclass

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def _segments(image: bytes) -> list[_Segment]:
    if image[:4] != b"\x7fELF" or image[5] != 1:
        raise ValueError("not a little-endian ELF file")
    if image[4] == 2:
        (table,) = struct.unpack_from("<Q", image, 32)
        size, count = struct.unpack_from("<HH", image, 54)
        rows = (struct.unpack_from("<IIQQQQ", image, table + i * size) for i in range(count))
        return [_Segment(kind, offset, addr, n) for kind, _, offset, addr, _, n in rows]
    (table,) = struct.unpack_from("<I", image, 28)
    size, count = struct.unpack_from("<HH", image, 42)
    rows = (struct.unpack_from("<IIIII", image, table + i * size) for i in range(count))
    return [_Segment(kind, offset, addr, n) for kind, offset, addr, _, n in rows]


def _text(image: bytes, offset: int) -> str:
    return image[offset : image.index(b"\0", offset)].decode()


def interpreter(image: bytes) -> str | None:
    """The loader's path, or None for a library or a static program."""
    return next((_text(image, s.offset) for s in _segments(image) if s.kind == _PT_INTERP), None)


def needed(image: bytes) -> list[str]:
    """The names of the libraries that the loader will look for."""
    segments = _segments(image)
    entry = struct.Struct("<qQ" if image[4] == 2 else "<iI")
    tags: list[tuple[int, int]] = []
    for segment in segments:
        if segment.kind == _PT_DYNAMIC:
            raw = image[segment.offset : segment.offset + segment.size]
            tags = list(entry.iter_unpack(raw[: len(raw) // entry.size * entry.size]))
    strings = next((value for tag, value in tags if tag == _DT_STRTAB), None)
    if strings is None:
        return []
    base = next(
        s.offset + strings - s.address
        for s in segments
        if s.kind == _PT_LOAD and s.address <= strings < s.address + s.size
    )
    return [_text(image, base + value) for tag, value in tags if tag == _DT_NEEDED]


def module_dependencies(image: bytes) -> list[str]:
    """The kernel modules that must be loaded before this one, from its .modinfo."""
    start = image.find(b"\0depends=")
    if start < 0:
        return []
    return [name for name in _text(image, start + 9).split(",") if name]
