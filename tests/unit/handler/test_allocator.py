"""Holes in the heap are given back."""

import asyncio
from pathlib import Path

import pytest
from podvisor_handler.linux import allocator


def resident_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


async def test_holes_between_what_is_used_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "GIVE_BACK_EVERY_S", 0.01)
    blocks = [bytes([number % 256]) * 12_000 for number in range(4000)]
    del blocks[::2]
    before_kib = resident_kib()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await allocator.give_back_memory()
    # Of 24 MB that are free, whole pages only.
    assert resident_kib() < before_kib - 12_000
    assert len(blocks) == 2000
