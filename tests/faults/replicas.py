"""The controller's replicas: who leads, how they are taken down, and that all of them are back."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import pod_processes

INSTALL = Cluster("kubevirt")
CONTROLLER = "deployment/virt-controller"
CONTROLLER_PODS = "app.kubernetes.io/component=virt-controller"
HANDLER = "daemonset/virt-handler"
HANDLER_PODS = "app.kubernetes.io/component=virt-handler"
LEASE = "virt-controller"
READY_S = 90.0


def holder_of(lease: Json | None) -> str:
    """Who holds the lease; nobody when it is empty."""
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def renewed_s(lease: Json | None) -> float:
    """When the lease was renewed, by its holder's clock, in seconds as of time.time()."""
    text = (lease or {}).get("spec", {}).get("renewTime")
    return datetime.fromisoformat(text).timestamp() if text else 0.0


async def leader() -> str:
    """The pod that leads; waits for one if need be."""
    lease = await until_lease(
        lambda lease: bool(holder_of(lease)), within_s=30, what="somebody leads"
    )
    return holder_of(lease)


async def controller_pods() -> list[str]:
    """The controller's pods, less those that are on their way out."""
    return [
        pod["metadata"]["name"]
        for pod in await INSTALL.all("pods", labels=CONTROLLER_PODS)
        if "deletionTimestamp" not in pod["metadata"]
    ]


async def until_lease(
    holds: Callable[[Json | None], bool], *, within_s: float, what: str
) -> Json | None:
    """Watch the lease."""
    return await INSTALL.until("lease", LEASE, holds, within_s=within_s, what=what)


async def process_of(pod: str) -> int:
    """The node's process of a controller's pod."""
    state = await INSTALL.get("pod", pod)
    assert state is not None, pod
    processes = await pod_processes(state["metadata"]["uid"])
    (pid,) = [pid for pid, line in processes.items() if "podvisor_controller" in line]
    return pid


async def all_are_ready() -> None:
    """Wait until controllers and handlers are as the chart wants them and nothing is left of earlier ones, and somebody leads."""
    for workload in (CONTROLLER, HANDLER):
        await INSTALL.kubectl(
            "rollout", "status", workload, f"--timeout={READY_S:.0f}s", timeout_s=READY_S + 10
        )
    # A replica that is told to end serves on for a few seconds, and still renews what it finds expired.
    pods = await INSTALL.all("pods", labels=CONTROLLER_PODS)
    leaving = [pod["metadata"] for pod in pods if "deletionTimestamp" in pod["metadata"]]
    for pod in leaving:
        await INSTALL.kubectl("wait", f"pod/{pod['name']}", "--for=delete", "--timeout=40s")
    await leader()


@asynccontextmanager
async def controllers_down() -> AsyncIterator[None]:
    """No controller for the body, hence no webhook either."""
    deployment = await INSTALL.get("deployment", LEASE)
    assert deployment is not None
    try:
        await INSTALL.kubectl("scale", CONTROLLER, "--replicas=0")
        await INSTALL.kubectl("wait", "pod", "-l", CONTROLLER_PODS, "--for=delete", "--timeout=40s")
        yield
    finally:
        await INSTALL.kubectl("scale", CONTROLLER, f"--replicas={deployment['spec']['replicas']}")
        await all_are_ready()


@asynccontextmanager
async def handlers_down() -> AsyncIterator[None]:
    """No handler on any node for the body."""
    path = "/spec/template/spec/nodeSelector/podvisor.test~1nowhere"
    try:
        await _patch_handlers([{"op": "add", "path": path, "value": "here"}])
        await INSTALL.kubectl("wait", "pod", "-l", HANDLER_PODS, "--for=delete", "--timeout=40s")
        yield
    finally:
        await _patch_handlers([{"op": "remove", "path": path}])
        await all_are_ready()


async def _patch_handlers(operations: list[Json]) -> None:
    await INSTALL.kubectl("patch", HANDLER, "--type=json", "-p", json.dumps(operations))


@asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    """A process of the node does nothing for the body: SIGSTOP, then SIGCONT."""
    await on_node("kill", "-STOP", str(pid))
    try:
        yield
    finally:
        await on_node("kill", "-CONT", str(pid), check=False)


@asynccontextmanager
async def cut_off(pid: int, *, answers_only: bool = False) -> AsyncIterator[None]:
    """The pod of a process and the API server do not hear of each other for the body; with `answers_only`, what the pod
    sends on connections it has still arrives. Nobody is told: no connection is closed."""
    (service,) = [
        state
        for state in await Cluster("default").all("services")
        if state["metadata"]["name"] == "kubernetes"
    ]
    address = service["spec"]["clusterIP"]
    hook, side = ("input", "saddr") if answers_only else ("output", "daddr")
    rules = f"table ip fault {{ chain cut {{ type filter hook {hook} priority 0; ip {side} {address} drop; }}; }}"
    enter = ("nsenter", "-t", str(pid), "-n", "nft")
    await on_node(*enter, rules)
    try:
        yield
    finally:
        await on_node(*enter, "delete table ip fault", check=False)
