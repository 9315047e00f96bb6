"""The whole handler between a fake API server and a fake launcher, both on real sockets."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import EVENTS, NODES, PODS, VIRTUAL_MACHINE_INSTANCES
from podvisor_common.rpc.client import call, stream, unix_channel
from podvisor_common.rpc.errors import NotFound
from podvisor_handler.settings import SettingMissing, Settings
from podvisor_handler.vmi.vanished import Remains, VanishedPods

from tests.unit.handler.builders import pod_manifest, vmi, vmi_manifest
from tests.unit.handler.fake_launcher import (
    OTHER_POD_UID,
    POD_UID,
    VMI_UID,
    FakeLauncher,
    needs_root,
    serving,
)
from tests.unit.handler.world import (
    NO_NETWORK,
    POD_KEY,
    RUNNING,
    World,
    handler,
    start,
    world_in,
)

pytestmark = needs_root


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with world_in(tmp_path) as it:
        yield it


async def test_from_scheduled_to_running(world: World) -> None:
    launcher = FakeLauncher()
    async with handler(world):
        start(world)
        async with serving(launcher, world.pods):
            await launcher.until(lambda: len(launcher.applied) == 1)
            assert launcher.applied[0].memory.guest_bytes == 64_000_000
            await launcher.report(**RUNNING)
            await world.until(lambda: world.status("phase") == "Running")
            await world.until(lambda: len(world.server.list(EVENTS)) == 1)
            assert world.condition("Ready")["status"] == "True"
            assert world.status("machine") == {"type": "pc-q35-10.0"}
            assert world.status("startTimeline")["running"] >= 0
            assert world.writes(VIRTUAL_MACHINE_INSTANCES, "/status") == 1
            (event,) = world.server.list(EVENTS)
            assert (event["reason"], event["reportingInstance"]) == ("Started", "virt-handler-x")


async def test_a_launcher_that_fails_is_asked_again(world: World) -> None:
    launcher = FakeLauncher(apply_failures=2)
    start(world)
    async with serving(launcher, world.pods), handler(world):
        await launcher.until(lambda: len(launcher.applied) == 1)
    assert world.condition("Synchronized") == {}


async def test_a_restarted_handler_writes_and_asks_nothing(world: World) -> None:
    launcher = FakeLauncher()
    start(world)
    async with serving(launcher, world.pods):
        await launcher.report(**RUNNING)
        async with handler(world):
            await world.until(lambda: world.status("phase") == "Running")
        before = world.writes(VIRTUAL_MACHINE_INSTANCES)
        async with handler(world):
            # A write that the second handler has to make comes after all it had no reason for.
            await launcher.report(state=domain_pb2.DOMAIN_STATE_PAUSED)
            await world.until(lambda: world.condition("Paused") != {})
        assert world.writes(VIRTUAL_MACHINE_INSTANCES) == before + 1
    assert launcher.applied == []


async def test_changes_that_mean_nothing_cost_nothing(world: World) -> None:
    launcher = FakeLauncher()
    start(world)
    async with serving(launcher, world.pods), handler(world):
        await launcher.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        for number in range(20):
            labels = {"somebody": str(number)}
            touched = {**world.vmi(), "metadata": {**world.vmi()["metadata"], "labels": labels}}
            world.server.put(VIRTUAL_MACHINE_INSTANCES, touched)
            await launcher.report(message=f"still running {number}")
        # What the handler has to say comes after all that it had no reason to say.
        await launcher.report(state=domain_pb2.DOMAIN_STATE_PAUSED)
        await world.until(lambda: len(world.server.list(EVENTS)) == 2)
        assert world.condition("Paused")["status"] == "True"
        assert world.writes(VIRTUAL_MACHINE_INSTANCES) == 2
        assert sorted(e["reason"] for e in world.server.list(EVENTS)) == ["Paused", "Started"]


async def test_what_changes_without_a_new_generation_reaches_the_launcher(world: World) -> None:
    """As what a claim has, of which the controller tells in the status."""
    launcher = FakeLauncher()
    claim = {"claimName": "c", "readOnly": True}
    devices = {"autoattachPodInterface": False, "disks": [{"name": "data"}]}
    spec = {
        "domain": {"memory": {"guest": "64M"}, "devices": devices},
        "volumes": [{"name": "data", "persistentVolumeClaim": claim}],
    }
    start(world, spec=spec)
    async with serving(launcher, world.pods), handler(world):
        await launcher.until(lambda: len(launcher.applied) == 1)
        await launcher.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        for known in ({"storage": "1Gi"}, {"storage": "1Gi"}, {"storage": "2Gi"}):
            told = {"name": "data", "persistentVolumeClaimInfo": {"capacity": known}}
            status = {**world.vmi()["status"], "volumeStatus": [told]}
            world.server.put(VIRTUAL_MACHINE_INSTANCES, {**world.vmi(), "status": status})
        await launcher.until(lambda: launcher.applied[-1].disks[0].volume.capacity_bytes == 2 << 30)
        assert len(launcher.applied) <= 3
        assert {applied.generation for applied in launcher.applied} == {1}


async def test_deleting_shuts_the_guest_down(world: World) -> None:
    launcher = FakeLauncher()
    start(world, finalizers=["kubevirt.io/foregroundDeleteVirtualMachine"])
    async with serving(launcher, world.pods), handler(world):
        await launcher.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        deleted = {**world.vmi()["metadata"], "deletionTimestamp": "2026-01-02T04:00:00Z"}
        world.server.put(VIRTUAL_MACHINE_INSTANCES, {**world.vmi(), "metadata": deleted})
        await launcher.until(lambda: launcher.shutdowns == [5])
        await launcher.report(
            state=domain_pb2.DOMAIN_STATE_ENDED, reason=domain_pb2.DOMAIN_REASON_SHUTDOWN
        )
        await world.until(lambda: world.status("phase") == "Succeeded")
        assert world.writes(VIRTUAL_MACHINE_INSTANCES, "/status") == 2
        await world.until(lambda: len(world.server.list(EVENTS)) == 2)


async def test_a_waiting_launcher_becomes_a_readable_condition(world: World) -> None:
    launcher = FakeLauncher()
    start(world)
    message = 'Volume "ci": Secret "s" is missing. The machine starts when it is created.'
    async with serving(launcher, world.pods), handler(world):
        await launcher.until(lambda: len(launcher.applied) == 1)
        await launcher.report(
            state=domain_pb2.DOMAIN_STATE_WAITING,
            reason=domain_pb2.DOMAIN_REASON_MISSING_SECRET,
            message=message,
        )
        await world.until(lambda: world.condition("Synchronized") != {})
        found = world.condition("Synchronized")
        assert (found["status"], found["reason"], found["message"]) == (
            "False",
            "MissingSecret",
            message,
        )
        assert world.status("phase") == "Scheduled"


async def test_a_pod_deleted_by_force_fails_when_nothing_of_it_is_left(world: World) -> None:
    directory = world.pods / OTHER_POD_UID
    (directory / "volumes").mkdir(parents=True)
    world.server.put(PODS, pod_manifest(uid=OTHER_POD_UID))
    machine = vmi_manifest(spec=NO_NETWORK, phase="Running", pods=(OTHER_POD_UID,))
    world.server.put(VIRTUAL_MACHINE_INSTANCES, machine)
    async with handler(world):
        await world.until(lambda: "labels" in (world.server.list(NODES)[0]["metadata"]))
        world.server.remove(PODS, POD_KEY)
        assert world.status("phase") == "Running"
        await asyncio.to_thread(shutil.rmtree, directory)
        await world.until(lambda: world.status("phase") == "Failed")
        assert world.status("reason") == "PodVanished"
        assert world.condition("Ready")["status"] == "False"
        await world.until(lambda: len(world.server.list(EVENTS)) == 1)


async def test_a_deletion_goes_on_when_nothing_of_the_pod_is_left(world: World) -> None:
    """The controller lets a bound instance go only when somebody has said that its guest has ended."""
    machine = vmi_manifest(
        spec=NO_NETWORK,
        phase="Running",
        deleted=True,
        pods=(OTHER_POD_UID,),
        finalizers=["kubevirt.io/foregroundDeleteVirtualMachine"],
    )
    world.server.put(VIRTUAL_MACHINE_INSTANCES, machine)
    async with handler(world):
        await world.until(lambda: world.status("phase") == "Succeeded")


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        ("nothing is there", Remains.NOTHING),
        ("the directory is there", Remains.DIRECTORY),
        ("a process runs", Remains.PROCESS),
        ("the pod is on its way into the cache", Remains.EXPECTED),
        ("it was on another node", Remains.EXPECTED),
    ],
)
async def test_what_is_left_of_a_pod(world: World, situation: str, expected: Remains) -> None:
    uid = POD_UID if situation == "a process runs" else OTHER_POD_UID
    if situation == "the directory is there":
        (world.pods / uid).mkdir()
    if situation == "the pod is on its way into the cache":
        world.server.put(PODS, pod_manifest(uid=uid))
    node = "node2" if situation == "it was on another node" else "node1"
    machine = vmi(phase="Running", status={"activePods": {uid: node}})
    async with KubeClient.for_url(world.server.url, user_agent="test") as client:
        vanished = VanishedPods(client, "node1", str(world.pods))
        assert await vanished.remains_of(machine) is expected


async def test_the_nodes_own_network_is_refused_readably(world: World) -> None:
    """The test's own process is the launcher here, and it lives in the network of this machine."""
    launcher = FakeLauncher()
    start(world, spec={})
    async with serving(launcher, world.pods), handler(world):
        await world.until(lambda: world.condition("Synchronized") != {})
        assert world.condition("Synchronized")["reason"] == "NetworkRefused"
    assert launcher.applied == []


