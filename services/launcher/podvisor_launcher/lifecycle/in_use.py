"""An image that another QEMU holds, told by the words of the QEMU that wanted it.

QEMU ends with these words and no code, and libvirt passes them on under the code of every other start that fails. So a text
decides here, and nothing hangs on it but the reason that is told and how long it is tried: a text that is not known counts as any
other failure.
"""

import re
from collections.abc import Mapping

from podvisor_launcher.domain.disks import ALIAS_PREFIX, ResolvedDisk

_LOCKED = re.compile(
    r'Failed to get (?:shared )?"(?:write|consistent read|resize|write unchanged)" lock'
)
_IMAGE = re.compile(r"Is another process using the image \[(?P<path>[^\n]*)\]\?")
# A device's name in QEMU's options, of which there are two spellings: id=ua-root and "id":"ua-root".
_DEVICE = re.compile(rf'\bid"?[=:]"?{ALIAS_PREFIX}(?P<name>[a-z0-9.-]+)')


def is_about_use(words: str) -> bool:
    """Whether QEMU did not get an image because another one has it."""
    return bool(_LOCKED.search(words))


def message_of_use(words: str, disks: Mapping[str, ResolvedDisk]) -> str | None:
    """The sentence for a start that failed with `words` because an image of `disks` is in use; None for any other failure."""
    if not is_about_use(words):
        return None
    name = _disk_in(words, disks)
    which = f'Volume "{name}"' if name else "A volume"
    return f"{which} is in use by another machine; this one starts when it is free."


def _disk_in(words: str, disks: Mapping[str, ResolvedDisk]) -> str | None:
    if image := _IMAGE.search(words):
        for name, disk in disks.items():
            below = disk.backing.path if disk.backing is not None else None
            if image["path"] in (disk.image.path, below):
                return name
    device = _DEVICE.search(words)
    return device["name"] if device and device["name"] in disks else None
