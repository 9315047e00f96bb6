"""A volume comes and goes, through the whole handler: a pod that holds it, a launcher that takes it, a fake API server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.kube.resources import EVENTS, PODS, VIRTUAL_MACHINE_INSTANCES
from podvisor_handler.linux.process import PinnedProcess, ProcessEnded
from prometheus_client import REGISTRY

from tests.unit.handler.builders import HOLDER_UID, held, holder_manifest, pod_manifest
from tests.unit.handler.fake_launcher import (
    OTHER_POD_UID,
    FakeLauncher,
    needs_root,
    serving,
    sockets_directory,
)
from tests.unit.handler.pod_tree import VOLUME, PodTree, freeze, mounted, thaw, tree_in
from tests.unit.handler.volume_taker import Taker
from tests.unit.handler.world import POD_KEY, RUNNING, World, handler, start, world_in
from tests.unit.launcher.native import eventually

pytestmark = needs_root

OTHER_HOLDER_UID = "7c5b2c3e-0d3b-4a3e-9a39-4f1c6b0f3f78"
ATTACHED = domain_pb2.DISK_ATTACHMENT_ATTACHED
AWAITED = domain_pb2.DISK_ATTACHMENT_AWAITED
DETACHING = domain_pb2.DISK_ATTACHMENT_DETACHING


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path, HOLDER_UID) as it:
        yield it


@pytest.fixture
def tree(world: World, tmp_path: Path) -> PodTree:
    tree = tree_in(tmp_path)
    tree.sockets = sockets_directory(world.pods, HOLDER_UID)
    return tree


def spec(*wanted: str) -> dict[str, Any]:
    claim = {"claimName": "c", "hotpluggable": True}
    disks = [{"name": name, "disk": {"bus": "scsi"}} for name in wanted]
    devices = {"disks": disks, "autoattachPodInterface": False}
    volumes = [{"name": name, "persistentVolumeClaim": claim} for name in wanted]
    return {"domain": {"memory": {"guest": "64M"}, "devices": devices}, "volumes": volumes}


def entry_of(world: World, volume: str) -> dict[str, Any]:
    entries = world.status("volumeStatus") or ()
    return next((entry for entry in entries if entry["name"] == volume), {})


def phase(world: World) -> str:
    (entry,) = world.status("volumeStatus") or [{}]
    return str(entry.get("phase"))


async def say(
    launcher: FakeLauncher,
    attachment: domain_pb2.DiskAttachment.ValueType | None,
    **fields: Any,
) -> None:
    """The launcher has got on with the disk."""
    del launcher.current.disks[:]
    disk = domain_pb2.DiskReport(name="data")
    if attachment is not None:
        disk.attachment = attachment
    if attachment == ATTACHED:
        disk.target, disk.capacity_bytes = "sda", 1 << 30
    await launcher.report(disks=[disk] if attachment is not None else [], **fields)


async def test_a_volume_comes_and_goes(world: World, tree: PodTree) -> None:
    launcher, taker = FakeLauncher(), Taker()
    start(world, spec=spec("data"), status={"volumeStatus": [held("data")]})
    async with serving(launcher, world.pods), handler(world):
        with tree.running(), taker.serving(world.pods):
            await launcher.until(lambda: len(launcher.applied) == 1)
            assert launcher.applied[0].disks[0].volume.handed_over
            await say(launcher, AWAITED, **RUNNING)
            await world.until(lambda: phase(world) == "Bound")
            world.server.put(PODS, holder_manifest(volume="data"))
            await world.until(lambda: phase(world) == "MountedToPod")
            assert [said.disk for said, _ in taker.taken] == ["data"]

            await say(launcher, ATTACHED)
            await world.until(lambda: phase(world) == "Ready")
            (entry,) = world.status("volumeStatus")
            assert (entry["target"], entry["reason"]) == ("sda", "VolumeReady")
            assert entry["hotplugVolume"]["attachPodUID"] == HOLDER_UID

            metadata = {**world.vmi()["metadata"], "generation": 2}
            removed = {**world.vmi(), "spec": spec(), "metadata": metadata}
            world.server.put(VIRTUAL_MACHINE_INSTANCES, removed)
            await launcher.until(lambda: len(launcher.applied[-1].disks) == 0)
            await world.until(lambda: phase(world) == "Detaching")
            await say(launcher, None, accepted_generation=2, devices_settled=True)
            await world.until(lambda: phase(world) == "UnMountedFromPod")
        await world.until(lambda: len(world.server.list(EVENTS)) == 5)
    assert [event["reason"] for event in world.server.list(EVENTS)].count("HotplugFailed") == 0
    assert len(taker.taken) == 1


def passes(controller: str) -> float:
    """How often the controller has looked at something."""
    name = "podvisor_reconcile_time_seconds_count"
    return REGISTRY.get_sample_value(name, {"controller": controller}) or 0


async def look_once_more(world: World, pod: dict[str, Any], *, at: str) -> None:
    """Change the pod in a way that means nothing, and wait until the controller `at` has taken a look."""
    before = passes(at)
    pod["metadata"].setdefault("annotations", {})["changed"] = "yes"
    world.server.put(PODS, pod)
    await world.until(lambda: passes(at) > before)


def lives(process: PinnedProcess) -> bool:
    try:
        process.check_alive()
    except ProcessEnded:
        return False
    return True


async def end_of(process: PinnedProcess) -> None:
    await asyncio.to_thread(eventually, lambda: not lives(process))


async def test_a_pod_that_is_deleted_holds_a_volume_until_the_guest_has_let_go(
    world: World, tree: PodTree
) -> None:
    launcher = FakeLauncher()
    start(world, spec=spec(), status={"volumeStatus": [held("data")]})
    async with serving(launcher, world.pods), handler(world):
        with tree.running() as process:
            world.server.put(PODS, holder_manifest(volume="data", deleted=True))
            await say(launcher, DETACHING, accepted_generation=1, devices_settled=True, **RUNNING)
            await world.until(lambda: phase(world) == "Detaching")
            await look_once_more(world, holder_manifest(volume="data", deleted=True), at="holder")
            assert lives(process)
            await say(launcher, None)
            await end_of(process)
    assert phase(world) == "UnMountedFromPod"


async def test_the_controller_ends_what_holds_a_volume_in_a_pod_that_nobody_has_deleted(
    world: World, tree: PodTree
) -> None:
    launcher = FakeLauncher()
    before = passes("holder")
    start(world, spec=spec(), status={"volumeStatus": [held("data")]})
    async with serving(launcher, world.pods), handler(world):
        with tree.running() as process:
            world.server.put(PODS, holder_manifest(volume="data"))
            await say(launcher, None, accepted_generation=1, devices_settled=True, **RUNNING)
            await world.until(lambda: phase(world) == "UnMountedFromPod")
            await look_once_more(world, holder_manifest(volume="data"), at="vmi")
            assert passes("holder") == before
            assert lives(process)
            world.server.put(PODS, holder_manifest(volume="data", deleted=True))
            await end_of(process)


async def test_a_pod_that_is_deleted_holds_a_volume_until_the_launchers_pod_has_ended(
    world: World, tree: PodTree
) -> None:
    """Nobody is left to say that the guest has let go, and no instance either."""
    world.server.put(PODS, pod_manifest(uid=OTHER_POD_UID, deletion_grace_s=65))
    async with handler(world):
        with tree.running() as process:
            held_on = holder_manifest(volume="data", deleted=True, owner=OTHER_POD_UID)
            world.server.put(PODS, held_on)
            await look_once_more(world, held_on, at="holder")
            assert lives(process)
            world.server.remove(PODS, POD_KEY)
            await end_of(process)


async def test_what_cannot_be_handed_over_is_the_volumes_problem(
    world: World, tree: PodTree
) -> None:
    launcher, taker = FakeLauncher(), Taker()
    tree.image.symlink_to("/etc/passwd")
    start(world, spec=spec("data"), status={"volumeStatus": [held("data")]})
    world.server.put(PODS, holder_manifest(volume="data"))
    async with serving(launcher, world.pods), handler(world):
        with tree.running(), taker.serving(world.pods):
            await say(launcher, AWAITED, **RUNNING)
            await world.until(lambda: entry_of(world, "data").get("reason") == "HotplugFailed")
            entry = entry_of(world, "data")
            assert entry["phase"] == "AttachedToNode"
            assert "disk.img is a symbolic link" in entry["message"]
            assert world.condition("Synchronized") == {}
            assert world.condition("Ready")["status"] == "True"
            # Nobody tells the handler that it was put right.
            tree.image.unlink()
            await world.until(lambda: phase(world) == "MountedToPod")
            assert len(taker.taken) == 1


async def test_a_pod_for_which_the_controller_does_not_vouch_holds_nothing(
    world: World, tree: PodTree
) -> None:
    launcher, taker = FakeLauncher(), Taker()
    start(world, spec=spec("data"), status={"volumeStatus": [held("data", uid="another")]})
    world.server.put(PODS, holder_manifest(volume="data"))
    async with serving(launcher, world.pods), handler(world):
        with tree.running(), taker.serving(world.pods):
            await say(launcher, AWAITED, **RUNNING)
            await world.until(lambda: world.status("phase") == "Running")
            # What the handler has to say comes after all that it had no reason to do.
            await launcher.report(state=domain_pb2.DOMAIN_STATE_PAUSED)
            await world.until(lambda: world.condition("Paused") != {})
            assert phase(world) == "Bound"
            assert taker.taken == []


async def test_what_passes_by_itself_is_not_worth_a_word(world: World, tree: PodTree) -> None:
    launcher, taker = FakeLauncher(), Taker()
    start(world, spec=spec("data"), status={"volumeStatus": [held("data")]})
    world.server.put(PODS, holder_manifest(volume="data"))
    async with serving(launcher, world.pods), handler(world):
        with taker.serving(world.pods):
            await say(launcher, AWAITED, **RUNNING)
            await world.until(lambda: phase(world) == "AttachedToNode")
            with tree.running():
                await world.until(lambda: phase(world) == "MountedToPod")
        await world.until(lambda: len(world.server.list(EVENTS)) == 2)
    reasons = {event["reason"] for event in world.server.list(EVENTS)}
    assert reasons == {"Started", "VolumeMountedToPod"}


async def test_a_volume_does_not_put_right_what_is_wrong_with_the_machine(
    world: World, tree: PodTree
) -> None:
    launcher, taker = FakeLauncher(refuses=True), Taker()
    start(world, spec=spec("data"), status={"volumeStatus": [held("data")]})
    world.server.put(PODS, holder_manifest(volume="data"))
    async with serving(launcher, world.pods), handler(world):
        with tree.running(), taker.serving(world.pods):
            await launcher.until(lambda: len(launcher.applied) == 1)
            await world.until(lambda: world.condition("Synchronized") != {})
            await say(launcher, AWAITED, **RUNNING)
            await world.until(lambda: phase(world) == "MountedToPod")
            assert "it can never work" in world.condition("Synchronized")["message"]


async def test_a_server_that_does_not_answer_keeps_back_nothing_else(
    tmp_path: Path,
) -> None:
    """Neither another volume nor what else is wanted of the guest; and the volume says so itself."""
    launcher, taker = FakeLauncher(), Taker()
    dead, well = tree_in(tmp_path / "1"), tree_in(tmp_path / "2", VOLUME.replace("data", "more"))
    async with world_in(tmp_path, HOLDER_UID, OTHER_HOLDER_UID) as world:
        dead.sockets = sockets_directory(world.pods, HOLDER_UID)
        well.sockets = sockets_directory(world.pods, OTHER_HOLDER_UID)
        entries = [held("data"), held("more", uid=OTHER_HOLDER_UID, name="hp-volume-other")]
        start(world, spec=spec("data", "more"), status={"volumeStatus": entries})
        world.server.put(PODS, holder_manifest(volume="data"))
        world.server.put(
            PODS, holder_manifest(uid=OTHER_HOLDER_UID, name="hp-volume-other", volume="more")
        )
        async with serving(launcher, world.pods), handler(world):
            with (
                mounted(tmp_path, "ext4") as dead.claim,
                dead.running(),
                well.running(),
                taker.serving(world.pods),
            ):
                freeze(dead.claim)
                awaited = [
                    domain_pb2.DiskReport(name=n, attachment=AWAITED) for n in ("data", "more")
                ]
                await launcher.report(disks=awaited, **RUNNING)
                await world.until(lambda: entry_of(world, "more").get("phase") == "MountedToPod")
                metadata = {**world.vmi()["metadata"], "generation": 2}
                changed = {**world.vmi(), "spec": spec("data"), "metadata": metadata}
                world.server.put(VIRTUAL_MACHINE_INSTANCES, changed)
                await launcher.until(lambda: launcher.applied[-1].generation == 2)
                await world.until(lambda: entry_of(world, "data").get("reason") == "HotplugFailed")
                assert entry_of(world, "data")["phase"] == "AttachedToNode"
                assert "does not answer" in entry_of(world, "data")["message"]
                assert world.condition("Synchronized") == {}
                thaw(dead.claim)
                await world.until(lambda: entry_of(world, "data").get("phase") == "MountedToPod")
                await world.until(
                    lambda: "HotplugFailed" in [e["reason"] for e in world.server.list(EVENTS)]
                )
            assert sorted(said.disk for said, _ in taker.taken) == ["data", "more"]
