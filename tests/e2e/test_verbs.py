"""start, stop and restart by the verbs of subresources.kubevirt.io: one after another at once, by force, and by whom."""

import asyncio
import random

import pytest

from tests.e2e.test_run_strategies import says, stops
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, vm
from tests.support.verbs import call, served

NOBODY = 'User "jane" cannot update resource "virtualmachines/{}"'


@pytest.fixture(autouse=True)
async def api(cluster: Cluster) -> None:
    await served(cluster)


async def said(cluster: Cluster, name: str, verb: str, options: Json | None = None) -> str:
    """What a verb of a machine is refused with; empty when it is done."""
    return (await call(cluster, f"virtualmachines/{name}", verb, options or {})).stderr


@pytest.mark.parametrize("strategy", ["Halted", "Manual"])
async def test_each_verb_is_in_force_for_the_next(cluster: Cluster, strategy: str) -> None:
    """Whatever the controllers have done about it meanwhile."""
    name = strategy.lower()
    await cluster.apply(vm(name, run_strategy=strategy, terminationGracePeriodSeconds=1))
    assert "VM is not running" in await said(cluster, name, "stop")
    for _ in range(3):
        assert await said(cluster, name, "start") == ""
        assert await said(cluster, name, "stop") == ""
    await stops(cluster, name)
    assert await said(cluster, name, "start") == ""
    assert await said(cluster, name, "restart") == ""
    machine = Machine(cluster, name)
    first = await machine.running()
    await says(cluster, name, "Running")
    assert "VM is already running" in await said(cluster, name, "start")
    assert await said(cluster, name, "restart") == ""
    second = await machine.running(not_uid=first["metadata"]["uid"])
    await says(cluster, name, "Running")
    assert await said(cluster, name, "stop") == ""
    assert await said(cluster, name, "start", {"paused": True}) == ""
    third = await machine.running(not_uid=second["metadata"]["uid"])
    assert third["spec"]["startStrategy"] == "Paused"
    await says(cluster, name, "Paused")


async def test_a_guest_that_does_not_listen_is_stopped_by_force(cluster: Cluster) -> None:
    """It was asked to shut down and has its time, which a second call cuts short; and a restart by force gives it none."""
    name = "deaf"
    # A guest that is paused does not hear of its power button... nor does one whose firmware still runs.
    await cluster.apply(vm(name, terminationGracePeriodSeconds=600))
    machine = Machine(cluster, name)
    first = await machine.running()
    assert await said(cluster, name, "restart", {"gracePeriodSeconds": 0}) == ""
    await machine.running(not_uid=first["metadata"]["uid"])
    await says(cluster, name, "Running")
    assert await said(cluster, name, "stop") == ""
    assert "shorter graceperiod" in await said(cluster, name, "stop", {"gracePeriod": 600})
    assert await said(cluster, name, "stop", {"gracePeriod": 0}) == ""
    await stops(cluster, name)


async def test_in_any_order_by_many(cluster: Cluster) -> None:
    """Five clients at once, of whom none is refused for anything but what the machine is, and the last word counts."""
    names = [f"crowd-{number}" for number in range(3)]
    for name in names:
        await cluster.apply(vm(name, run_strategy="Halted", terminationGracePeriodSeconds=1))
    dice = random.Random(7)

    async def client() -> None:
        for _ in range(6):
            name, verb = dice.choice(names), dice.choice(("start", "stop", "restart"))
            refused = await said(cluster, name, verb)
            known = ("VM is", "does not support", "shorter graceperiod", "already underway")
            assert not refused or any(words in refused for words in known), refused

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(client(), name=f"client {number}")
    for name in names:
        refused = await said(cluster, name, "start")
        assert not refused or "VM is already running" in refused or "Always" in refused
    for name in names:
        await Machine(cluster, name).running()
        await says(cluster, name, "Running")
        assert await said(cluster, name, "stop") == ""
    for name in names:
        await stops(cluster, name)


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
async def test_who_may(cluster: Cluster, verb: str) -> None:
    target, refused = "virtualmachines/nobody", NOBODY.format(verb)
    assert refused in (await call(cluster, target, verb, {}, "--as=jane")).stderr
    for role, answer in (("view", refused), ("edit", '"nobody" not found')):
        await cluster.kubectl(
            "create", "rolebinding", f"jane-{role}", f"--clusterrole={role}", "--user=jane"
        )
        assert answer in (await call(cluster, target, verb, {}, "--as=jane")).stderr
