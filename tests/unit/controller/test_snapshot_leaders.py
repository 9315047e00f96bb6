"""Snapshots whose writes get lost, and whose controllers end in the middle of them."""

import random

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.scripted_node import leader_that_ends, losing_writes
from tests.unit.controller.snapshots import SnapshotUser


async def test_a_snapshot_is_taken_whatever_becomes_of_its_writes(
    user: SnapshotUser, leading: Controllers
) -> None:
    user.put_machine_and_claims("data", "logs")
    losing_writes(user.server, random.Random(7), (4, 3, 3))
    await user.take()
    await user.until_ready()
    assert len(user.contents) == 1
    assert len(user.volume_snapshots) == 2
    await user.delete()
    await user.server.until(lambda: user.body is None)
    assert not user.contents
    assert not user.is_locked


@pytest.mark.parametrize("after", range(1, 12))
async def test_a_leader_that_ends_at_any_step_is_gone_on_from(
    user: SnapshotUser, client: KubeClient, settings: Settings, after: int
) -> None:
    user.put_machine_and_claims("data", "logs")
    async with leader_that_ends(user.server, client, settings, after=after):
        await user.take()
        await user.until_ready()
        assert user.status["phase"] == "Succeeded"
        assert len(user.contents) == 1
        assert len(user.volume_snapshots) == 2


@pytest.mark.parametrize("after", range(1, 4))
async def test_the_end_of_a_snapshot_is_gone_on_with_as_well(
    user: SnapshotUser, client: KubeClient, settings: Settings, after: int
) -> None:
    user.storage.takes = lambda _: False
    user.put_machine_and_claims("data")
    begun = 1 + 2 + 1 + 1  # protected, locked, content and VolumeSnapshot made
    async with leader_that_ends(user.server, client, settings, after=begun + after):
        await user.take()
        await user.server.until(lambda: bool(user.volume_snapshots))
        await user.delete()
        await user.server.until(lambda: user.body is None)
        assert not user.contents
        assert not user.is_locked