async def test_a_specification_that_cannot_be_is_refused_readably(world: World) -> None:
    launcher = FakeLauncher()
    start(world, spec={"networks": [{"name": "default", "pod": {"vmNetworkCIDR": "no network"}}]})
    async with serving(launcher, world.pods), handler(world):
        await world.until(lambda: world.condition("Synchronized") != {})
        assert world.condition("Synchronized")["reason"] == "InvalidSpec"
        await launcher.report(
            state=domain_pb2.DOMAIN_STATE_ENDED, reason=domain_pb2.DOMAIN_REASON_NEVER_STARTED
        )
        await world.until(lambda: world.status("phase") == "Failed")
    assert launcher.applied == []


async def test_a_forged_pod_moves_nothing(world: World) -> None:
    """A pod that claims the instance and is not among its active pods is not acted on."""
    launcher = FakeLauncher()
    start(world, pods=())
    async with handler(world), serving(launcher, world.pods):
        await launcher.report(**RUNNING)
        async with unix_channel(str(world.run / "handler.sock")) as channel:
            stub = handler_pb2_grpc.HandlerServiceStub(channel)
            await call(
                stub.GetNodeInfo,
                handler_pb2.GetNodeInfoRequest(),
                timeout_s=5,
                wait_for_ready=True,
            )
            replies = stream(
                stub.WatchDomains, handler_pb2.WatchDomainsRequest(), first_reply_timeout_s=5
            )
            async with contextlib.aclosing(replies):
                async for reply in replies:
                    if reply.machine.report.state == domain_pb2.DOMAIN_STATE_RUNNING:
                        break
    assert world.status("phase") == "Scheduled"
    assert launcher.applied == []


