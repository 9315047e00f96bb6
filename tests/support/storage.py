"""Claims for tests: of the development cluster's CSI driver, and local volumes that a test makes on a node.

Invariant: a local volume goes with its context manager, together with what uses it: mounts, loop devices (the kubelet's too) and
bytes. Content is looked at from a pod that is no machine's, and never written by it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath
from typing import Literal

from tests.support.cluster import ROOT, Cluster, Json, on_node
from tests.support.process import run

CSI = "csi-hostpath"  # binds when a pod wants the claim
CSI_IMMEDIATE = "csi-hostpath-immediate"
SNAPSHOT_CLASS = "csi-hostpath"
TOOLBOX = "podvisor-dev/toolbox:latest"

VolumeMode = Literal["Filesystem", "Block"]

_ON_NODE = PurePosixPath("/var/lib/storage/local")
_looks = count()
_IN_POD: Mapping[VolumeMode, str] = {"Filesystem": "/claim", "Block": "/dev/claim"}


async def put_driver_into_cluster() -> None:
    """Make sure that claims of CSI and CSI_IMMEDIATE are served. Takes minutes where the driver was never built, else seconds."""
    await run(str(ROOT / "dev/storage"), timeout_s=600)


def claim(
    name: str,
    size: str = "64Mi",
    *,
    storage_class: str = CSI,
    mode: VolumeMode = "Filesystem",
    access_mode: str = "ReadWriteOnce",
    source: tuple[str, str] | None = None,
) -> Json:
    """A PersistentVolumeClaim; `source` is the kind and name of the VolumeSnapshot or claim whose content it starts with."""
    spec: Json = {
        "storageClassName": storage_class,
        "volumeMode": mode,
        "accessModes": [access_mode],
        "resources": {"requests": {"storage": size}},
    }
    if source is not None:
        group = {"apiGroup": "snapshot.storage.k8s.io"} if source[0] == "VolumeSnapshot" else {}
        spec["dataSource"] = {**group, "kind": source[0], "name": source[1]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": spec,
    }


def snapshot(name: str, *, of: str) -> Json:
    """A VolumeSnapshot of a claim of the CSI driver."""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {
            "volumeSnapshotClassName": SNAPSHOT_CLASS,
            "source": {"persistentVolumeClaimName": of},
        },
    }


def user_of(
    name: str, claim_name: str, mode: VolumeMode, *command: str, read_only: bool = False
) -> Json:
    """A pod of root's with a claim at /claim or /dev/claim, where it runs a command."""
    where: Json = (
        {"volumeMounts": [{"name": "claim", "mountPath": _IN_POD[mode]}]}
        if mode == "Filesystem"
        else {"volumeDevices": [{"name": "claim", "devicePath": _IN_POD[mode]}]}
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "user", "image": TOOLBOX, "command": [*command], **where}],
            "volumes": [
                {
                    "name": "claim",
                    "persistentVolumeClaim": {"claimName": claim_name, "readOnly": read_only},
                }
            ],
        },
    }


async def look_into(cluster: Cluster, claim_name: str, script: str) -> str:
    """What a shell script prints in a pod that can read the claim: a directory `/claim`, or a device `/dev/claim`.

    Raises AssertionError when the script fails.
    """
    found = await cluster.get("pvc", claim_name)
    assert found is not None, f"there is no claim {claim_name}"
    name = f"look-{next(_looks)}-into-{claim_name}"
    await cluster.apply(
        user_of(
            name, claim_name, found["spec"]["volumeMode"], "bash", "-ec", script, read_only=True
        )
    )
    ended = await cluster.until(
        "pod", name, _has_ended, within_s=60, what="the pod that looks has ended"
    )
    assert ended is not None
    printed = (await cluster.kubectl("logs", name)).stdout
    assert ended["status"]["phase"] == "Succeeded", printed
    await cluster.kubectl("delete", "pod", name, "--wait=false")
    return printed


async def checksum(cluster: Cluster, claim_name: str, file: str = "disk.img") -> str:
    """The SHA-256 of a file in a claim with a file system, or of the whole device of one without."""
    script = f"test -b /dev/claim && sha256sum /dev/claim || sha256sum /claim/{file}"
    return (await look_into(cluster, claim_name, script)).split()[0]


