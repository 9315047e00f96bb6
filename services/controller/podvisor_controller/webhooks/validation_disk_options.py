"""What is wrong with the way a disk is handled: its serial number, caching, errors, sectors. Pure."""

import re
from collections.abc import Iterator

from podvisor_common.api import v1

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    has_control,
    invalid,
    word_causes,
)

_SERIAL = re.compile(r"[A-Za-z0-9_.+-]*")
_MAX_SERIAL_LENGTH = 256
_NO_CACHE = "none"
_CACHES = (_NO_CACHE, "writethrough", "writeback")
_NATIVE = "native"
_IO_MODES = (_NATIVE, "threads")
_ERROR_POLICIES = ("stop", "ignore", "report", "enospace")
_TRAYS = ("open", "closed")
_SECTOR_BYTES = 512
_LARGEST_BLOCK_BYTES = 2 * 1024**2
_MOST_GRANULARITY = 2**32 - 1


def option_causes(disk: v1.Disk, bus: str, field: str) -> Iterator[Cause]:
    """Checks everything about a disk but its name, its target and its volume. `bus` is the one it will be on."""
    yield from _serial_causes(disk.serial, f"{field}.serial")
    if has_control(disk.tag):
        yield invalid(f"{field}.tag", "must not have control characters.")
    yield from word_causes(disk.cache, f"{field}.cache", _CACHES)
    yield from word_causes(disk.io, f"{field}.io", _IO_MODES)
    yield from word_causes(disk.error_policy, f"{field}.errorPolicy", _ERROR_POLICIES)
    if disk.cdrom is not None:
        yield from word_causes(disk.cdrom.tray, f"{field}.cdrom.tray", _TRAYS)
    if disk.cache in _CACHES and disk.cache != _NO_CACHE:
        if disk.io == _NATIVE:
            yield invalid(f"{field}.io", f"is native, which needs cache none, not {disk.cache}.")
        if disk.shareable:
            text = f"is true, which needs cache none, not {disk.cache}: other nodes do not see what one caches."
            yield invalid(f"{field}.shareable", text)
    if disk.dedicated_io_thread and bus != "virtio":
        text = f"is true, which disks on bus virtio can have, not one on {bus}."
        yield invalid(f"{field}.dedicatedIOThread", text)
    if disk.block_size is not None:
        yield from _block_size_causes(disk.block_size, bus, f"{field}.blockSize")


def _serial_causes(serial: str, field: str) -> Iterator[Cause]:
    if not _SERIAL.fullmatch(serial):
        text = "must be made up of the following characters [A-Za-z0-9_.+-], if specified"
        yield invalid(field, text)
    elif len(serial) > _MAX_SERIAL_LENGTH:
        text = f"must be less than or equal to {_MAX_SERIAL_LENGTH} in length, if specified"
        yield invalid(field, text)


def _block_size_causes(size: v1.BlockSize, bus: str, field: str) -> Iterator[Cause]:
    if size.custom is None and size.match_volume is None:
        yield invalid(field, "must have exactly one of custom and matchVolume, not none.")
    if size.custom is None:
        return
    if size.match_volume is not None and size.match_volume.enabled is not False:
        yield invalid(field, "must have exactly one of custom and matchVolume, not both.")
    yield from _custom_size_causes(size.custom, bus, f"{field}.custom")


def _custom_size_causes(size: v1.CustomBlockSize, bus: str, field: str) -> Iterator[Cause]:
    sizes = (("logical", size.logical), ("physical", size.physical))
    bad = [name for name, value in sizes if not _is_block_size(value)]
    for name in bad:
        text = f"must be a power of 2 between {_SECTOR_BYTES} and {_LARGEST_BLOCK_BYTES}."
        yield invalid(f"{field}.{name}", text)
    if bad:
        return
    if size.logical > size.physical:
        text = f"is {size.logical}, which must be the same or less than the physical size of {size.physical}."
        yield invalid(f"{field}.logical", text)
    if bus == "sata" and size.logical != _SECTOR_BYTES:
        text = f"is {size.logical}, which must be {_SECTOR_BYTES} for a disk on bus sata."
        yield invalid(f"{field}.logical", text)
    granularity = size.discard_granularity
    if granularity is not None and not (
        0 <= granularity <= _MOST_GRANULARITY and granularity % size.logical == 0
    ):
        text = f"is {granularity}, which must be a multiple of the logical size of {size.logical}."
        yield invalid(f"{field}.discardGranularity", text)


def _is_block_size(size: int) -> bool:
    is_power_of_two = size > 0 and size & (size - 1) == 0
    return is_power_of_two and _SECTOR_BYTES <= size <= _LARGEST_BLOCK_BYTES
