"""A running cluster is upgraded: machines stay with the launcher that they were started with, and a new handler takes them over.

That builds with different contracts understand each other is shown in tests/contract; here it is that nobody's guest notices.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.guest import booted, counting_vm, counting_vmi, lived_on, witness_of
from tests.faults.history import History
from tests.faults.measured import Measured
from tests.support.cluster import Cluster
from tests.support.machine import Machine, gone
from tests.support.process import run

INSTALL = Cluster("kubevirt")
TAKEN_OVER_S = 30.0
ROLLED_OUT_S = 90
ENDED_S = 20.0
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


async def test_a_new_handler_takes_over(
    cluster: Cluster, survivor: Machine, history: History, measured: Measured
) -> None:
    """The handler's pod is replaced, as by an upgrade: nobody reads of it, and the guest does not notice."""
    before = await witness_of(survivor)
    replaced_s = time.time()
    await INSTALL.kubectl("delete", "pod", "-l", "app.kubernetes.io/component=virt-handler")
    taken_over = await history.first(
        "domain",
        survivor.name,
        lambda seen: seen.is_right,
        after_s=time.time(),
        within_s=60,
        what="the new handler lists the running domain",
    )
    await lived_on(survivor, before)
    assert history.phases("vmi", survivor.name) == {"Running"}, history
    assert {seen.condition("Ready")[0] for seen in history.of("vmi", survivor.name)} == {"True"}
    measured.add("handler replaced, machines taken over", taken_over.at_s - replaced_s, limit_s=TAKEN_OVER_S)  # fmt: skip


@pytest.mark.long
async def test_a_new_launcher_leaves_machines_alone(cluster: Cluster, history: History) -> None:
    """Another launcher image is for machines that are started from now on; the others run on, and can be stopped."""
    elder = await booted(cluster, counting_vm("elder"))
    before = await witness_of(elder)
    old_image = await _image_of(elder)
    async with _another_launcher_image() as image:
        await cluster.apply(counting_vmi("younger"))
        younger = Machine(cluster, "younger")
        await younger.running(within_s=60)
        assert await _image_of(younger) == image
        await lived_on(elder, before)
        assert await _image_of(elder) == old_image
        assert history.last("vmi", elder.name).is_right, history
        assert history.phases("vmi", elder.name).isdisjoint({"Failed", "Succeeded"}), history
        await cluster.kubectl("delete", "vm", elder.name, "--wait=false")
        await cluster.until("vmi", elder.name, gone, within_s=ENDED_S, what="the old one is gone")
        assert "Failed" not in history.phases("vmi", elder.name), history
        await cluster.kubectl("delete", "vmi", younger.name, "--wait=false")
        await cluster.until("vmi", younger.name, gone, within_s=ENDED_S, what="the new one is gone")


async def _image_of(machine: Machine) -> str:
    containers = (await machine.pod())["spec"]["containers"]
    image: str = next(c["image"] for c in containers if c["name"] == "compute")
    return image


@asynccontextmanager
async def _another_launcher_image() -> AsyncIterator[str]:
    """The launcher under another name in the cluster's registry, used by the controller for the body."""
    path = "{.spec.template.spec.containers[0].env[?(@.name=='LAUNCHER_IMAGE')].value}"
    found = await INSTALL.kubectl("get", "deploy", "virt-controller", "-o", f"jsonpath={path}")
    image = found.stdout.strip()
    name, tag = image.rsplit(":", 1)
    registry, repository = name.split("/", 1)
    manifests = f"http://{registry}/v2/{repository}/manifests"
    # The same content: what is looked at is who runs what, not what it does.
    await run(
        "bash", "-c",
        f"curl -fsS -H 'Accept: {_MANIFEST}' {manifests}/{tag} |"
        f" curl -fsS -X PUT -H 'Content-Type: {_MANIFEST}' --data-binary @- {manifests}/{tag}-next",
    )  # fmt: skip
    await _use(f"{image}-next")
    try:
        yield f"{image}-next"
    finally:
        await _use(image)


async def _use(image: str) -> None:
    await INSTALL.kubectl("set", "env", "deploy/virt-controller", f"LAUNCHER_IMAGE={image}")
    await INSTALL.kubectl(
        "rollout", "status", "deploy/virt-controller", f"--timeout={ROLLED_OUT_S}s",
        timeout_s=ROLLED_OUT_S + 5,
    )  # fmt: skip
