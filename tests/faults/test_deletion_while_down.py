"""What is deleted goes away whatever is down: while one component is missing as far as it can, the rest when it is back; and with
kubectl alone when podvisor does not come back."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.guest import counting_vm
from tests.faults.history import History
from tests.faults.replicas import all_are_ready, controllers_down, handlers_down, stopped
from tests.faults.strike import Victim, strike, uid_of_pod
from tests.support.cluster import ROOT, Cluster, create_namespace, on_node
from tests.support.machine import Machine, gone, pod_processes, vmi
from tests.support.process import run

GONE_S = 40.0
HELD_S = 4.0
UNINSTALL = ROOT / "docs/uninstall.md"


@asynccontextmanager
async def _down(component: str, pod_uid: str) -> AsyncIterator[None]:
    """The component does nothing for the body."""
    match component:
        case "controller":
            async with controllers_down():
                yield
        case "handler":
            async with handlers_down():
                yield
        case "kubelet":
            pid = int((await on_node("pgrep", "-o", "-x", "kubelet")).stdout)
            async with stopped(pid):
                yield
        case "launcher":
            await strike([Victim.LAUNCHER], pod_uid, signal="STOP")
            try:
                yield
            finally:
                await strike([Victim.LAUNCHER], pod_uid, signal="CONT", must_hit=False)
        case "killed-launcher":
            await strike([Victim.LAUNCHER], pod_uid)
            yield


@pytest.mark.parametrize(
    "component",
    [
        "controller",
        "handler",
        "launcher",
        "kubelet",
        pytest.param("killed-launcher", marks=pytest.mark.long),
    ],
)
async def test_deleted_while_down(cluster: Cluster, history: History, component: str) -> None:
    """A running VM is deleted while a component is down: it is gone soon after that is back, and nothing of it is left."""
    name = f"without-{component}"
    await cluster.apply(counting_vm(name))
    machine = Machine(cluster, name)
    await machine.running()
    pod_uid = await uid_of_pod(machine)
    async with _down(component, pod_uid):
        await cluster.kubectl("delete", "vm", name, "--wait=false")
        await history.first(
            "vm",
            name,
            lambda seen: seen.state is None or "deletionTimestamp" in seen.state["metadata"],
            within_s=10,
            what="the deletion is accepted",
        )
        # The time is the subject: everything else does its part meanwhile.
        await asyncio.sleep(HELD_S)
    for kind in ("vm", "vmi"):
        await cluster.until(kind, name, gone, within_s=GONE_S, what="gone")
    assert await cluster.all("pods", labels=f"vmi.kubevirt.io/id={name}") == []
    assert await pod_processes(pod_uid) == {}
    assert "Failed" not in history.phases("vmi", name), history


async def test_all_of_podvisor_down(cluster: Cluster) -> None:
    """A namespace with a VM and an instance is deleted while nothing of podvisor runs: the guests are shut down and the pods go;
    what is held by podvisor's finalizers goes when it is back, or by the commands of docs/uninstall.md. So does one without machines:
    Kubernetes finishes the deletion of no namespace while an aggregated API is not answered for."""
    empty, *spaces = [
        await create_namespace(f"{cluster.namespace}-{stem}") for stem in ("empty", "back", "never")
    ]
    for space in spaces:
        await space.apply(counting_vm("owned"))
        await space.apply(vmi("alone"))
    for space in spaces:
        for name in ("owned", "alone"):
            await Machine(space, name).running(within_s=90)
    async with handlers_down(), controllers_down():
        for space in (empty, *spaces):
            await space.kubectl("delete", "namespace", space.namespace, "--wait=false")
        for space in spaces:
            await space.kubectl(
                "wait", "pod", "--all", "--for=delete", "--timeout=60s", timeout_s=70
            )
            assert await space.all("vm") + await space.all("vmi"), "held until podvisor lets go"
        # Somebody else's machines may be on the cluster: only the one namespace is given up.
        commands = _commands("Machines that were left behind").replace(
            "--all-namespaces", f"--namespace {spaces[1].namespace}"
        )
        await _run_as_documented(commands)
        await _namespace_gone(empty.namespace)
        await _namespace_gone(spaces[1].namespace)
    await _namespace_gone(spaces[0].namespace)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_uninstalled(cluster: Cluster) -> None:
    """podvisor is uninstalled with machines left, then cleared away by kubectl, as documented; then it is installed again."""
    space = await create_namespace(f"{cluster.namespace}-left")
    await space.apply((ROOT / "examples/myvm.yaml").read_text())
    await Machine(space, "myvm").running()
    try:
        await _run_as_documented(_commands("Uninstalling"), skip="delete vm")
        await _run_as_documented(_commands("Machines that were left behind"))
        assert await space.all("vm") == await space.all("vmi") == []
        await space.kubectl("wait", "pod", "--all", "--for=delete", "--timeout=60s", timeout_s=70)
        await _run_as_documented(_commands("Resource definitions"))
        left = await cluster.kubectl(
            "get", "crd,mutatingwebhookconfiguration,validatingwebhookconfiguration,clusterrole", "-o", "name"
        )  # fmt: skip
        assert not re.search("kubevirt|podvisor|virt-", left.stdout), left.stdout
    finally:
        await run(str(ROOT / "dev/install"), timeout_s=170)
        await all_are_ready()
    await space.apply((ROOT / "examples/myvm.yaml").read_text())
    await Machine(space, "myvm").running(within_s=60)
    await space.kubectl("delete", "namespace", space.namespace, "--wait=false")
    await _namespace_gone(space.namespace)


def _commands(heading: str) -> str:
    """The shell commands under a heading of the document."""
    _, _, section = UNINSTALL.read_text().partition(f"## {heading}\n")
    blocks = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    assert blocks, f"{UNINSTALL} says nothing under {heading}"
    return "\n".join(blocks)


async def _run_as_documented(commands: str, *, skip: str = "") -> None:
    kept = [line for line in commands.splitlines() if not skip or skip not in line]
    script = "\n".join((f". {ROOT}/dev/env", "set -eu", *kept))
    await run("bash", "-c", script, timeout_s=120)


async def _namespace_gone(name: str) -> None:
    await Cluster("default").until("namespace", name, gone, within_s=60, what="gone")
