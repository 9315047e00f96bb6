"""A handler whose launcher is the test's own process, with the pod's network: what it does and says, pass by pass.

The process's first thread lives in a network of its own, which is the pod's; the loop, and with it the handler, runs in another thread,
which stays in the network of this machine.
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
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES
from podvisor_handler.vmi.reconciler import Caches, VmiReconciler
from podvisor_handler.vmi.vanished import VanishedPods

from tests.unit.handler.builders import pod_manifest, vmi_manifest
from tests.unit.handler.fake_launcher import FakeLauncher, serving
from tests.unit.handler.namespaces import WITH_ETH0
from tests.unit.handler.test_registry import registry_of
from tests.unit.handler.world import KEY, RUNNING, World, world_in

_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class OwnNetwork:
    """A network that only the first thread of this process lives in, and with it what that starts."""

    run: Callable[[str], int]  # a script in it
    # Runs a test outside of it.
    elsewhere: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@contextlib.contextmanager
def own_network(links: str = WITH_ETH0) -> Iterator[OwnNetwork]:
    """Gives this process a network with these links. Needs root."""
    assert threading.current_thread() is threading.main_thread()
    namespace = f"/proc/{os.getpid()}/ns/net"
    run = ["nsenter", f"--net={namespace}", "sh", "-ec"]
    before = os.open(namespace, os.O_RDONLY)
    with ThreadPoolExecutor(max_workers=1) as executor:
        executor.submit(threading.get_ident).result()  # the thread stays where it begins
        assert _LIBC.unshare(_CLONE_NEWNET) == 0
        try:
            subprocess.run([*run, f"ip link set lo up\n{links}"], check=True)
            yield OwnNetwork(
                lambda script: subprocess.check_call([*run, script]),
                lambda test: executor.submit(lambda: asyncio.run(test())).result(),
            )
        finally:
            assert _LIBC.setns(before, _CLONE_NEWNET) == 0
            os.close(before)


@dataclass
class Node:
    """A node's handler, of which the test makes every single pass."""

    world: World
    reconciler: VmiReconciler
    annotations: dict[str, str]

    async def look(self) -> Requeue | None:
        return await self.reconciler.reconcile(KEY)


@contextlib.asynccontextmanager
async def node_in(
    directory: Path, launcher: FakeLauncher, spec: dict[str, Any]
) -> AsyncIterator[Node]:
    """A node whose one instance is of that specification, and runs, as its launcher says."""
    annotations: dict[str, str] = {}

    def pods(_: Any) -> list[core.Pod]:
        return [msgspec.convert(pod_manifest(annotations=annotations), core.Pod)]

    async with (
        world_in(directory) as world,
        KubeClient.for_url(world.server.url, user_agent="test") as client,
    ):
        world.server.put(VIRTUAL_MACHINE_INSTANCES, vmi_manifest(spec=spec, generation=2))

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
