"""The guest's root file system as a newc archive, written in Python: no cpio, no root, no host links.

Invariant: the same inputs give the same bytes.
"""

import gzip
import io
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from . import elf
from .host import BuildError


class Archive:
    """Collects newc records; parents are added as they are needed, everything belongs to root."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._names: set[str] = set()

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory unless it is there."""
        if name and name not in self._names:
            self._record(name, stat.S_IFDIR | mode)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._record(name, stat.S_IFREG | mode, data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._record(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a device node, which only the guest's kernel will ever create."""
        self._record(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def tree(self, root: Path) -> None:
        """Add the files below `root`; only the executable bit of their mode counts."""
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            self.file(str(path.relative_to(root)), path.read_bytes(), mode)

    def compressed(self) -> bytes:
        """The finished archive, gzip without a time stamp."""
        self._record("TRAILER!!!", 0)
        return gzip.compress(self._out.getvalue(), 9, mtime=0)

    def _record(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        if name in self._names:
            raise ValueError(f"{name} is in the archive twice")
        self.directory(name.rpartition("/")[0])
        self._names.add(name)
        encoded = name.encode() + b"\0"
        inode = len(self._names)
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % value for value in fields)
        self._out.write(header + encoded + bytes(-(len(header) + len(encoded)) % 4))
        self._out.write(data + bytes(-len(data) % 4))


def add_modules(archive: Archive, kernel_tree: Path, stages: Mapping[str, Sequence[str]]) -> None:
    """Add kernel modules and, per stage, `etc/modules.STAGE` in dependency order.

    A name that the kernel package has no module for is built into that kernel and skipped; a
    dependency that is missing is a BuildError, since the module could not be loaded.
    """
    files = {p.stem.replace("-", "_"): p.read_bytes() for p in kernel_tree.rglob("*.ko")}
    loaded: list[str] = []

    def load(name: str, wanted_by: str) -> None:
        if name in loaded:
            return
        if name not in files:
            raise BuildError(f"kernel module {name}, needed by {wanted_by}, is not packed")
        for dependency in elf.module_dependencies(files[name]):
            load(dependency.replace("-", "_"), name)
        loaded.append(name)
        archive.file(f"lib/modules/{name}.ko", files[name])

    for stage, names in stages.items():
        before = len(loaded)
        for name in names:
            if name in files:
                load(name, stage)
        listing = "".join(f"{name}\n" for name in loaded[before:])
        archive.file(f"etc/modules.{stage}", listing.encode())


def add_program(archive: Archive, name: str, image: bytes, trees: Iterable[Path]) -> None:
    """Add a program with its loader and all its libraries, found in the extracted packages."""
    archive.file(name, image, 0o755)
    loader = elf.interpreter(image) or ""
    for library, content in libraries_of(name, image, trees).items():
        is_loader = library == Path(loader).name
        archive.file(loader.lstrip("/") if is_loader else f"lib/{library}", content, 0o755)


def libraries_of(name: str, image: bytes, trees: Iterable[Path]) -> dict[str, bytes]:
    """A program's loader and all its libraries, each by its name without a path, found in the extracted packages."""
    available = {path.name: path for tree in trees for path in tree.rglob("*.so*")}
    loader = elf.interpreter(image)
    found: dict[str, bytes] = {}
    pending = [(Path(loader).name, name)] if loader is not None else []
    pending += [(library, name) for library in elf.needed(image)]
    while pending:
        library, wanted_by = pending.pop()
        if library in found:
            continue
        if library not in available:
            raise BuildError(f"{library}, needed by {wanted_by}, is in none of the packages")
        found[library] = available[library].resolve(strict=True).read_bytes()
        pending += [(needed, library) for needed in elf.needed(found[library])]
    return found
