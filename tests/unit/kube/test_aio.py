"""aio: backoff and the life of a service."""

import asyncio
import gc
import os
import signal

import pytest
from podvisor_common.aio.backoff import Backoff
from podvisor_common.aio.tasks import run_service, spawn


def test_backoff_grows_to_its_limit_and_starts_again() -> None:
    backoff = Backoff(0.5, 2.0, 3.0, 0.5, rand=lambda: 0.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_s() == 0.5


def test_backoff_is_lengthened_by_its_jitter_and_never_shortened() -> None:
    assert Backoff(1.0, jitter=0.5, rand=lambda: 1.0).next_s() == 1.5
    assert all(1.0 <= Backoff(1.0, jitter=0.5).next_s() < 1.5 for _ in range(100))


def test_backoff_within_the_bounds_of_one_attempt() -> None:
    backoff = Backoff(1.0, 2.0, 60.0, 0.5, rand=lambda: 1.0)
    assert backoff.next_s(at_least_s=10.0) == 15.0
    assert [backoff.next_s(at_most_s=5.0) for _ in range(4)] == [3.0, 6.0, 7.5, 7.5]
    # They do not change how it grows.
    assert backoff.next_s() == 48.0


def test_first_signal_asks_the_service_to_stop() -> None:
    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

    assert run_service(main) == 0


def test_second_signal_cancels_a_service_that_does_not_stop() -> None:
    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    assert run_service(main) == 0


def test_what_was_imported_is_not_collected_again_and_again() -> None:
    frozen = 0

    async def main(stop: asyncio.Event) -> None:
        nonlocal frozen
        frozen = gc.get_freeze_count()

    try:
        assert run_service(main) == 0
        assert frozen > 10_000
    finally:
        gc.unfreeze()


def test_failure_of_a_service_is_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    async def main(stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            assert spawn(group, fail(), name="failing").get_name() == "failing"

    assert run_service(main) == 1
    assert "broken" in capsys.readouterr().out
