"""A machine that is gone leaves its node as it found it."""

import re

import pytest

from tests.support.cluster import Cluster, on_node
from tests.support.machine import Machine, gone, vmi
from tests.support.node import node_at_rest, until_nothing_more

pytestmark = pytest.mark.alone

TEST_NAMESPACE = re.compile(r"t[0-9a-f]{3}-\d+-")
# The kubelet tidies up a moment after the pod object has gone.
TIDY_UP_S = 20


async def _run_and_delete(cluster: Cluster, name: str) -> None:
    await cluster.apply(vmi(name))
    machine = Machine(cluster, name)
    await machine.console_shows(rf"{name} login:")
    uid = (await machine.pod())["metadata"]["uid"]
    await cluster.kubectl("delete", "vmi", name, "--timeout=20s")
    await on_node(
        "sh", "-c", f"while [ -e /var/lib/kubelet/pods/{uid} ]; do sleep 0.2; done",
        timeout_s=TIDY_UP_S,
    )  # fmt: skip


async def test_node_is_as_before(cluster: Cluster) -> None:
    """No process, mount, link, nft table, control group, file or descriptor of the handler is there that was not before."""
    await _machines_of_other_tests_are_gone()
    await _run_and_delete(cluster, "first")
    before = await node_at_rest()
    await _run_and_delete(cluster, "second")
    await until_nothing_more(before, within_s=TIDY_UP_S)


async def _machines_of_other_tests_are_gone() -> None:
    """Wait for machines that are on their way out; what stays, such as the demo's, does not matter."""
    for pod in await Cluster("default").all(
        "pods", everywhere=True, labels="kubevirt.io=virt-launcher"
    ):
        meta = pod["metadata"]
        if not TEST_NAMESPACE.match(meta["namespace"]):
            continue
        await Cluster(meta["namespace"]).until(
            "pod", meta["name"], gone, within_s=60, what="another test's machine is gone"
        )
        await on_node(
            "sh", "-c", f"while [ -e /var/lib/kubelet/pods/{meta['uid']} ]; do sleep 0.2; done",
            timeout_s=TIDY_UP_S,
        )  # fmt: skip
