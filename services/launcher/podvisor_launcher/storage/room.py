"""Whether there is room to write. What a full disk breaks is waited for: it is no fault of the machine's."""

import os
from pathlib import Path

# An overlay begins with 0.2 MiB and a cloud-init image with 0.4; a guest that is let go on shall get somewhere.
_ENOUGH_BYTES = 16 << 20
# A volume may be small, and less of it than that may be all that its guest waits for.
_ENOUGH_OF_VOLUME_BYTES = 1 << 20


def has_room(directory: Path) -> bool:
    """Whether files in `directory` can grow. Raises OSError."""
    found = os.statvfs(directory)
    has_names = found.f_files == 0 or found.f_favail > 0  # some file systems do not count them
    return has_names and _free_bytes(found) >= _ENOUGH_BYTES


def volume_has_room(image: Path) -> bool:
    """Whether the file system of `image` has space for more of it. Raises OSError."""
    return _free_bytes(os.statvfs(image)) >= _ENOUGH_OF_VOLUME_BYTES


def _free_bytes(found: os.statvfs_result) -> int:
    return found.f_bavail * found.f_frsize