async def test_people_see_the_machines_of_the_node(world: World) -> None:
    start(world)
    link = world.run / "launchers" / "default_myvm.sock"
    (world.run / "launchers").mkdir()
    (world.run / "launchers" / "default_gone.sock").symlink_to("/nowhere")
    async with serving(FakeLauncher(), world.pods), handler(world):
        await world.until(lambda: "labels" in (world.server.list(NODES)[0]["metadata"]))
        async with unix_channel(str(world.run / "handler.sock")) as channel:
            stub = handler_pb2_grpc.HandlerServiceStub(channel)
            info = await call(
                stub.GetNodeInfo,
                handler_pb2.GetNodeInfoRequest(),
                timeout_s=5,
                wait_for_ready=True,
            )
            assert (info.node_name, info.kvm, info.kvm_message) == ("node1", False, "not here")
            listed = await call(stub.ListDomains, handler_pb2.ListDomainsRequest(), timeout_s=5)
            (machine,) = listed.machines
            assert (machine.reference.name, machine.pod_uid) == ("myvm", POD_UID)
            request = handler_pb2.GetDomainRequest(reference=machine.reference)
            found = await call(stub.GetDomain, request, timeout_s=5)
            assert found.machine.uid == VMI_UID
            request.reference.name = "other"
            with pytest.raises(NotFound):
                await call(stub.GetDomain, request, timeout_s=5)
            replies = stream(
                stub.WatchDomains, handler_pb2.WatchDomainsRequest(), first_reply_timeout_s=5
            )
            async with contextlib.aclosing(replies):
                first = await anext(replies)
                assert first.machine.pod_uid == POD_UID
                target = f"{POD_UID}/volumes/kubernetes.io~empty-dir/sockets/launcher.sock"
                assert os.readlink(link) == f"/var/lib/kubelet/pods/{target}"
                assert [entry.name for entry in link.parent.iterdir()] == [link.name]
                world.server.remove(PODS, POD_KEY)
                async for reply in replies:
                    if reply.gone:
                        break
            assert list(link.parent.iterdir()) == []
        assert (world.run / "handler.sock").stat().st_mode & 0o777 == 0o600
        assert world.run.stat().st_mode & 0o777 == 0o700
    assert not (world.run / "handler.sock").exists()


