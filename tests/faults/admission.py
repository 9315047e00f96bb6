"""Load on the webhooks: creations that change nothing, and reads that need a conversion, from several tasks at once; and the
certificates that the replicas show meanwhile, looked at by a client that connects anew each time.

The API server keeps its connections, and a connection keeps the certificate it began with: the load alone would not meet
a new one.
"""

import asyncio
import base64
import contextlib
import os
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)

from tests.faults.replicas import INSTALL, controller_pods
from tests.support import forwarding
from tests.support.cluster import ROOT, Cluster
from tests.support.machine import Machine, vm, vmi

# So often each of the tasks asks.
PACE_S = 0.1
HANDSHAKE_PACE_S = 0.25
HANDSHAKE_S = 5.0
SERVER_NAME = "virt-controller.kubevirt.svc"
OLD_VERSION = Resource("kubevirt.io", "v1alpha1", "virtualmachines", "VirtualMachine")


@dataclass(slots=True)
class Load:
    """How many calls went well, and what was said of those that did not."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    failed_at_s: list[float] = field(default_factory=list)

    @property
    def outage_s(self) -> float:
        """From the first to the last call that failed, in seconds."""
        return max(self.failed_at_s) - min(self.failed_at_s) if self.failed_at_s else 0.0


@asynccontextmanager
async def load_on_webhooks(cluster: Cluster, machine: Machine) -> AsyncIterator[Load]:
    """Creations and conversions for the body; `machine` is the VM that is read in another version."""
    load = Load()
    ending = asyncio.Event()
    namespace = cluster.namespace
    os.environ["KUBECONFIG"] = str(ROOT / ".dev/kubeconfig")
    async with await KubeClient.from_environment(user_agent="admission-load") as client:

        async def create_vm() -> Any:
            return await client.create(VIRTUAL_MACHINES, namespace, vm("dry"), dry_run=True)

        async def create_vmi() -> Any:
            return await client.create(
                VIRTUAL_MACHINE_INSTANCES, namespace, vmi("dry"), dry_run=True
            )

        async def convert() -> Any:
            return await client.get(OLD_VERSION, ObjectKey(namespace, machine.name))

        async def ask(call: Any) -> None:
            while not ending.is_set():
                try:
                    await call()
                except ApiError as error:
                    load.failures.append(f"{call.__name__}: {error}")
                    load.failed_at_s.append(time.monotonic())
                else:
                    load.calls += 1
                await asyncio.sleep(PACE_S)

        calls = (create_vm, create_vmi, convert, create_vm, convert)
        tasks = [asyncio.create_task(ask(call), name=call.__name__) for call in calls]
        try:
            yield load
            assert not any(task.done() for task in tasks)
        finally:
            ending.set()
            await asyncio.gather(*tasks)


async def trusted_bundle() -> str:
    """The certificates that the API server has been told to trust, as PEM."""
    state = await Cluster("default").get("validatingwebhookconfiguration", "podvisor-validating")
    assert state is not None
    return base64.b64decode(state["webhooks"][0]["clientConfig"]["caBundle"]).decode()


@dataclass(slots=True)
class Shown:
    """The serial numbers of the certificates that one replica has shown, in order, and what was wrong with any."""

    pod: str
    handshakes: int = 0
    serials: dict[str, None] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def looking_at_certificates() -> AsyncIterator[list[Shown]]:
    """Handshakes with every replica for the body, by a client that trusts what the API server trusts at the time."""
    async with contextlib.AsyncExitStack() as stack:
        shown, tasks = [], []
        for pod in await controller_pods():
            port = await stack.enter_async_context(forwarded(pod))
            shown.append(Shown(pod))
            tasks.append(asyncio.create_task(_look(port, shown[-1]), name=f"look at {pod}"))
        try:
            yield shown
            assert not any(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _look(port: int, shown: Shown) -> None:
    while True:
        try:
            certificate = await handshake(port, await trusted_bundle())
        except (OSError, TimeoutError) as error:
            shown.failures.append(repr(error))
        else:
            shown.handshakes += 1
            shown.serials.setdefault(certificate["serialNumber"])
        await asyncio.sleep(HANDSHAKE_PACE_S)


async def handshake(port: int, bundle: str) -> dict[str, Any]:
    """The certificate shown on a port of this machine. Raises OSError, of which ssl.SSLCertVerificationError is one."""
    context = ssl.create_default_context(cadata=bundle)
    async with asyncio.timeout(HANDSHAKE_S):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=SERVER_NAME
        )
        certificate: dict[str, Any] = writer.get_extra_info("peercert")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return certificate


def forwarded(pod: str) -> AbstractAsyncContextManager[int]:
    """A port of this machine that leads to a controller's webhooks."""
    return forwarding.forwarded(INSTALL, pod, 8443)
