"""A machine that is gone leaves its node as it found it."""

import re

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine, vmi

LOOKS = {
    "processes": "ps -eo args= | grep -E 'qemu|libvirtd|podvisor_launcher|supervisor|console-log' | grep -v grep",
    "mounts": "findmnt -rno TARGET | grep -E '/pods/|netns'",
    "links": "ip -o link | grep -oE 'veth[0-9a-f]+|tap[0-9]+|k6t-[a-z0-9]+'",
    "nft tables": "nft list tables",
    "network namespaces": "ls /run/netns",
    "pod directories": "ls /var/lib/kubelet/pods",
    "launcher links": "ls /run/podvisor/launchers",
}


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


async def test_node_is_as_before(cluster: Cluster) -> None:
    """Processes, mounts, links, nft tables, files and the handler's descriptors equal those before the machine."""
    await cluster.apply(vmi("first"))
    await Machine(cluster, "first").running()
    await cluster.kubectl("delete", "vmi", "first", "--timeout=20s")
    before = await _node_state()

    await cluster.apply(vmi("second"))
    machine = Machine(cluster, "second")
    await machine.console_shows(r"second login:")
    await cluster.kubectl("delete", "vmi", "second", "--timeout=20s")

    assert await _node_state() == before
