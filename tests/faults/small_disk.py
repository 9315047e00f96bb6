"""A pod whose private directory, or all of its scratch space, is a small disk of its own, which a test can fill without filling
the machine's.

Invariant: the disk is there before the kubelet makes the pod's directories, which it does not replace, and it goes with the pod.
The pod waits for it by an affinity to another one, which is made on the node when all is ready: a kubelet that hears late of that does not
refuse it, as it would if it waited for a label of its node.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.cluster import Cluster, Json, on_node
from tests.support.storage import TOOLBOX

NODE = "node1"
LABEL = "podvisor.test/starter"
SIZE_MIB = 48


def beside_starter(cluster: Cluster, machine: str) -> Json:
    """The affinity by which a machine waits for its disk."""
    term = {
        "labelSelector": {"matchLabels": _starter_labels(cluster, machine)},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _starter_labels(cluster: Cluster, machine: str) -> dict[str, str]:
    return {LABEL: f"{cluster.namespace}.{machine}"}


def volume_path(pod_uid: str, name: str) -> str:
    """An emptyDir of a pod, on its node."""
    return f"/var/lib/kubelet/pods/{pod_uid}/volumes/kubernetes.io~empty-dir/{name}"


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """The disk of one pod."""

    path: str

    async def fill(self, *, leave_mib: int = 0) -> None:
        """Leave so much room and no more."""
        ballast = f"{self.path}/ballast"
        await on_node(
            "sh", "-c",
            f"free=$(df --output=avail -k {self.path} | tail -1);"
            f" fallocate -l $((free - {leave_mib} * 1024))K {ballast}",
        )  # fmt: skip

    async def clear(self) -> None:
        """Give the room back."""
        await on_node("rm", "-f", f"{self.path}/ballast")


@asynccontextmanager
async def small_disk(
    cluster: Cluster, machine: str, volume: str = "private"
) -> AsyncIterator[SmallDisk]:
    """A small disk for the launcher pod of an instance that was applied with `beside_starter` and waits: for one of its emptyDirs, or
    for all of them with "".
    """

    def has_pod(state: Json | None) -> bool:
        conditions = (state or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "PodScheduled" for c in conditions)

    await cluster.until("vmi", machine, has_pod, within_s=20, what="its pod waits for a node")
    (pod,) = await cluster.all("pods", labels=f"vmi.kubevirt.io/id={machine}")
    disk = SmallDisk(volume_path(pod["metadata"]["uid"], volume))
    await on_node(
        "sh", "-c",
        # Until the pod is bound, the kubelet takes its directory for a left-over, and removes it while it is empty.
        f"for _ in 1 2 3 4 5; do mkdir -p {disk.path} &&"
        f" mount -t tmpfs -o size={SIZE_MIB}m,mode=0777 small {disk.path} && exit 0; done; exit 1",
    )  # fmt: skip
    try:
        yield disk
    finally:
        await cluster.kubectl(
            "delete", "pod", _starter(machine), "--ignore-not-found", "--wait=false"
        )
        await on_node("sh", "-c", f"umount -l {disk.path} 2>/dev/null; true")


async def let_it_start(cluster: Cluster, machine: str) -> None:
    """The pod for which the machine's waits is on the node."""
    container = {"name": "starter", "image": TOOLBOX, "command": ["sleep", "infinity"]}
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": _starter(machine), "labels": _starter_labels(cluster, machine)},
            "spec": {
                "nodeName": NODE,
                "containers": [container],
                "terminationGracePeriodSeconds": 0,
            },
        }
    )


def _starter(machine: str) -> str:
    return f"starter-{machine}"
