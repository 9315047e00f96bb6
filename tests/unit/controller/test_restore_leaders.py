"""Restores and clones whose writes get lost, and whose controllers end in the middle of them."""

import random
from typing import Any

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import VIRTUAL_MACHINES
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.unit.controller.clones import CloneUser
from tests.unit.controller.restores import RestoreUser
from tests.unit.controller.scripted_node import leader_that_ends, losing_writes


async def test_a_machine_is_restored_whatever_becomes_of_the_writes(
    restorer: RestoreUser, leading: Controllers
) -> None:
    await restorer.keep("data", "logs")
    losing_writes(restorer.server, random.Random(7), (4, 3, 3))
    await restorer.restore()
    await restorer.until_complete()
    assert len(restorer.claims) == 4
    assert not restorer.is_locked


async def test_a_machine_is_cloned_whatever_becomes_of_the_writes(
    cloner: CloneUser, leading: Controllers
) -> None:
    cloner.put_machine("data")
    losing_writes(cloner.server, random.Random(11), (4, 3, 3))
    await cloner.clone()
    await cloner.until_phase("Succeeded")
    await cloner.server.until(lambda: not (cloner.snapshots or cloner.restores))
    assert len(cloner.restorer.claims) == 2
    assert len(cloner.server.list(VIRTUAL_MACHINES)) == 2


@pytest.mark.parametrize(
    ("spec", "after"),
    [
        (spec, after)
        for spec, writes in (
            ({}, 9),
            ({"volumeRestorePolicy": "InPlace"}, 10),
            ({"target": "twin"}, 8),
        )
        for after in range(1, writes + 1)
    ],
)
async def test_a_leader_that_ends_at_any_step_is_gone_on_from(
    restorer: RestoreUser, client: KubeClient, settings: Settings, spec: dict[str, Any], after: int
) -> None:
    async with leader_that_ends(restorer.server, client, settings, after=None) as end_after:
        await restorer.keep("data")
        end_after(after)
        await restorer.restore(**spec)
        await restorer.until_complete()
        name = spec.get("target", "myvm")
        machine = restorer.machine(name)
        assert machine["status"].get("restoreInProgress") is None
        claim = restorer.claim_of("data", name)
        assert claim["metadata"]["annotations"]["restore.kubevirt.io/name"] == "back"
        assert len(restorer.claims) == (1 if "volumeRestorePolicy" in spec else 2)
        assert len(restorer.server.list(VIRTUAL_MACHINES)) == (2 if name == "twin" else 1)


@pytest.mark.parametrize("after", range(1, 3))
async def test_the_end_of_a_restore_is_gone_on_with_as_well(
    restorer: RestoreUser, client: KubeClient, settings: Settings, after: int
) -> None:
    restorer.provisioner.works = False
    async with leader_that_ends(restorer.server, client, settings, after=None) as end_after:
        await restorer.keep("data")
        await restorer.restore()
        await restorer.server.until(lambda: len(restorer.claims) == 2)
        end_after(after)
        await restorer.delete()
        await restorer.server.until(lambda: restorer.body is None)
        assert restorer.claims == ["data"]
        assert not restorer.is_locked


@pytest.mark.parametrize("after", range(1, 24, 2))
async def test_a_clone_is_gone_on_with_as_well(
    cloner: CloneUser, client: KubeClient, settings: Settings, after: int
) -> None:
    async with leader_that_ends(cloner.server, client, settings, after=after):
        cloner.put_machine("data")
        await cloner.clone()
        await cloner.until_phase("Succeeded")
        await cloner.server.until(lambda: not (cloner.snapshots or cloner.restores))
        await cloner.server.until(lambda: "restoreName" not in cloner.status)
        assert len(cloner.restorer.claims) == 2
