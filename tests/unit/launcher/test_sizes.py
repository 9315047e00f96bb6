"""How large images are made."""

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.storage.errors import Unusable
from podvisor_launcher.storage.sizes import (
    Room,
    TooLittleSpace,
    in_words,
    size_to_grow,
    size_to_make,
)

MIB, GIB = 1 << 20, 1 << 30
RESERVE = 131072


def volume(capacity_bytes: int) -> pb.VolumeDiskSource:
    return pb.VolumeDiskSource(
        capacity_bytes=capacity_bytes, tolerated_shortfall_percent=10, reserve_bytes=RESERVE
    )


@pytest.mark.parametrize(
    ("situation", "capacity", "free", "size"),
    [
        ("room for all", GIB, 100 * GIB, GIB),
        ("just room for all", GIB, GIB + RESERVE, GIB),
        ("all but the reserve", GIB, GIB, GIB - RESERVE),
        ("what a file system takes for itself", GIB, 950 * MIB, 950 * MIB - RESERVE),
        ("no whole block", GIB, 950 * MIB + 4095, 950 * MIB - RESERVE),
        ("a tenth less", 1000 * MIB, 900 * MIB + RESERVE, 900 * MIB),
        ("a capacity that is no whole block", 1_000_000_000, 100 * GIB, 999_997_440),
    ],
)
def test_a_new_image_has_what_there_is_room_for(
    situation: str, capacity: int, free: int, size: int
) -> None:
    assert size_to_make(volume(capacity), Room(free)) == size


def test_less_than_is_tolerated_is_an_error_with_its_numbers() -> None:
    with pytest.raises(TooLittleSpace) as caught:
        size_to_make(volume(2 * GIB), Room(900 * MIB))
    assert str(caught.value) == (
        "its file system has 900 MiB free and the image shall have 2 GiB; "
        "at most 10 % less is accepted, and 128 KiB are left free"
    )
    with pytest.raises(TooLittleSpace):
        size_to_make(volume(1000 * MIB), Room(900 * MIB + RESERVE - 1))
    with pytest.raises(TooLittleSpace):
        size_to_make(volume(4096), Room(0))


def test_an_unknown_capacity_is_waited_for() -> None:
    with pytest.raises(Unusable, match="not known yet"):
        size_to_make(volume(0), Room(GIB))


@pytest.mark.parametrize(
    ("situation", "capacity", "size", "free", "taken", "grown"),
    [
        ("the capacity is not known", 0, GIB, 100 * GIB, 0, GIB),
        ("as large as it shall be", GIB, GIB, 100 * GIB, 0, GIB),
        ("larger than it shall be", GIB, 2 * GIB, 100 * GIB, 0, 2 * GIB),
        ("the claim has grown", 2 * GIB, GIB, 100 * GIB, 0, 2 * GIB),
        ("and the image is written full", 2 * GIB, GIB, GIB + RESERVE, GIB, 2 * GIB),
        ("there is not all of it", 2 * GIB, GIB, 900 * MIB, GIB, GIB + 900 * MIB - RESERVE),
        ("the file system has not grown yet", 4 * GIB, GIB, 10 * MIB, GIB, GIB),
        (
            "it has what there was, and a little is free",
            GIB,
            950 * MIB,
            5 * MIB,
            950 * MIB,
            950 * MIB,
        ),
        ("something else takes the space", GIB, 950 * MIB, 0, 0, 950 * MIB),
    ],
)
def test_an_image_only_grows(
    situation: str, capacity: int, size: int, free: int, taken: int, grown: int
) -> None:
    assert size_to_grow(volume(capacity), size, Room(free, taken)) == grown


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (2 * GIB - 1, "1.9 GiB"),
        (10 << 40, "10 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words
