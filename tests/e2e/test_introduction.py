"""The introduction's manifest, exactly as written, becomes a machine that one can log into."""

import asyncio
import json
from decimal import Decimal

import pytest
import yaml

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.machine import Machine, gone

MANIFEST = ROOT / "examples/myvm.yaml"
VERSIONS = ("v1", "v1alpha3", "v1alpha1")


async def test_myvm_boots_and_lets_its_key_in(cluster: Cluster) -> None:
    """apply, login prompt under the machine's own name, ssh from outside with the manifest's key, three versions agree."""
    await cluster.apply(MANIFEST)
    machine = Machine(cluster, "myvm")
    running = await machine.running()
    assert running["status"]["nodeName"]
    pod = await machine.pod()
    assert pod["metadata"]["name"].startswith("virt-launcher-myvm-")

    await machine.console_shows(r"myvm login:")
    assert (await machine.ssh("hostname")).stdout.strip() == "myvm"

    for version in VERSIONS:
        status = await _vm_status(cluster, version)
        assert status["nodeName"] == running["status"]["nodeName"], version
        assert "Running" in (status.get("printableStatus"), status.get("phase")), version
    listed = (await cluster.kubectl("get", "vm", "myvm")).stdout
    assert "Running" in listed
    assert running["status"]["nodeName"] in listed


async def test_v1alpha1_is_read_back_as_written(cluster: Cluster) -> None:
    """A v1alpha1 client finds the spec it wrote, literal by literal."""
    await cluster.apply(MANIFEST)
    written = yaml.safe_load(MANIFEST.read_text())["spec"]
    assert (await _vm(cluster, "v1alpha1"))["spec"] == written
    v1 = await _vm(cluster, "v1")
    assert v1["spec"]["runStrategy"] == "Once"
    assert v1["spec"]["template"]["spec"]["domain"]["resources"]["requests"]["memory"] == "64M"
    async with asyncio.timeout(60):  # its status changes while it starts
        while (other := await _vm(cluster, "v1alpha3"))["metadata"] != v1["metadata"]:
            v1 = await _vm(cluster, "v1")
    assert other == v1 | {"apiVersion": "kubevirt.io/v1alpha3"}


async def test_myvm_is_reached_from_a_pod_through_a_service(
    cluster: Cluster, tools_pod: str
) -> None:
    """ssh with the manifest's key works from a pod, to the machine's address and through a Service's name."""
    await cluster.apply(MANIFEST)
    machine = Machine(cluster, "myvm")
    await machine.running()
    await machine.expose_ssh()
    await machine.console_shows(r"myvm login:")
    pod_ip = (await machine.pod())["status"]["podIP"]
    for target in (pod_ip, f"myvm-ssh.{cluster.namespace}.svc.cluster.local"):
        done = await cluster.kubectl(
            "exec", tools_pod, "--", "ssh", "-i", "/key/demo_key", "-o", "StrictHostKeyChecking=no",
            "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", f"root@{target}", "hostname",
        )  # fmt: skip
        assert done.stdout.strip() == "myvm", target


async def test_delete_leaves_nothing(cluster: Cluster) -> None:
    """`kubectl delete vm` ends with the machine, its instance and its pod gone within the grace period and five seconds."""
    await cluster.apply(MANIFEST)
    machine = Machine(cluster, "myvm")
    await machine.running()
    await machine.console_shows(r"myvm login:")
    await cluster.kubectl("delete", "vm", "myvm", "--timeout=10s")
    for kind in ("vm", "vmi"):
        assert await cluster.get(kind, "myvm") is None
    await cluster.until("vmi", "myvm", gone, within_s=1, what="gone")
    assert await cluster.all("pods") == []


async def _vm(cluster: Cluster, version: str) -> Json:
    text = (
        await cluster.kubectl("get", f"virtualmachines.{version}.kubevirt.io", "myvm", "-o", "json")
    ).stdout
    found: Json = json.loads(text, parse_float=Decimal)
    return found


async def _vm_status(cluster: Cluster, version: str) -> Json:
    def shows_node(state: Json | None) -> bool:
        return bool(state and state.get("status", {}).get("nodeName"))

    state = await cluster.until(
        f"virtualmachines.{version}.kubevirt.io",
        "myvm",
        shows_node,
        within_s=10,
        what="the status names the node",
    )
    assert state is not None
    status: Json = state["status"]
    return status


@pytest.mark.parametrize("name", ["vm", "vmi"])
async def test_examples_boot(cluster: Cluster, name: str) -> None:
    """The other examples boot as they are written, and their key lets in."""
    await cluster.apply(ROOT / f"examples/{name}.yaml")
    machine = Machine(cluster, name)
    await machine.console_shows(rf"{name} login:")
    assert (await machine.ssh("hostname")).stdout.strip() == name


async def test_ssh_service_reaches_myvm(cluster: Cluster) -> None:
    """The example Service selects the introduction's machine."""
    await cluster.apply(MANIFEST)
    await cluster.apply(ROOT / "examples/ssh-service.yaml")
    machine = Machine(cluster, "myvm")
    await machine.console_shows(r"myvm login:")
    # `ssh` uses the Service of this name when there is one
    assert (await machine.ssh("hostname")).stdout.strip() == "myvm"
