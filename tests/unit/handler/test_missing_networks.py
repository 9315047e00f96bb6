"""A running guest's interface has not come to its pod yet: what the handler does and says, pass by pass.

The test's own process is the launcher. Its first thread lives in a network of its own, which is the pod's; the loop, and with it the
handler, runs in another thread, which stays in the network of this machine.
"""

import asyncio
import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES
from podvisor_common.launcher_pod import secondary_interface_name
from podvisor_handler.vmi.reconciler import Caches, VmiReconciler
from podvisor_handler.vmi.vanished import VanishedPods

from tests.unit.handler.builders import pod_manifest, vmi_manifest
from tests.unit.handler.fake_launcher import FakeLauncher, needs_root, serving
from tests.unit.handler.namespaces import WITH_ETH0
from tests.unit.handler.test_registry import registry_of
from tests.unit.handler.world import KEY, RUNNING, World, world_in

pytestmark = needs_root

BLUE = secondary_interface_name("blue")
STATUS = "k8s.v1.cni.cncf.io/network-status"
SPEC: dict[str, Any] = {
    "domain": {
        "memory": {"guest": "64M"},
        "devices": {
            "interfaces": [{"name": "default", "masquerade": {}}, {"name": "blue", "bridge": {}}]
        },
    },
    "networks": [
        {"name": "default", "pod": {}},
        {"name": "blue", "multus": {"networkName": "shop/lan"}},
    ],
}
_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def links() -> Iterator[Callable[[str], int]]:
    """Runs a script in the pod's network, which is that of the first thread of this process."""
    assert threading.current_thread() is threading.main_thread()
    namespace = f"/proc/{os.getpid()}/ns/net"
    before = os.open(namespace, os.O_RDONLY)
    assert _LIBC.unshare(_CLONE_NEWNET) == 0
    run = ["nsenter", f"--net={namespace}", "sh", "-ec"]
    try:
        subprocess.run([*run, f"ip link set lo up\n{WITH_ETH0}"], check=True)
        yield lambda script: subprocess.check_call([*run, script])
    finally:
        assert _LIBC.setns(before, _CLONE_NEWNET) == 0
        os.close(before)


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], Coroutine[Any, Any, None]]], None]]:
    """Runs a coroutine in a thread that was there before the first one went into the pod's network."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(threading.get_ident).result()
        yield lambda test: executor.submit(lambda: asyncio.run(test())).result()


@dataclass
class Node:
    """A node's handler, of which the test makes every single pass."""

    world: World
    reconciler: VmiReconciler
    annotations: dict[str, str]

    async def look(self) -> Requeue | None:
        return await self.reconciler.reconcile(KEY)


@contextlib.asynccontextmanager
async def node_in(directory: Path, launcher: FakeLauncher) -> AsyncIterator[Node]:
    annotations: dict[str, str] = {}

    def pods(_: Any) -> list[core.Pod]:
        return [msgspec.convert(pod_manifest(annotations=annotations), core.Pod)]

    async with (
        world_in(directory) as world,
        KubeClient.for_url(world.server.url, user_agent="test") as client,
    ):
        world.server.put(VIRTUAL_MACHINE_INSTANCES, vmi_manifest(spec=SPEC, generation=2))

        def vmi(_: Any) -> v1.VirtualMachineInstance:
            return msgspec.convert(world.vmi(), v1.VirtualMachineInstance)

        async with registry_of(world.pods, *pods(None)) as registry:
            reconciler = VmiReconciler(
                client,
                EventRecorder(client, "virt-handler", "virt-handler-x"),
                registry,
                Caches(vmi, pods, lambda key: None),
                VanishedPods(client, "node1", str(world.pods)),
                lambda key: None,
            )
            async with serving(launcher, world.pods):
                await launcher.report(**RUNNING)
                connection = registry.of_pod(pods(None)[0].metadata.uid)
                assert connection is not None
                async with asyncio.timeout(10):
                    changed = asyncio.Event()
                    registry.subscribe(lambda connection, gone: changed.set())
                    while connection.report is None:
                        changed.clear()
                        await changed.wait()
                yield Node(world, reconciler, annotations)
                reconciler.close()


def test_looking_for_an_interface_does_not_put_right_what_is_wrong(
    elsewhere: Callable[..., None], links: Callable[[str], int], tmp_path: Path
) -> None:
    async def test() -> None:
        launcher = FakeLauncher(refuses=True)
        async with node_in(tmp_path, launcher) as node:
            pass_ = await node.look()
            assert pass_ is not None
            assert 1 < pass_.after_s <= 3
            assert "it can never work" in node.world.condition("Synchronized")["message"]
            for number in range(3):
                node.annotations[STATUS] = f'[{{"name": "news/{number}"}}]'
                await node.look()
                assert "it can never work" in node.world.condition("Synchronized")["message"]
            assert len(launcher.applied) == 1
            launcher.refuses = False
            await asyncio.to_thread(links, f"ip link add {BLUE} type veth peer name other")
            node.annotations[STATUS] = f'[{{"name": "shop/lan", "interface": "{BLUE}"}}]'
            assert await node.look() is None
            assert [len(spec.interfaces) for spec in launcher.applied] == [1, 2]
            assert node.world.condition("Synchronized") == {}

    elsewhere(test)
