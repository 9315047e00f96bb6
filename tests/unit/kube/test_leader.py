"""Leader election against a fake API server, with clocks that jump. All in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.leader import LeaderElection, LeadershipLost, LeadingTaskStuck
from podvisor_common.kube.resources import LEASES, ObjectKey

from tests.unit.kube.fake_apiserver import Cut, End, FakeApiServer, Gone, Refuse, Stall, WatchFault
from tests.unit.kube.virtual_time import jump, virtual_time

KEY = ObjectKey("kubevirt", "virt-controller")
START_S = 1000.0  # where virtual time begins
T0 = datetime(2026, 3, 1, tzinfo=UTC)


def now_s() -> float:
    return asyncio.get_running_loop().time()


class Candidate:
    """One replica: its election, its leading task, when it led, and its own wall clock, which `wall` sets."""

    def __init__(self, client: KubeClient, identity: str, *, wall: datetime = T0) -> None:
        self.wall = wall
        self.election = LeaderElection(
            client, KEY.namespace, KEY.name, identity, wall_clock=self.now
        )
        self.began_s: float | None = None
        self.ended_s: float | None = None
        self.leads = asyncio.Event()
        self.task = asyncio.create_task(self.election.run(self.lead), name=identity)

    def now(self) -> datetime:
        return self.wall + timedelta(seconds=now_s() - START_S)

    async def lead(self) -> None:
        self.began_s = now_s()
        self.leads.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended_s = now_s()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[FakeApiServer, KubeClient, KubeClient]]:
    async with (
        FakeApiServer() as server,
        KubeClient.for_url(server.url, user_agent="a") as client_a,
        KubeClient.for_url(server.url, user_agent="b") as client_b,
    ):
        yield server, client_a, client_b


def lease(server: FakeApiServer) -> dict[str, Any]:
    stored = server.get(LEASES, KEY)
    assert stored is not None
    spec: dict[str, Any] = stored["spec"]
    return spec


def put_lease(server: FakeApiServer, holder: str, renewed: datetime) -> None:
    server.put(
        LEASES,
        {
            "metadata": {"namespace": KEY.namespace, "name": KEY.name, "labels": {"mine": "x"}},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": 15,
                "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "leaseTransitions": 4,
            },
        },
    )


@virtual_time
async def test_first_candidate_leads_and_renews() -> None:
    async with cluster() as (server, client, _):
        a = Candidate(client, "a")
        await a.leads.wait()
        assert a.election.is_leader
        made = lease(server)
        assert made["acquireTime"] == made["renewTime"]
        assert made["acquireTime"].startswith("2026-03-01T00:00:00.")
        assert made["holderIdentity"] == "a"
        assert (made["leaseDurationSeconds"], made["leaseTransitions"]) == (15, 0)
        await asyncio.sleep(120)
        assert a.election.is_leader
        assert lease(server)["acquireTime"] == made["acquireTime"]
        assert lease(server)["renewTime"] > "2026-03-01T00:01:53"
        writes = [request for request in server.requests if request.method == "PATCH"]
        assert 20 <= len(writes) <= 24
        await a.stop()


@virtual_time
async def test_released_lease_is_taken_over_at_once() -> None:
    async with cluster() as (server, client_a, client_b):
        a = Candidate(client_a, "a")
        await a.leads.wait()
        b = Candidate(client_b, "b")
        await asyncio.sleep(60)
        assert not b.leads.is_set()
        stopped_s = now_s()
        await a.stop()
        assert a.task.cancelled()
        assert not a.election.is_leader
        assert "holderIdentity" not in lease(server)
        await b.leads.wait()
        assert now_s() - stopped_s < 0.5
        assert lease(server)["holderIdentity"] == "b"
        assert lease(server)["leaseTransitions"] == 1
        await b.stop()


@virtual_time
@pytest.mark.parametrize("skew", [timedelta(hours=-3), timedelta(0), timedelta(hours=3)], ids=str)
async def test_dead_holder_is_succeeded_after_the_time_seen_here(skew: timedelta) -> None:
    """Whatever the wall clocks of the old holder and of the candidate say."""
    async with cluster() as (server, client, _):
        put_lease(server, "dead", T0 + skew)
        started_s = now_s()
        b = Candidate(client, "b")
        await asyncio.sleep(7)
        b.wall += timedelta(days=400)
        await b.leads.wait()
        assert 15 <= now_s() - started_s < 15.5
        assert lease(server)["leaseTransitions"] == 5
        stored = server.get(LEASES, KEY)
        assert stored is not None
        assert stored["metadata"]["labels"] == {"mine": "x"}
        await b.stop()


@virtual_time
async def test_killed_leader_is_succeeded_within_the_lease() -> None:
    """Counted from any moment after its last renewal, which a candidate sees when it is made and not when it looks again."""
    async with cluster() as (server, client, _):
        put_lease(server, "mortal", T0)
        b = Candidate(client, "b")
        for second in range(1, 30, 4):
            await asyncio.sleep(4)
            put_lease(server, "mortal", T0 + timedelta(seconds=second))
        renewed_s = now_s()
        await b.leads.wait()
        assert 15 <= now_s() - renewed_s < 15.5
        await b.stop()


@virtual_time
@pytest.mark.parametrize("fault", [Gone(), End(), Cut(), Stall()], ids=lambda f: type(f).__name__)
async def test_candidate_whose_watch_breaks_still_follows(fault: WatchFault) -> None:
    async with cluster() as (server, client, _):
        put_lease(server, "mortal", T0)
        server.watch_faults.append(fault)
        b = Candidate(client, "b")
        for second in range(1, 30, 4):
            await asyncio.sleep(4)
            put_lease(server, "mortal", T0 + timedelta(seconds=second))
            assert not b.leads.is_set()
        renewed_s = now_s()
        await b.leads.wait()
        assert 15 <= now_s() - renewed_s < 17
        await b.stop()


@virtual_time
async def test_lease_that_is_deleted_is_made_anew() -> None:
    async with cluster() as (server, client, _):
        put_lease(server, "mortal", T0)
        started_s = now_s()
        b = Candidate(client, "b")
        await asyncio.sleep(4)
        server.remove(LEASES, KEY)
        await b.leads.wait()
        assert 15 <= now_s() - started_s < 17  # its holder may still be at work
        await b.stop()


@virtual_time
async def test_candidate_that_slept_looks_again_before_it_takes_over() -> None:
    async with cluster() as (server, _a, client_b):
        put_lease(server, "alive", T0)
        b = Candidate(client_b, "b")
        await asyncio.sleep(4)
        put_lease(server, "alive", T0 + timedelta(seconds=1))
        jump(3600)
        jumped_s = now_s()
        await b.leads.wait()
        assert 15 <= now_s() - jumped_s < 15.5
        await b.stop()


@virtual_time
async def test_restarted_holder_goes_on_at_once() -> None:
    async with cluster() as (server, client, _):
        put_lease(server, "a", T0)
        started_s = now_s()
        a = Candidate(client, "a")
        await a.leads.wait()
        assert now_s() - started_s < 1
        assert lease(server)["leaseTransitions"] == 4
        await a.stop()


@virtual_time
async def test_leader_without_api_server_stops_before_anybody_can_follow() -> None:
    async with cluster() as (server, client_a, client_b):
        a = Candidate(client_a, "a")
        await a.leads.wait()
        b = Candidate(client_b, "b")
        await asyncio.sleep(22)
        last_renewal_s = now_s()
        server.hang_for.add("a")
        with pytest.raises(LeadershipLost):
            await a.task
        assert a.ended_s is not None
        assert now_s() - last_renewal_s < 12
        await b.leads.wait()
        assert b.began_s is not None
        assert a.ended_s + 2 < b.began_s
        await b.stop()


@virtual_time
async def test_clock_that_jumps_ends_leadership_at_once() -> None:
    async with cluster() as (_, client, _b):
        a = Candidate(client, "a")
        await a.leads.wait()
        assert a.election.is_leader
        jump(60)
        assert not a.election.is_leader
        jumped_s = now_s()
        with pytest.raises(LeadershipLost):
            await a.task
        assert a.ended_s is not None
        assert a.ended_s - jumped_s < 0.1


@virtual_time
async def test_wall_clock_that_jumps_changes_nothing() -> None:
    async with cluster() as (server, client_a, client_b):
        a = Candidate(client_a, "a")
        await a.leads.wait()
        b = Candidate(client_b, "b", wall=T0 + timedelta(days=1))
        for hours in (5, -20, 30):
            a.wall += timedelta(hours=hours)
            b.wall -= timedelta(hours=hours)
            await asyncio.sleep(40)
            assert a.election.is_leader
            assert not b.leads.is_set()
        assert lease(server)["leaseTransitions"] == 0
        await a.stop()
        await b.stop()


@virtual_time
async def test_stolen_lease_ends_leadership_at_the_next_renewal() -> None:
    async with cluster() as (server, client, _):
        a = Candidate(client, "a")
        await a.leads.wait()
        put_lease(server, "thief", T0)
        stolen_s = now_s()
        with pytest.raises(LeadershipLost):
            await a.task
        assert now_s() - stolen_s < 7
        assert lease(server)["holderIdentity"] == "thief"


@virtual_time
async def test_leadership_survives_a_foreign_change_and_short_failures() -> None:
    async with cluster() as (server, client, _):
        a = Candidate(client, "a")
        await a.leads.wait()
        for _ in range(5):
            stored = server.get(LEASES, KEY)
            assert stored is not None
            server.put(LEASES, {**stored, "metadata": {**stored["metadata"], "labels": {"x": "y"}}})
            server.refusals.append(Refuse(503, "ServiceUnavailable"))
            await asyncio.sleep(20)
        assert a.election.is_leader
        await a.stop()


@virtual_time
@pytest.mark.parametrize("cause", ["lost", "stopped"])
async def test_work_that_does_not_end_is_reported_as_such(cause: str) -> None:
    async with cluster() as (server, client, _):
        end = asyncio.Event()

        async def stubborn() -> None:
            while not end.is_set():
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    continue

        election = LeaderElection(client, KEY.namespace, KEY.name, "a", wall_clock=lambda: T0)
        task = asyncio.create_task(election.run(stubborn), name="a")
        await asyncio.sleep(30)
        if cause == "lost":
            put_lease(server, "thief", T0)
        else:
            task.cancel()
        with pytest.raises(LeadingTaskStuck):
            await task
        assert lease(server)["holderIdentity"] == ("thief" if cause == "lost" else "a")
        end.set()


@virtual_time
async def test_work_that_ends_or_fails_releases_the_lease() -> None:
    async with cluster() as (server, client, _):

        async def succeed() -> None:
            await asyncio.sleep(20)

        async def fail() -> None:
            raise RuntimeError("broken")

        election = LeaderElection(client, KEY.namespace, KEY.name, "a", wall_clock=lambda: T0)
        await election.run(succeed)
        assert "holderIdentity" not in lease(server)
        with pytest.raises(RuntimeError, match="broken"):
            await election.run(fail)
        assert "holderIdentity" not in lease(server)


async def test_times_that_allow_two_leaders_are_refused(client: KubeClient) -> None:
    with pytest.raises(ValueError, match="lease_s"):
        LeaderElection(client, "x", "y", "z", lease_s=10, renew_deadline_s=10)
