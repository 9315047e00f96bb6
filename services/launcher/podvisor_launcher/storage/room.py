"""Whether there is room to write. What a full disk breaks is waited for: it is no fault of the machine's."""

import os
from pathlib import Path

# An overlay begins with 0.2 MiB and a cloud-init image with 0.4; a guest that is let go on shall get somewhere.
_ENOUGH_BYTES = 16 << 20


def has_room(directory: Path) -> bool:
    """Whether files in `directory` can grow. Raises OSError."""
    found = os.statvfs(directory)
    has_names = found.f_files == 0 or found.f_favail > 0  # some file systems do not count them
    return has_names and found.f_bavail * found.f_frsize >= _ENOUGH_BYTES
