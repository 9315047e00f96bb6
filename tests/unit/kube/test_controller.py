"""Controllers: what becomes of a key after each outcome of its reconcile. All in virtual time."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import pytest
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube.controller import Controller, Requeue
from podvisor_common.kube.errors import ApiConflict, ApiUnavailable
from podvisor_common.kube.resources import ObjectKey
from prometheus_client import REGISTRY
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from tests.unit.kube.virtual_time import virtual_time

A, B = ObjectKey("shop", "a"), ObjectKey("shop", "b")
Step = Callable[[], Awaitable[Requeue | None]]


class Bad(Terminal):
    pass


class Later(Retryable):
    pass


async def succeed() -> Requeue | None:
    return None


def fail(error: BaseException) -> Step:
    async def step() -> Requeue | None:
        raise error

    return step


async def run(
    *steps: Step, key: ObjectKey = A, name: str = "test", for_s: float = 1000.0, **options: float
) -> list[float]:
    """Reconcile `key` with one step after the other, then successfully; when each pass began, in seconds."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    passes: list[float] = []
    remaining = list(steps)

    async def reconcile(key: ObjectKey) -> Requeue | None:
        passes.append(loop.time() - started_s)
        return await (remaining.pop(0) if remaining else succeed)()

    controller = Controller(name, reconcile, workers=2, **options)  # type: ignore[arg-type]
    controller.enqueue(key)
    try:
        async with asyncio.timeout(for_s):
            await controller.run()
    except TimeoutError:
        return passes
    raise AssertionError("the controller ended by itself")


def count(result: str, name: str) -> float:
    labels = {"controller": name, "result": result}
    return REGISTRY.get_sample_value("podvisor_reconcile_total", labels) or 0.0


@virtual_time
async def test_success_is_the_end_of_it() -> None:
    assert await run(succeed, name="c-success") == [0.0]
    assert count("success", "c-success") == 1


@virtual_time
async def test_requeue_after() -> None:
    async def requeue() -> Requeue | None:
        return Requeue(30)

    passes = await run(requeue, requeue, name="c-requeue")
    assert [round(at) for at in passes] == [0, 30, 60]
    assert count("requeue_after", "c-requeue") == 2


@virtual_time
async def test_terminal_errors_are_logged_and_not_retried() -> None:
    with capture_logs() as logs:
        assert await run(fail(Bad("no such disk")), name="c-terminal") == [0.0]
    assert [(log["log_level"], log["error"]) for log in logs] == [("error", "no such disk")]
    assert count("terminal", "c-terminal") == 1


@virtual_time
async def test_retryable_errors_are_retried_quietly() -> None:
    with capture_logs() as logs:
        passes = await run(fail(Later()), fail(ApiConflict(409, "Conflict", "moved on")))
    assert len(passes) == 3
    assert passes[-1] < 0.1
    assert {log["log_level"] for log in logs} == {"debug"}


@virtual_time
async def test_lasting_failures_slow_down_and_are_told_now_and_then() -> None:
    with capture_logs() as logs:
        passes = await run(*[fail(Later("not yet"))] * 20, for_s=2000)
    pauses = [after - before for before, after in itertools.pairwise(passes)]
    assert pauses == sorted(pauses[:14]) + pauses[14:]
    assert all(60 <= pause <= 90 for pause in pauses[14:])
    assert [log["failures"] for log in logs if log["log_level"] == "warning"] == [5, 10, 20]


@virtual_time
async def test_retry_after_is_honoured() -> None:
    busy = ApiUnavailable(429, "TooManyRequests", "slow down", retry_after_s=17)
    passes = await run(fail(busy))
    assert len(passes) == 2
    assert 17 <= passes[1] <= 25.5


@virtual_time
async def test_unexpected_errors_are_logged_once_with_their_trace_and_retried() -> None:
    bug = KeyError("bug")
    with capture_logs() as logs:
        passes = await run(fail(bug), fail(bug), fail(bug), name="c-bug")
    assert len(passes) == 4
    assert [log["exc_info"] for log in logs if log["log_level"] == "error"] == [bug]
    assert count("error", "c-bug") == 3


