"""A machine that is gone leaves its node as it found it."""

import re

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine, gone, vmi

LOOKS = {
    "processes": "ps -eo args= | grep -E 'qemu|/libvirtd|podvisor_launcher|supervisor|console-log' | grep -v grep",
    "mounts": "findmnt -rno TARGET | grep -E '/pods/|netns'",
    "links": "ip -o link | grep -oE 'veth[0-9a-f]+|tap[0-9]+|k6t-[a-z0-9]+'",
    "nft tables": "nft list tables",
    "network namespaces": "ls /run/netns",
    "pod directories": "ls /var/lib/kubelet/pods",
    "launcher links": "ls /run/podvisor/launchers",
}
TEST_NAMESPACE = re.compile(r"t[0-9a-f]{3}-\d+-")
# The kubelet tidies up a moment after the pod object has gone.
TIDY_UP_S = 20


async def _node_state() -> Json:
    state: Json = {}
    for name, look in LOOKS.items():
        done = await on_node("sh", "-c", look, check=False)
        state[name] = sorted(done.stdout.split("\n"))
    pid = (await on_node("pgrep", "-o", "-f", "podvisor_handler")).stdout.strip()
    descriptors = (await on_node("ls", "-l", f"/proc/{pid}/fd")).stdout
    # numbers of sockets, pipes and the like differ between any two moments; how many there are of each kind does not
    kinds = re.findall(r"-> (\S+?)[:\[(\s]", descriptors + "\n")
    state["handler descriptors"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    return state


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
    """Processes, mounts, links, nft tables, files and the handler's descriptors equal those before the machine."""
    await _machines_of_other_tests_are_gone()
    await _run_and_delete(cluster, "first")
    before = await _node_state()
    await _run_and_delete(cluster, "second")
    assert await _node_state() == before


async def _machines_of_other_tests_are_gone() -> None:
    """Wait for machines that are on their way out; what stays, such as the demo's, does not matter."""
    for pod in await Cluster("default").all("pods", "-A", "-l", "kubevirt.io=virt-launcher"):
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
