"""Memory that the C library keeps although nobody uses it.

Invariant: nothing but the allocator's own free memory is touched. Buffers of connections that come and go leave holes in its heap,
which the C library gives back only from the end: in a process that lives for months the holes add up.
"""

import asyncio
import ctypes

GIVE_BACK_EVERY_S = 60.0


async def give_back_memory() -> None:
    """Give what is free back to the kernel once a minute, until cancelled. Takes some milliseconds a time; with a C library
    that knows no malloc_trim(3), nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while trim is not None:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        trim(ctypes.c_size_t(0))
