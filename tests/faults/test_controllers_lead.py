"""The leading controller is killed, sleeps, is cut off, or has a clock that jumps, while machines come and go: one writer at all
times, another one within the lease, nothing lost and nothing doubled.

The proof of one writer is the API server's audit log: every write of a controller against every write of the lease.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.audit import assert_one_writer, controller_writes, made
from tests.faults.churn import Churn, churning, each_ran_once
from tests.faults.clock import IDENTITY, replica
from tests.faults.history import History
from tests.faults.measured import Measured
from tests.faults.replicas import (
    INSTALL,
    LEASE,
    all_are_ready,
    cut_off,
    holder_of,
    leader,
    process_of,
    renewed_s,
    stopped,
    until_lease,
)
from tests.perf.measure import audit_mark
from tests.perf.scale.processes import credentials
from tests.support.cluster import Cluster, on_node

LEASE_S = 15.0
# A candidate reads the lease once more and then writes it, with what these two calls take on a busy machine.
TAKE_OVER_S = LEASE_S + 0.5
# The kubelet starts the killed container again, which then has its pod's name and so its pod's lease.
RESTART_S = 15.0
# What a leader that is back could still do wrong.
AFTERMATH_S = 5.0
# A leader looks at its lease every 5 to 6 s.
STAND_DOWN_S = 8.0


@asynccontextmanager
async def one_writer(
    cluster: Cluster, history: History, prefix: str, *, writers: int
) -> AsyncIterator[Churn]:
    """The proof, around a body in which the leader comes to harm while machines come and go."""
    await all_are_ready()
    mark = audit_mark()
    async with churning(cluster, history, prefix) as churn:
        await churn.more(1)
        yield churn
        await churn.more(1)
    await all_are_ready()
    writes = controller_writes(mark, outsider=IDENTITY)
    assert len(assert_one_writer(writes)) == writers
    each_ran_once(churn)
    for resource in ("virtualmachineinstances", "pods"):
        created = made(writes, cluster.namespace, resource)
        assert set(created.values()) == {1}, created
        assert len(created) == len(churn.names), created


async def _another_leads(old: str, since_s: float) -> float:
    """Wait until another replica has the lease; how long after `since_s` that was, in seconds."""
    await until_lease(
        lambda lease: holder_of(lease) not in ("", old), within_s=40, what=f"not {old} leads"
    )
    return time.time() - since_s


async def test_killed_leader(cluster: Cluster, history: History, measured: Measured) -> None:
    """kill -9: the container is started again and goes on, since the lease is its pod's."""
    async with one_writer(cluster, history, "killed", writers=1):
        old = await leader()
        await on_node("kill", "-9", str(await process_of(old)))
        struck_s = time.time()
        await until_lease(
            lambda lease: holder_of(lease) == old and renewed_s(lease) > struck_s,
            within_s=RESTART_S * 2,
            what="the pod leads again",
        )
        measured.add("leader killed, leads again", time.time() - struck_s, limit_s=RESTART_S)


@pytest.mark.long
async def test_sleeping_leader(cluster: Cluster, history: History, measured: Measured) -> None:
    """SIGSTOP until another leads, then SIGCONT: the old one wakes up in the middle of its work and does none of it."""
    async with one_writer(cluster, history, "asleep", writers=2) as churn:
        old = await leader()
        async with stopped(await process_of(old)):
            took_s = await _another_leads(old, time.time())
            await churn.more(1)
        # The time is the subject: what the old leader does now that it should not.
        await asyncio.sleep(AFTERMATH_S)
    measured.add("leader asleep, another leads", took_s, limit_s=TAKE_OVER_S)


@pytest.mark.parametrize(
    "answers_only",
    [
        pytest.param(False, id="both-ways"),
        pytest.param(True, id="answers-only", marks=pytest.mark.long),
    ],
)
async def test_leader_cut_off(
    cluster: Cluster, history: History, measured: Measured, answers_only: bool
) -> None:
    """No packet between the leader and the API server, or none of its answers: another leads before the cut heals."""
    prefix = "half" if answers_only else "cut"
    async with one_writer(cluster, history, prefix, writers=2) as churn:
        old = await leader()
        async with cut_off(await process_of(old), answers_only=answers_only):
            took_s = await _another_leads(old, time.time())
            await churn.more(1)
        await asyncio.sleep(AFTERMATH_S)
    limit_s = TAKE_OVER_S + (10.0 if answers_only else 0.0)
    measured.add(f"leader cut off ({prefix}), another leads", took_s, limit_s=limit_s)


@pytest.mark.long
async def test_jumping_clock(cluster: Cluster, history: History, tmp_path: Path) -> None:
    """The leader's wall clock jumps an hour ahead, then two hours back: it leads on, and does its work as before."""
    deployment = await INSTALL.get("deployment", LEASE)
    assert deployment is not None
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    (image,) = [one["value"] for one in variables if one["name"] == "LAUNCHER_IMAGE"]
    config = await credentials(tmp_path / "kubeconfig", "virt-controller")
    mark = audit_mark()
    async with one_writer(cluster, history, "clock", writers=3) as churn:
        # Nobody takes over before ours has started, which is not before the installed leader has noticed.
        spec = {"holderIdentity": IDENTITY, "leaseDurationSeconds": 60}
        await INSTALL.kubectl(
            "patch", "lease", LEASE, "--type=merge", "-p", json.dumps({"spec": spec})
        )
        await asyncio.sleep(STAND_DOWN_S)
        async with replica(tmp_path, config, image) as clock:
            await until_lease(
                lambda lease: (
                    holder_of(lease) == IDENTITY
                    and (lease or {})["spec"]["leaseDurationSeconds"] != 60
                ),
                within_s=60,
                what="the replica with the jumping clock leads",
            )
            await churn.more(1)
            for offset_s in (3600, -3600):
                clock.jump(offset_s)
                await churn.more(2)
            assert await leader() == IDENTITY
        await _another_leads(IDENTITY, time.time())
    led = [
        write for write in controller_writes(mark, outsider=IDENTITY) if write.writer == IDENTITY
    ]
    assert len([write for write in led if write.resource == "leases"]) > 2