async def test_of_two_pods_of_a_machine_the_next_instances_counts(world: World) -> None:
    """A successor does not wait for the kubelet to remove the pod before."""
    name = "virt-launcher-myvm-aaaaa"
    world.server.put(PODS, pod_manifest(uid=OTHER_POD_UID, name=name, creator="other"))
    async with handler(world):
        await world.until(lambda: "labels" in (world.server.list(NODES)[0]["metadata"]))
        async with unix_channel(str(world.run / "handler.sock")) as channel:
            stub = handler_pb2_grpc.HandlerServiceStub(channel)
            every = handler_pb2.WatchDomainsRequest()
            replies = stream(stub.WatchDomains, every, first_reply_timeout_s=5)
            async with contextlib.aclosing(replies):
                assert (await anext(replies)).machine.pod_uid == OTHER_POD_UID
                start(world)
                async for reply in replies:
                    if reply.machine.pod_uid == POD_UID:
                        break
            request = handler_pb2.GetDomainRequest(reference=reply.machine.reference)
            found = await call(stub.GetDomain, request, timeout_s=5)
            assert found.machine.pod_uid == POD_UID


async def test_the_node_is_schedulable_while_the_handler_runs(world: World) -> None:
    def node() -> dict[str, Any]:
        metadata: dict[str, Any] = world.server.list(NODES)[0]["metadata"]
        return metadata

    async with handler(world):
        await world.until(lambda: "labels" in node())
        assert node()["labels"] == {"kubevirt.io/schedulable": "true"}
        assert "kubevirt.io/heartbeat" in node()["annotations"]
        assert world.writes(NODES) == 1
    assert node()["labels"] == {"kubevirt.io/schedulable": "false"}


def test_settings() -> None:
    settings = Settings.from_environment({"NODE_NAME": "n", "POD_NAME": "p"})
    assert settings.run_directory == Path("/run/podvisor")
    with pytest.raises(SettingMissing, match="POD_NAME"):
        Settings.from_environment({"NODE_NAME": "n"})


async def test_a_missing_setting_is_one_line_and_not_a_traceback() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "podvisor_handler", env={}, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert errors == b"virt-handler: NODE_NAME is not set in the environment\n"
    assert process.returncode == 2
