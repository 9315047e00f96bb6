"""Volumes that do not answer: who waits for one touches no other, and none for ever."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from podvisor_launcher.storage.bulkheads import Bulkheads, VolumeHangs
from structlog.testing import capture_logs


@pytest.fixture
def server() -> Iterator[threading.Event]:
    """What a volume waits for."""
    it = threading.Event()
    yield it
    it.set()


async def until_answered(bulkheads: Bulkheads, volume: str) -> int:
    async with asyncio.timeout(10):
        while True:
            try:
                return await bulkheads.run_in_thread(volume, lambda: 7, 5)
            except VolumeHangs:
                await asyncio.sleep(0)


async def test_a_volume_that_hangs_is_told_of_once_and_left_alone(server: threading.Event) -> None:
    bulkheads, begun = Bulkheads(), []

    def work() -> bool:
        begun.append(threading.current_thread())
        return server.wait(10)

    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(VolumeHangs, match='Volume "data": its file system does not answer'):
                await bulkheads.run_in_thread("data", work, 0.01)
        assert len(begun) == 1
        assert begun[0].daemon  # the end of the process waits for no volume
        assert await bulkheads.run_in_thread("other", lambda: 7, 5) == 7
        server.set()
        assert await until_answered(bulkheads, "data") == 7
    assert [(each["event"], each["hanging"]) for each in logs] == [
        ("a volume does not answer", 1),
        ("a volume answers again", 0),
    ]


async def test_there_is_an_end_to_how_many_threads_hang(server: threading.Event) -> None:
    bulkheads = Bulkheads(most=2)
    for volume in ("a", "b"):
        with pytest.raises(VolumeHangs):
            await bulkheads.run_in_thread(volume, lambda: server.wait(10), 0.01)
    with pytest.raises(VolumeHangs):
        await bulkheads.run_in_thread("c", lambda: 7, 5)
    server.set()
    assert await until_answered(bulkheads, "c") == 7


async def test_what_goes_wrong_is_told_to_whoever_waits() -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        await Bulkheads().run_in_thread("data", fail, 5)