@dataclass(frozen=True, slots=True)
class LocalVolume:
    """A volume on a node and the claim for it, which has the volume's name."""

    name: str
    mode: VolumeMode
    node: str
    path: str  # the directory, or the device

    async def mount_again(self) -> None:
        """What a node with the volume in its fstab would have done when it booted."""
        await on_node("sh", "-c", f"mount -o loop {self.path}.img {self.path}", node=self.node)


@asynccontextmanager
async def local_volume(
    cluster: Cluster,
    name: str,
    size_bytes: int,
    mode: VolumeMode = "Filesystem",
    *,
    node: str = "node1",
    access_mode: str = "ReadWriteOnce",
    sector_bytes: int = 512,
) -> AsyncIterator[LocalVolume]:
    """A local volume of exactly that size with PersistentVolume, StorageClass and claim; bound when a pod wants it. A device has
    logical sectors of `sector_bytes`.

    Afterwards all machines and pods of the namespace are gone, too.
    """
    identity = f"{cluster.namespace}-{name}"
    path = await _make(str(_ON_NODE / identity), size_bytes, mode, node, sector_bytes)
    volume = LocalVolume(name, mode, node, path)
    try:
        for manifest in _objects(volume, identity, size_bytes, access_mode):
            await cluster.apply(manifest)
        yield volume
    finally:
        # Pods that hold volumes for guests go with these; told to end before that, they take their whole grace period.
        for kinds in ("vm,vmi", "pods"):
            await cluster.kubectl(
                "delete", kinds, "--all", "--timeout=60s", check=False, timeout_s=70
            )
        for kind, which in (("pvc", name), ("pv", identity), ("storageclass", identity)):
            await cluster.kubectl("delete", kind, which, "--ignore-not-found", "--timeout=30s")
        await _take_away(volume, str(_ON_NODE / identity))


def _objects(volume: LocalVolume, identity: str, size_bytes: int, access_mode: str) -> list[Json]:
    affinity = {"key": "kubernetes.io/hostname", "operator": "In", "values": [volume.node]}
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": identity},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": identity},
            "spec": {
                "capacity": {"storage": str(size_bytes)},
                "volumeMode": volume.mode,
                "accessModes": [access_mode],
                "storageClassName": identity,
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": volume.path},
                "nodeAffinity": {
                    "required": {"nodeSelectorTerms": [{"matchExpressions": [affinity]}]}
                },
            },
        },
        claim(
            volume.name,
            str(size_bytes),
            storage_class=identity,
            mode=volume.mode,
            access_mode=access_mode,
        ),
    ]


async def _make(path: str, size_bytes: int, mode: VolumeMode, node: str, sector_bytes: int) -> str:
    """The image `path`.img on a node, and what serves it: a directory with an ext4, or a loop device."""
    script = f"set -e; mkdir -p {_ON_NODE}; truncate -s {size_bytes} {path}.img;"
    if mode == "Filesystem":
        # The smallest that ext4 accepts, which has larger blocks from half a GiB on.
        journal_mib = 1 if size_bytes < 512 << 20 else 4
        script += (
            f" mkfs.ext4 -q -m 0 -J size={journal_mib} -N 64 -E nodiscard {path}.img; mkdir {path};"
            f" mount -o loop {path}.img {path}; echo {path}"
        )
    else:
        script += f" losetup --find --show --sector-size {sector_bytes} {path}.img"
    return (await on_node("sh", "-c", script, node=node)).stdout.strip()


async def _take_away(volume: LocalVolume, path: str) -> None:
    """Undo `_make`. The kubelet lets go of a device a moment after the pod has gone, or never if it was killed before."""
    if volume.mode == "Filesystem":
        script = f"umount {path}; rmdir {path};"
    else:
        above = f"losetup --noheadings --output NAME --associated {volume.path}"
        script = (
            f'for _ in $(seq 50); do [ -n "$({above})" ] || break; sleep 0.2; done;'
            f" for device in $({above}) {volume.path}; do losetup --detach $device; done;"
        )
    await on_node("sh", "-c", f"{script} rm {path}.img", node=volume.node)


def _has_ended(pod: Json | None) -> bool:
    return pod is not None and pod["status"].get("phase") in ("Succeeded", "Failed")
