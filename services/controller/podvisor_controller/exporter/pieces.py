"""The bytes of a download, piece by piece: of a file, compressed, and of a directory as an archive.

Invariant: plain generators that hold one piece at a time and read when they are asked for the next one; for threads, never for the
event loop. A generator that is closed closes what it has opened itself. No piece is empty.
"""

import errno
import html
import os
import stat
import tarfile
import zlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass
from urllib.parse import quote

import structlog

from podvisor_controller.exporter.tree import NotServed, is_file, reopened

Pieces = Generator[bytes, None, None]

READ_BYTES = 256 * 1024
GZIP_READ_BYTES = 1024 * 1024
# Of small pieces so much is put together: each costs a turn of the loop and a record of TLS.
PIECE_BYTES = 64 * 1024
# Each level of an archive holds two descriptors.
MOST_LEVELS = 100

_log = structlog.get_logger(__name__)

_GZIP = 31  # zlib's number for a window of 32 KiB and gzip's header
_FAST = 1  # the network and the disk are to be the limit, not the compression
_NOT_ARCHIVED = "lost+found"


def file_pieces(descriptor: int, start: int, stop: int, *, read_bytes: int = READ_BYTES) -> Pieces:
    """The bytes of an open file from `start` on, before `stop`. OSError when it cannot be read, or has less."""
    while start < stop:
        piece = os.pread(descriptor, min(read_bytes, stop - start), start)
        if not piece:
            raise OSError(errno.EIO, "the file has become shorter")
        start += len(piece)
        yield piece


def gzip_pieces(descriptor: int, size_bytes: int) -> Pieces:
    """An open file in gzip's format. Stretches of zeros cost no compression, for they are members made once, and holes not even reading.

    A file of several members (RFC 1952, 2.2) is one file to whoever decompresses it.
    """
    zeros = bytes(GZIP_READ_BYTES)
    member = zlib.compress(zeros, 9, _GZIP)
    compressor = None
    data_from = 0
    for start in range(0, size_bytes, GZIP_READ_BYTES):
        stop = min(start + GZIP_READ_BYTES, size_bytes)
        if start >= data_from:
            data_from = _next_data(descriptor, start, size_bytes)
        is_hole = stop - start == GZIP_READ_BYTES and data_from >= stop
        chunk = (
            zeros
            if is_hole
            else b"".join(file_pieces(descriptor, start, stop, read_bytes=GZIP_READ_BYTES))
        )
        if chunk == zeros:
            if compressor is not None:
                yield compressor.flush()
                compressor = None
            yield member
            continue
        if compressor is None:
            compressor = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
        if piece := compressor.compress(chunk):
            yield piece
    if compressor is not None:
        yield compressor.flush()
    elif not size_bytes:
        yield zlib.compress(b"", _FAST, _GZIP)


def _next_data(descriptor: int, start: int, size_bytes: int) -> int:
    """Where something is written from `start` on; the end where nothing is. Of what knows no holes everything counts as written."""
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA)
    except OSError as error:
        return size_bytes if error.errno == errno.ENXIO else start


def archive_pieces(root: int) -> Pieces:
    """A directory with all below it as a compressed archive (tar.gz). `root` is a descriptor of it, which stays open.

    Links are archived as links; pipes, sockets and devices are left out, and so is what may not be opened or is nested too deeply, which
    is logged by number: names are the volume's content. OSError when what is open cannot be read.
    """
    compressor = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP)
    left_out = _LeftOut()
    with closing(_tar_pieces(root, left_out)) as made:
        for piece in made:
            if compressed := compressor.compress(piece):
                yield compressed
    yield compressor.flush()
    if left_out.unreadable or left_out.too_deep:
        _log.warning("left out of an archive", **asdict(left_out))


