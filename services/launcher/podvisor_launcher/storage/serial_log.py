"""Keeps the serial log small: a guest may print for ever, and the log's directory has a limit.

QEMU appends to the file, so cutting it to nothing is seen by it and by whoever follows the file.
"""

import asyncio
import os
from pathlib import Path

LIMIT_BYTES = 2 << 20  # half of what is promised: the guest prints on between two looks
_INTERVAL_S = 1.0


async def bound_serial_log(path: Path) -> None:
    """Cut the log at `path` whenever it has grown over the limit, until cancelled."""
    while True:
        cut_if_too_long(path)
        await asyncio.sleep(_INTERVAL_S)


def cut_if_too_long(path: Path) -> bool:
    """Cut the log if it is over the limit. Returns whether it was."""
    try:
        if path.stat().st_size <= LIMIT_BYTES:
            return False
        os.truncate(path, 0)
    except FileNotFoundError:
        return False
    return True
