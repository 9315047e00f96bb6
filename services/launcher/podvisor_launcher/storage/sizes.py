"""How large the image in a volume is made, by what the volume promises and what its file system has.

Invariant: pure. No image ever becomes smaller.
"""

from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.storage.errors import Unusable

# QEMU writes whole blocks of the file system past the page cache; the last one shall not make the file longer.
_BLOCK_BYTES = 4096
# An image that cannot have all that its volume promises is not grown for less than this: what is free comes and goes.
_WORTHWHILE_PERCENT = 1
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class TooLittleSpace(Unusable):
    """The file system cannot hold the image."""


@dataclass(frozen=True, slots=True)
class Room:
    """Space in a file system, in bytes."""

    free: int  # for this user
    taken: int = 0  # by the image itself


def size_to_make(source: pb.VolumeDiskSource, room: Room) -> int:
    """The size of an image where there is none. Raises TooLittleSpace, and Unusable when the capacity is not known."""
    wanted = _whole_blocks(source.capacity_bytes)
    if not wanted:
        raise Unusable("its image must be made, and how large the volume is is not known yet")
    available = _available(source, room)
    if available < min(wanted, _tolerated(source)):
        percent = source.tolerated_shortfall_percent
        raise TooLittleSpace(
            f"its file system has {in_words(room.free)} free and the image shall have {in_words(source.capacity_bytes)}; "
            f"at most {percent} % less is accepted, and {in_words(source.reserve_bytes)} are left free"
        )
    return min(wanted, available)


def size_to_grow(source: pb.VolumeDiskSource, size_bytes: int, room: Room) -> int:
    """The size of an image that has `size_bytes`: at least that."""
    wanted = _whole_blocks(source.capacity_bytes)
    available = _available(source, room)
    if available >= wanted:
        return max(size_bytes, wanted)
    gain = available - size_bytes
    worthwhile = gain * 100 >= source.capacity_bytes * _WORTHWHILE_PERCENT
    return available if worthwhile and available >= _tolerated(source) else size_bytes


def in_words(size_bytes: int) -> str:
    """A size for a person, rounded down to a tenth."""
    step = 0
    while step < len(_UNITS) - 1 and size_bytes >= 1024 ** (step + 1):
        step += 1
    tenths = size_bytes * 10 // 1024**step
    return f"{tenths // 10}{f'.{tenths % 10}' if tenths % 10 else ''} {_UNITS[step]}"


def _available(source: pb.VolumeDiskSource, room: Room) -> int:
    return _whole_blocks(max(room.free + room.taken - source.reserve_bytes, 0))


def _tolerated(source: pb.VolumeDiskSource) -> int:
    percent = min(source.tolerated_shortfall_percent, 100)
    return max(source.capacity_bytes * (100 - percent) // 100, 1)


def _whole_blocks(size_bytes: int) -> int:
    return size_bytes - size_bytes % _BLOCK_BYTES