def listing_pieces(directory: int) -> Pieces:
    """What is in a directory, as a page with a link for each entry."""
    yield b"<!doctype html>\n<meta charset=utf-8>\n<pre>\n"
    with os.scandir(directory) as entries:
        for entry in entries:
            suffix = "/" if entry.is_dir(follow_symlinks=False) else ""
            raw = os.fsencode(entry.name)
            text = html.escape(raw.decode(errors="replace") + suffix)
            # A colon in the first part of a relative address would make it an absolute one.
            yield f'<a href="./{quote(raw)}{suffix}">{text}</a>\n'.encode()
    yield b"</pre>\n"


def put_together(pieces: Pieces) -> Pieces:
    """The same bytes in fewer pieces. Closed along with it."""
    waiting: list[bytes] = []
    length = 0
    with closing(pieces):
        for piece in pieces:
            waiting.append(piece)
            length += len(piece)
            if length >= PIECE_BYTES:
                yield b"".join(waiting)
                waiting, length = [], 0
    if waiting:
        yield b"".join(waiting)


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory whose entries are being archived."""

    path: str
    descriptor: int
    entries: "os._ScandirIterator[str]"

    @classmethod
    def open(cls, path: str, name: str, parent: int) -> "_Level":
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parent)
        return cls(path, descriptor, os.scandir(descriptor))

    def close(self) -> None:
        self.entries.close()
        os.close(self.descriptor)


@dataclass(slots=True)
class _LeftOut:
    """How much is not in an archive that could be."""

    unreadable: int = 0
    too_deep: int = 0


def _tar_pieces(root: int, left_out: _LeftOut) -> Pieces:
    yield _header(".", os.fstat(root), tarfile.DIRTYPE)
    levels = [_Level.open(".", ".", root)]
    try:
        while levels:
            level = levels[-1]
            entry = next(level.entries, None)
            if entry is None:
                levels.pop().close()
                continue
            if len(levels) == 1 and entry.name == _NOT_ARCHIVED:
                continue
            path = f"{level.path}/{entry.name}"
            try:
                found = os.stat(entry.name, dir_fd=level.descriptor, follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    if len(levels) == MOST_LEVELS:
                        left_out.too_deep += 1
                        continue
                    levels.append(_Level.open(path, entry.name, level.descriptor))
                    made = _alone(_header(path, found, tarfile.DIRTYPE))
                elif stat.S_ISREG(found.st_mode):
                    made = _member(path, _open_file(entry.name, level.descriptor))
                elif stat.S_ISLNK(found.st_mode):
                    target = os.readlink(entry.name, dir_fd=level.descriptor)
                    made = _alone(_header(path, found, tarfile.SYMTYPE, target=target))
                else:
                    continue
            except PermissionError:
                left_out.unreadable += 1
                continue
            yield from made
    finally:
        for level in levels:
            level.close()
    yield bytes(2 * tarfile.BLOCKSIZE)


def _alone(piece: bytes) -> Pieces:
    yield piece


def _open_file(name: str, directory: int) -> int:
    inode = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not is_file(inode):
            raise NotServed
        return reopened(inode)
    finally:
        os.close(inode)


def _member(path: str, descriptor: int) -> Pieces:
    """A file's header and content; `descriptor` is closed behind them."""
    try:
        found = os.fstat(descriptor)
        yield _header(path, found, tarfile.REGTYPE)
        yield from file_pieces(descriptor, 0, found.st_size)
    finally:
        os.close(descriptor)
    if rest := found.st_size % tarfile.BLOCKSIZE:
        yield bytes(tarfile.BLOCKSIZE - rest)


def _header(path: str, found: os.stat_result, type_: bytes, *, target: str = "") -> bytes:
    info = tarfile.TarInfo(path)
    info.type = type_
    info.mode = stat.S_IMODE(found.st_mode)
    info.uid, info.gid = found.st_uid, found.st_gid
    info.mtime = int(max(found.st_mtime, 0))
    info.size = found.st_size if type_ == tarfile.REGTYPE else 0
    info.linkname = target
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
