"""ISO 9660 images (ECMA-119) with Joliet names: a label and a few files in one directory, which is all a guest's data source is.

Invariant: pure, and the same content makes the same image. Without Joliet, systems that fold case see the right names too.
"""

from collections.abc import Mapping
from struct import pack

_SECTOR_BYTES = 2048
_SYSTEM_SECTORS = 16
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_JOLIET_LEVEL_3 = b"%/E"
# Sectors after the three descriptors: a table of paths in each byte order and a directory for either tree, then the files.
_PRIMARY_TREE, _JOLIET_TREE, _FIRST_FILE = 19, 22, 25
_FILE, _DIRECTORY = 0, 2
_NO_DATE = b"0" * 16 + b"\0"


def make_image(label: str, files: Mapping[str, bytes]) -> bytes:
    """The image labelled `label`, ASCII of up to 16 characters, with `files` by name in its root directory."""
    contents, extents, next_sector = b"", {}, _FIRST_FILE
    for name, content in files.items():
        extents[name] = (next_sector, len(content))
        contents += _padded(content)
        next_sector += len(_padded(content)) // _SECTOR_BYTES
    primary = _directory(_PRIMARY_TREE, {f"{n.upper()}.;1".encode(): extents[n] for n in extents})
    joliet = _directory(_JOLIET_TREE, {_joliet(n): extents[n] for n in extents})
    return b"".join(
        (
            bytes(_SYSTEM_SECTORS * _SECTOR_BYTES),
            _descriptor(_PRIMARY, label.encode().ljust(32), next_sector, _PRIMARY_TREE),
            _descriptor(_SUPPLEMENTARY, _joliet(label.ljust(16)), next_sector, _JOLIET_TREE),
            _padded(pack("B5sB", _TERMINATOR, b"CD001", 1)),
            *(_path_tables(_PRIMARY_TREE), primary, _path_tables(_JOLIET_TREE), joliet),
            contents,
        )
    )


def _descriptor(kind: int, label: bytes, image_sectors: int, tree: int) -> bytes:
    joliet = kind == _SUPPLEMENTARY
    space = _joliet(" ") if joliet else b" "
    head = pack("B5sBB", kind, b"CD001", 1, 0) + space * (32 // len(space)) + label + bytes(8)
    sizes = _both_32(image_sectors) + (_JOLIET_LEVEL_3 if joliet else b"").ljust(32, b"\0")
    numbers = (
        _both_16(1) + _both_16(1) + _both_16(_SECTOR_BYTES) + _both_32(len(_path_table(0, "<")))
    )
    places = (
        pack("<II", tree, 0) + pack(">II", tree + 1, 0) + _record(b"\0", tree + 2, flags=_DIRECTORY)
    )
    # Who published it and so on, which nobody reads: four texts, three names of files, four dates.
    unnamed = (space * (4 * 128))[: 4 * 128] + (b" " * 37) * 3 + _NO_DATE * 4
    return _padded(head + sizes + numbers + places + unnamed + b"\1")


def _directory(tree: int, files: Mapping[bytes, tuple[int, int]]) -> bytes:
    own = tree + 2
    records = [
        _record(name, own, flags=_DIRECTORY) for name in (b"\0", b"\1")
    ]  # itself and its parent
    records += [_record(name, *files[name], flags=_FILE) for name in sorted(files)]
    directory = _padded(b"".join(records))
    assert len(directory) == _SECTOR_BYTES
    return directory


def _record(name: bytes, sector: int, size_bytes: int = _SECTOR_BYTES, *, flags: int) -> bytes:
    body = (
        _both_32(sector) + _both_32(size_bytes) + bytes(7) + pack("BBB", flags, 0, 0) + _both_16(1)
    )
    record = body + pack("B", len(name)) + name
    record += bytes(len(record) % 2)
    return pack("BB", len(record) + 2, 0) + record


def _path_tables(tree: int) -> bytes:
    return _padded(_path_table(tree + 2, "<")) + _padded(_path_table(tree + 2, ">"))


def _path_table(sector: int, order: str) -> bytes:
    return pack(f"{order}BBIH", 1, 0, sector, 1) + b"\0\0"


def _joliet(text: str) -> bytes:
    return text.encode("utf-16-be")


def _both_32(number: int) -> bytes:
    return pack("<I", number) + pack(">I", number)


def _both_16(number: int) -> bytes:
    return pack("<H", number) + pack(">H", number)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _SECTOR_BYTES)
