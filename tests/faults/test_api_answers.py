"""The API server answers podvisor with errors, slowly, or not at all, while users and the kubelet reach it: guests do not notice,
machines come and go all the same, and nobody asks more often than is good for it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.api_away import restarts
from tests.faults.api_detour import behind_a_proxy, lost_connections
from tests.faults.api_proxy import (
    Answer,
    ApiProxy,
    Call,
    Fault,
    LostAnswer,
    Reset,
    Silence,
    Slow,
)
from tests.faults.api_scene import handed_over
from tests.faults.audit import ledger
from tests.faults.churn import churning, each_ran_once
from tests.faults.guest import lived_on, witness_of
from tests.faults.history import History
from tests.faults.measured import Measured
from tests.faults.replicas import all_are_ready
from tests.perf.measure import audit_mark
from tests.support.cluster import ROOT, Cluster
from tests.support.machine import Machine, vmi

RETRY_AFTER_S = 3
ANSWERS: tuple[Fault, ...] = (
    Answer(429, retry_after_s=RETRY_AFTER_S, reason="TooManyRequests"),
    Answer(500, reason="InternalError"),
    Answer(503, reason="ServiceUnavailable"),
    Slow(10.0),
    Reset(),
    LostAnswer(),
)
SHORT_S = 5.0
# An idle connection is probed after 15 s, and lost 5 s later: first the controller's, at the latest then the handler's. And a start.
HALF_OPEN_S = 45.0
LONG_S = 60.0
# After a silence, with nothing acknowledged by an application, a watch is given up when its bookmark is overdue.
CAUGHT_UP_S: dict[type[Fault], float] = {Silence: 100.0}
CAUGHT_UP_OTHERWISE_S = 30.0
LOOKED_AT_S = 10.0
PATIENCE_S = 120.0
WRITES_PER_MACHINE = 2
# Of all processes together: nine caches and an election in each of two controllers, two caches and a heartbeat in a handler, and
# what a few machines have to say.
CALLS_PER_S = 15.0


def _name(fault: Fault) -> str:
    status = f"-{fault.status}" if isinstance(fault, Answer) else ""
    return f"{type(fault).__name__.lower()}{status}"


@pytest.fixture
async def proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivor: Machine
) -> AsyncIterator[ApiProxy]:
    """Between podvisor and the API server; nothing was restarted for what it did."""
    monkeypatch.setenv("KUBECONFIG", str(ROOT / ".dev/kubeconfig"))
    await all_are_ready()
    restarted = await restarts()
    async with behind_a_proxy(tmp_path) as proxy:
        yield proxy
    assert await restarts() == restarted


@pytest.mark.timeout(400)
async def test_one_fault_after_the_other(
    cluster: Cluster, survivor: Machine, proxy: ApiProxy, history: History, measured: Measured
) -> None:
    """Machines come and go meanwhile: each runs exactly once."""
    before = await witness_of(survivor)
    async with churning(cluster, history, "faulty", patience_s=PATIENCE_S) as churn:
        await churn.more(1)
        for fault in ANSWERS:
            began = len(proxy.calls)
            async with proxy.faulty(fault):
                # The time itself is the subject.
                await asyncio.sleep(SHORT_S)
            _was_asked_with_care(proxy.calls[began:], fault, SHORT_S)
        over_s = time.monotonic()
        await churn.more(2)
        measured.add("API faults in a row, machines again", time.monotonic() - over_s, limit_s=90)
    each_ran_once(churn)
    await lived_on(survivor, before)
    assert history.phases("vmi", survivor.name) == {"Running"}, history


@pytest.mark.timeout(300)
async def test_half_open_connections(
    cluster: Cluster, survivor: Machine, history: History, measured: Measured
) -> None:
    """The other end has lost them: no watch tells anything any more, and that is noticed."""
    await all_are_ready()
    restarted, before = await restarts(), await witness_of(survivor)
    name = "meanwhile"
    async with lost_connections():
        began_s = time.time()
        await cluster.apply(vmi(name))
        ran = await history.first(
            "vmi", name, lambda seen: seen.phase == "Running", within_s=120, what="Running"
        )
    measured.add("half-open to the API, new VMI Running", ran.at_s - began_s, limit_s=HALF_OPEN_S)
    await lived_on(survivor, before)
    assert history.phases("vmi", survivor.name) == {"Running"}, history
    assert await restarts() == restarted
    await cluster.kubectl("delete", "vmi", name, "--timeout=30s")


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("fault", [*ANSWERS, Silence()], ids=_name)
async def test_fault_for_a_minute(
    cluster: Cluster,
    survivor: Machine,
    proxy: ApiProxy,
    history: History,
    measured: Measured,
    fault: Fault,
) -> None:
    """What was handed over goes on; what is to be said is said afterwards, without a storm."""
    scene = await handed_over(cluster, history, survivor, _name(fault))
    began, began_s = len(proxy.calls), time.monotonic()
    async with proxy.faulty(fault):
        await scene.meanwhile()
        await asyncio.sleep(max(0.0, began_s + LONG_S - time.monotonic()))
    mark, back_s = audit_mark(), time.time()
    _was_asked_with_care(proxy.calls[began:], fault, time.monotonic() - began_s)
    await asyncio.sleep(LOOKED_AT_S)
    first = ledger(mark)
    print(f"writes {dict(first.writes)}; events {first.events}; lists {dict(first.lists)}")
    limit_s = CAUGHT_UP_S.get(type(fault), CAUGHT_UP_OTHERWISE_S)
    caught_up_s = await scene.afterwards(back_s, within_s=limit_s + 30)
    await scene.clear()
    measured.add(f"API {_name(fault)} for 60 s, all right", caught_up_s, limit_s=limit_s)
    assert first.writes.total() <= WRITES_PER_MACHINE * len(scene.machines), first


def _was_asked_with_care(calls: list[Call], fault: Fault, for_s: float) -> None:
    """The rate of calls is bounded, and nobody comes back sooner than was asked for."""
    calls = [call for call in calls if call.fault == fault]
    by_agent = Counter(call.agent for call in calls)
    print(f"{_name(fault)}: {len(calls)} calls in {for_s:.0f} s {dict(by_agent)}")
    assert calls, "nobody was concerned"
    assert len(calls) <= CALLS_PER_S * for_s, by_agent
    if isinstance(fault, Answer) and fault.retry_after_s:
        last: dict[tuple[int, str], float] = {}
        for call in calls:
            if call.is_watch:
                who = (call.token, call.path)
                assert call.at_s - last.get(who, 0.0) >= fault.retry_after_s, call
                last[who] = call.at_s
