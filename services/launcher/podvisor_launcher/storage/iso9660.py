"""ISO 9660 images (ECMA-119) with Rock Ridge and Joliet names: a label, and files in directories.

Invariant: pure, and the same content makes the same image. Every file lies there once; two trees of directories lead to it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from struct import pack

from podvisor_launcher.storage.iso_names import (
    both_16,
    both_32,
    joliet,
    joliet_names,
    mode_extension,
    name_extensions,
    primary_names,
    root_extensions,
)

SECTOR_BYTES = 2048
_SYSTEM_SECTORS = 16
_DESCRIPTORS = 3
_PRIMARY, _SUPPLEMENTARY, _TERMINATOR = 1, 2, 255
_JOLIET_LEVEL_3 = b"%/E"
_FILE, _DIRECTORY = 0, 2
_NO_DATE = b"0" * 16 + b"\0"
_RECORD_MAX_BYTES = 254
_ITSELF, _PARENT = b"\0", b"\1"
_LABEL_BYTES, _JOLIET_LABEL_CHARACTERS = 32, 16

Extents = Mapping[str, tuple[int, int]]  # first sector and size of files, by path


@dataclass(slots=True, eq=False)
class _Node:
    """A directory as one of the trees has it."""

    path: str  # of the directory, with a slash at its end; empty for the root
    identifier: bytes
    parent: int  # its place in the list of nodes
    files: Mapping[str, bytes]  # identifiers by name
    directories: dict[str, int] = field(default_factory=dict)  # places in the list by name
    sector: int = 0
    content: bytes = b""


@dataclass(slots=True)
class _Rest:
    """What does not fit into records of directories. No piece crosses the end of a sector."""

    first_sector: int
    content: bytes = b""

    def place(self, piece: bytes) -> tuple[int, int]:
        if len(self.content) % SECTOR_BYTES + len(piece) > SECTOR_BYTES:
            self.content = _padded(self.content)
        sector, offset = divmod(len(self.content), SECTOR_BYTES)
        self.content += piece
        return self.first_sector + sector, offset


def make_image(label: str, files: Mapping[str, bytes]) -> bytes:
    """The image with `files` by path, `directory/name`. Of the label, ASCII, 32 characters are kept, and 16 by Joliet."""
    primary_at = _SYSTEM_SECTORS + _DESCRIPTORS
    unplaced = {path: (0, len(content)) for path, content in files.items()}
    primary, joliet_tree = _nodes(files, is_joliet=False), _nodes(files, is_joliet=True)
    joliet_at = primary_at + _sectors(_tree(primary, primary_at, unplaced, is_joliet=False))
    sector = joliet_at + _sectors(_tree(joliet_tree, joliet_at, unplaced, is_joliet=True))
    extents = {}
    for path, content in files.items():
        extents[path] = (sector, len(content))
        sector += _sectors(content)
    trees = (
        _tree(primary, primary_at, extents, is_joliet=False),
        _tree(joliet_tree, joliet_at, extents, is_joliet=True),
    )
    label_bytes = label.encode("ascii", "replace")[:_LABEL_BYTES].ljust(_LABEL_BYTES)
    joliet_label = joliet(label[:_JOLIET_LABEL_CHARACTERS].ljust(_JOLIET_LABEL_CHARACTERS))
    return b"".join(
        (
            bytes(_SYSTEM_SECTORS * SECTOR_BYTES),
            _descriptor(_PRIMARY, label_bytes, sector, primary_at, primary),
            _descriptor(_SUPPLEMENTARY, joliet_label, sector, joliet_at, joliet_tree),
            _padded(pack("B5sB", _TERMINATOR, b"CD001", 1)),
            *trees,
            *map(_padded, files.values()),
        )
    )


def _nodes(files: Mapping[str, bytes], *, is_joliet: bool) -> list[_Node]:
    """The directories in the order of the table of paths: by level, then by parent, then by identifier."""
    nodes = [_Node("", _ITSELF, 0, {})]
    for position, node in enumerate(nodes):  # grows meanwhile
        below = [path.removeprefix(node.path) for path in files if path.startswith(node.path)]
        inner = {path.split("/")[0] for path in below if "/" in path}
        leaves = [path for path in below if "/" not in path]
        if is_joliet:
            names = joliet_names([*leaves, *inner])
            node.files = {name: names[name] for name in leaves}
            directories = {name: names[name] for name in inner}
        else:
            node.files = primary_names(leaves, directories=False)
            directories = primary_names(inner, directories=True)
        for name, identifier in sorted(directories.items(), key=lambda each: each[1]):
            node.directories[name] = len(nodes)
            nodes.append(_Node(f"{node.path}{name}/", identifier, position, {}))
    return nodes


def _tree(nodes: list[_Node], first_sector: int, extents: Extents, *, is_joliet: bool) -> bytes:
    """Both tables of paths, the directories, and what did not fit into these. Places the nodes."""
    table = _sectors(_path_table(nodes, "<"))
    rest = _Rest(0)
    for _ in range(2):  # the second time every place is known: no size depends on it
        rest = _Rest(rest.first_sector)
        sector = first_sector + 2 * table
        for node in nodes:
            node.sector = sector
            node.content = _directory(nodes, node, extents, None if is_joliet else rest.place)
            sector += _sectors(node.content)
        rest.first_sector = sector
    tables = (_padded(_path_table(nodes, "<")), _padded(_path_table(nodes, ">")))
    return b"".join((*tables, *(node.content for node in nodes), _padded(rest.content)))


def _directory(
    nodes: list[_Node],
    node: _Node,
    extents: Extents,
    place_rest: Callable[[bytes], tuple[int, int]] | None,
) -> bytes:
    """The records of the directory; with those of Rock Ridge if there is a place for what does not fit."""
    parent = nodes[node.parent]
    own_extensions = parent_extensions = b""
    if place_rest is not None:
        parent_extensions = mode_extension(directory=True)
        own_extensions = parent_extensions if node.path else root_extensions()
    records = [
        _record(_ITSELF, node.sector, len(node.content), _DIRECTORY, own_extensions),
        _record(_PARENT, parent.sector, len(parent.content), _DIRECTORY, parent_extensions),
    ]
    entries = [(identifier, name, False) for name, identifier in node.files.items()]
    entries += [(nodes[at].identifier, name, True) for name, at in node.directories.items()]
    for identifier, name, is_directory in sorted(entries):
        extensions = b""
        if place_rest is not None:
            extensions = mode_extension(directory=is_directory)
            room = _RECORD_MAX_BYTES - len(_record(identifier, 0, 0, 0, extensions))
            extensions += name_extensions(name, room, place_rest)
        if is_directory:
            inner = nodes[node.directories[name]]
            place, flags = (inner.sector, len(inner.content)), _DIRECTORY
        else:
            place, flags = extents[node.path + name], _FILE
        records.append(_record(identifier, *place, flags, extensions))
    return _in_sectors(records)


def _record(
    identifier: bytes, sector: int, size_bytes: int, flags: int, extensions: bytes = b""
) -> bytes:
    body = both_32(sector) + both_32(size_bytes) + bytes(7) + pack("BBB", flags, 0, 0) + both_16(1)
    body += pack("B", len(identifier)) + identifier
    body += bytes(len(body) % 2)
    body += extensions + bytes(len(extensions) % 2)
    return pack("BB", len(body) + 2, 0) + body


def _in_sectors(records: list[bytes]) -> bytes:
    """The records, none of which may cross the end of a sector."""
    content = b""
    for record in records:
        if len(content) % SECTOR_BYTES + len(record) > SECTOR_BYTES:
            content = _padded(content)
        content += record
    return _padded(content)


def _path_table(nodes: list[_Node], order: str) -> bytes:
    return b"".join(
        pack(f"{order}BBIH", len(node.identifier), 0, node.sector, node.parent + 1)
        + node.identifier
        + bytes(len(node.identifier) % 2)
        for node in nodes
    )


def _descriptor(
    kind: int, label: bytes, image_sectors: int, tree_at: int, nodes: list[_Node]
) -> bytes:
    is_joliet = kind == _SUPPLEMENTARY
    space = joliet(" ") if is_joliet else b" "
    head = pack("B5sBB", kind, b"CD001", 1, 0) + space * (32 // len(space)) + label + bytes(8)
    sizes = both_32(image_sectors) + (_JOLIET_LEVEL_3 if is_joliet else b"").ljust(32, b"\0")
    table = _path_table(nodes, "<")
    numbers = both_16(1) + both_16(1) + both_16(SECTOR_BYTES) + both_32(len(table))
    root = nodes[0]
    places = pack("<II", tree_at, 0) + pack(">II", tree_at + _sectors(table), 0)
    places += _record(_ITSELF, root.sector, len(root.content), _DIRECTORY)
    # Who published it and so on, which nobody reads: four texts, three names of files, four dates.
    unnamed = (space * (4 * 128))[: 4 * 128] + (b" " * 37) * 3 + _NO_DATE * 4
    return _padded(head + sizes + numbers + places + unnamed + b"\1")


def _sectors(content: bytes) -> int:
    return -(-len(content) // SECTOR_BYTES)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % SECTOR_BYTES)
