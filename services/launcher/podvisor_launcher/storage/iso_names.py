"""What a file is called on an ISO 9660 image: in the primary tree (ECMA-119 with Rock Ridge, IEEE P1282) and in Joliet's.

Invariant: pure. A guest finds every file under its own name by Rock Ridge, which Linux prefers; Joliet, for Windows, has 64
characters, and what knows neither sees short names in capitals. Names that do not fit are numbered.
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain, count
from struct import pack

_PLAIN_FILE = re.compile(r"(?=.{1,30}$)[A-Z0-9_-]+(\.[A-Z0-9_-]+)?")
_PLAIN_DIRECTORY = re.compile(r"[A-Z0-9_-]{1,31}")
_JOLIET_CHARACTERS, _JOLIET_NUMBER_CHARACTERS = 64, 7
_NOT_IN_JOLIET = re.compile(r"[*/:;?\\\x00-\x1f]")

_FILE_MODE, _DIRECTORY_MODE = 0o100444, 0o040555
_NM_HEAD_BYTES, _CE_BYTES, _CONTINUES = 5, 28, 1
_RRIP = b"RRIP_1991A"  # what Linux, too, knows the extension by


def primary_names(names: Iterable[str], *, directories: bool) -> dict[str, bytes]:
    """Identifiers in the primary tree for the entries of one directory."""
    if directories:
        short = _distinct(names, lambda n: _if_plain(n, _PLAIN_DIRECTORY), "D{1:05}".format)
        return {name: text.encode() for name, text in short.items()}
    short = _distinct(names, lambda n: _if_plain(n, _PLAIN_FILE), "F{1:05}".format)
    return {name: f"{text}{'' if '.' in text else '.'};1".encode() for name, text in short.items()}


def joliet_names(names: Iterable[str]) -> dict[str, bytes]:
    """Identifiers in Joliet's tree for the entries of one directory."""

    def whole(name: str) -> str | None:
        clean = _NOT_IN_JOLIET.sub("_", name)
        return clean if len(joliet(clean)) <= 2 * _JOLIET_CHARACTERS else None

    def numbered(name: str, number: int) -> str:
        stem = _NOT_IN_JOLIET.sub("_", name)
        while len(joliet(stem)) > 2 * (_JOLIET_CHARACTERS - _JOLIET_NUMBER_CHARACTERS):
            stem = stem[:-1]
        return f"{stem}~{number:06}"

    return {name: joliet(text) for name, text in _distinct(names, whole, numbered).items()}


def joliet(text: str) -> bytes:
    """`text` as Joliet has it."""
    return text.encode("utf-16-be", "replace")


def root_extensions() -> bytes:
    """What the root directory's own record says of Rock Ridge: that it is used, and by which name it goes."""
    sharing = b"SP" + pack("BB2sB", 7, 1, b"\xbe\xef", 0)
    known_by = b"ER" + pack("BBBBBB", 8 + len(_RRIP), 1, len(_RRIP), 0, 0, 1) + _RRIP
    return sharing + mode_extension(directory=True) + known_by


def mode_extension(*, directory: bool) -> bytes:
    """Everybody may read, nobody may write, and nothing is executed."""
    mode = _DIRECTORY_MODE if directory else _FILE_MODE
    numbers = (mode, 2 if directory else 1, 0, 0)  # mode, links, user, group
    return b"PX" + pack("BB", 36, 1) + b"".join(both_32(number) for number in numbers)


def name_extensions(
    name: str, room_bytes: int, place_rest: Callable[[bytes], tuple[int, int]]
) -> bytes:
    """The name in a record with `room_bytes` left. What does not fit in is handed to `place_rest`, which returns its sector and
    its offset there."""
    whole = name.encode("utf-8", "surrogateescape")
    if _NM_HEAD_BYTES + len(whole) <= room_bytes:
        return _nm(whole, 0)
    fits = room_bytes - _CE_BYTES - _NM_HEAD_BYTES
    rest = _nm(whole[fits:], 0)
    sector, offset = place_rest(rest)
    place = both_32(sector) + both_32(offset) + both_32(len(rest))
    return _nm(whole[:fits], _CONTINUES) + b"CE" + pack("BB", _CE_BYTES, 1) + place


def both_32(number: int) -> bytes:
    """A number in both byte orders."""
    return pack("<I", number) + pack(">I", number)


def both_16(number: int) -> bytes:
    """A small number in both byte orders."""
    return pack("<H", number) + pack(">H", number)


def _nm(part: bytes, flags: int) -> bytes:
    return b"NM" + pack("BBB", _NM_HEAD_BYTES + len(part), 1, flags) + part


def _if_plain(name: str, pattern: re.Pattern[str]) -> str | None:
    return name.upper() if pattern.fullmatch(name.upper()) else None


def _distinct(
    names: Iterable[str], whole: Callable[[str], str | None], numbered: Callable[[str, int], str]
) -> dict[str, str]:
    used: set[str] = set()
    chosen = {}
    for position, name in enumerate(sorted(names), start=1):
        candidates = chain([whole(name)], (numbered(name, each) for each in count(position)))
        chosen[name] = next(each for each in candidates if each is not None and each not in used)
        used.add(chosen[name])
    return chosen
