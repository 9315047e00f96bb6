"""The work queue: deduplication, exclusion, delays, rate limits. All in virtual time."""

import asyncio

import pytest
from podvisor_common.aio.backoff import Backoff
from podvisor_common.kube.queue import WorkQueue

from tests.unit.kube.virtual_time import virtual_time


def exact_queue() -> WorkQueue[str]:
    return WorkQueue("test", backoff=lambda: Backoff(0.005, 2.0, 60.0, 0.0))


def now_s() -> float:
    return asyncio.get_running_loop().time()


@virtual_time
async def test_key_waits_at_most_once() -> None:
    queue = exact_queue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 0


@virtual_time
async def test_key_is_never_worked_on_twice_at_once_and_no_change_is_missed() -> None:
    queue = exact_queue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


@virtual_time
async def test_earliest_of_several_delays_counts() -> None:
    queue = exact_queue()
    started_s = now_s()
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    queue.add_after("a", 20)
    queue.add_after("b", 15)
    assert await queue.get() == "a"
    assert now_s() - started_s == pytest.approx(10)
    queue.done("a")
    assert await queue.get() == "b"
    assert now_s() - started_s == pytest.approx(15)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await queue.get()


@virtual_time
async def test_failures_of_a_key_slow_down_that_key_alone() -> None:
    queue = exact_queue()
    waited = []
    for number in range(1, 17):
        started_s = now_s()
        assert queue.add_rate_limited("bad") == number
        assert await queue.get() == "bad"
        waited.append(now_s() - started_s)
        queue.done("bad")
    assert waited[:3] == pytest.approx([0.005, 0.01, 0.02])
    assert waited[-1] == pytest.approx(60)
    started_s = now_s()
    queue.add_rate_limited("other")
    assert await queue.get() == "other"
    assert now_s() - started_s == pytest.approx(0.005)
    queue.forget("bad")
    assert queue.failures("bad") == 0
    assert queue.add_rate_limited("bad", at_least_s=5) == 1
    started_s = now_s()
    assert await queue.get() == "bad"
    assert now_s() - started_s == pytest.approx(5)
    queue.done("bad")
    for _ in range(20):
        queue.add_rate_limited("bad", at_most_s=10)
        started_s = now_s()
        assert await queue.get() == "bad"
        queue.done("bad")
    assert now_s() - started_s == pytest.approx(10)


@virtual_time
async def test_cancelled_waiter_passes_its_turn_on() -> None:
    queue = exact_queue()
    first = asyncio.create_task(queue.get(), name="first")
    second = asyncio.create_task(queue.get(), name="second")
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await second == "a"


@virtual_time
async def test_closed_queue_forgets_its_delays() -> None:
    queue = exact_queue()
    queue.add_after("a", 10)
    queue.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20):
            await queue.get()