@virtual_time
async def test_cancellation_from_within_does_not_cost_a_worker() -> None:
    passes = await run(*[fail(asyncio.CancelledError())] * 5)
    assert len(passes) == 6


@virtual_time
async def test_hanging_reconcile_is_given_up() -> None:
    async def hang() -> Requeue | None:
        await asyncio.Event().wait()
        return None

    passes = await run(hang, timeout_s=50)
    assert [round(at) for at in passes] == [0, 50]


@virtual_time
async def test_one_key_at_a_time_and_other_keys_meanwhile() -> None:
    running: list[ObjectKey] = []
    most = {A: 0, B: 0}
    overlaps: list[set[ObjectKey]] = []

    async def reconcile(key: ObjectKey) -> Requeue | None:
        running.append(key)
        most[key] = max(most[key], running.count(key))
        overlaps.append(set(running))
        controller.enqueue(key)
        await asyncio.sleep(1)
        running.remove(key)
        return None

    controller = Controller("c-keys", reconcile, workers=4)
    controller.enqueue(A)
    controller.enqueue(B)
    try:
        async with asyncio.timeout(10.5):
            await controller.run()
    except TimeoutError:
        pass
    assert most == {A: 1, B: 1}
    assert {A, B} in overlaps


async def test_keys_with_nothing_to_do_do_not_stop_the_loop() -> None:
    """A backlog that turns out to be no work is gone through with the others' turns in between."""
    done = 0

    async def reconcile(key: ObjectKey) -> Requeue | None:
        nonlocal done
        done += 1
        return None

    controller = Controller("test", reconcile, workers=2)
    for number in range(100):
        controller.enqueue(ObjectKey("shop", str(number)))
    running = asyncio.create_task(controller.run(), name="controller")
    at_once = 0
    async with asyncio.timeout(10):
        while done < 100:
            before = done
            await asyncio.sleep(0)
            at_once = max(at_once, done - before)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert at_once <= 2


@virtual_time
async def test_a_key_does_not_wait_for_long_when_the_api_server_is_back() -> None:
    away = [fail(ApiUnavailable(0, "TransportError", "away")) for _ in range(100)]
    passes = await run(*away, name="c-away", for_s=600)
    pauses = [after - before for before, after in itertools.pairwise(passes)]
    assert max(pauses) <= 15.0
    assert 40 <= len(passes) <= 75


@virtual_time
async def test_keys_told_to_come_later_do_not_come_together() -> None:
    loop = asyncio.get_running_loop()
    passes: list[float] = []

    async def reconcile(key: ObjectKey) -> Requeue | None:
        passes.append(loop.time())
        if len(passes) <= 20:
            raise ApiUnavailable(429, "TooManyRequests", "later", retry_after_s=10.0)
        return None

    controller = Controller("c-later", reconcile, workers=20)
    for number in range(20):
        controller.enqueue(ObjectKey("shop", f"m{number}"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await controller.run()
    again = sorted(at_s - passes[0] for at_s in passes[20:])
    assert len(again) == 20
    assert 10 <= again[0] <= again[-1] <= 15.1
    assert again[-1] - again[0] > 2


@virtual_time
async def test_log_lines_of_a_reconcile_carry_its_object() -> None:
    seen: list[dict[str, object]] = []

    async def look() -> Requeue | None:
        seen.append(dict(get_contextvars()))
        return None

    await run(look, name="c-context")
    assert seen[0].items() >= {"controller": "c-context", "namespace": "shop", "name": "a"}.items()
    assert seen[0]["reconcile_id"]
    assert get_contextvars() == {}


async def test_the_tasks_of_the_loop_are_counted() -> None:
    before = REGISTRY.get_sample_value("podvisor_tasks")
    assert before is not None
    waiting = asyncio.create_task(asyncio.Event().wait(), name="waiting")
    assert REGISTRY.get_sample_value("podvisor_tasks") == before + 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert REGISTRY.get_sample_value("podvisor_tasks") == before
