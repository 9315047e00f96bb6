"""What tests of storage rely on in the development cluster: claims that are made, grow, are snapshotted, and hold what was written.

Proven by plain pods: no machine takes part. The tests of machines fail when this does; so it is for whoever changes the stack.
"""

import asyncio
from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster, Json, on_node
from tests.support.storage import (
    CSI_IMMEDIATE,
    VolumeMode,
    checksum,
    claim,
    local_volume,
    look_into,
    snapshot,
    user_of,
)

MIB = 1 << 20
# The kubelet looks after the size of a mounted volume when it looks after its pod.
GROWS_WITHIN_S = 40

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(150),
    pytest.mark.usefixtures("storage_classes"),
]


def as_launcher(pod: Json) -> Json:
    """The pod as the user whom machines run as, without a capability."""
    pod["spec"]["securityContext"] = {"runAsUser": 107, "runAsGroup": 107, "fsGroup": 107}
    pod["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    return pod


async def running(cluster: Cluster, pod: Json) -> str:
    """Start a pod and wait until it is ready; its name."""
    await cluster.apply(pod)
    name: str = pod["metadata"]["name"]
    await cluster.kubectl(
        "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s", timeout_s=70
    )
    return name


async def in_pod(cluster: Cluster, pod: str, script: str) -> str:
    """What a script prints in a running pod."""
    return (await cluster.kubectl("exec", pod, "--", "bash", "-ec", script)).stdout.strip()


def has_capacity(size: str) -> Callable[[Json | None], bool]:
    """A condition for Cluster.until on a claim: it has that size."""
    return lambda state: (state or {}).get("status", {}).get("capacity", {}).get("storage") == size


async def grow(cluster: Cluster, name: str, size: str) -> None:
    """Ask for a larger claim and wait until it is."""
    await cluster.kubectl(
        "patch", "pvc", name, "-p", f'{{"spec":{{"resources":{{"requests":{{"storage":"{size}"}}}}}}}}'
    )  # fmt: skip
    await cluster.until(
        "pvc", name, has_capacity(size), within_s=GROWS_WITHIN_S, what=f"has {size}"
    )


async def snapshot_of(cluster: Cluster, name: str, of: str) -> None:
    """Take a snapshot and wait until it can be used."""
    await cluster.apply(snapshot(name, of=of))
    await cluster.until(
        "volumesnapshot",
        name,
        lambda state: bool((state or {}).get("status", {}).get("readyToUse")),
        within_s=30,
        what="ready to use",
    )


async def test_claim_has_a_size_and_grows_under_its_user(cluster: Cluster) -> None:
    """A claim waits for its first pod, holds as much as it says and no more, and grows while the pod writes to it."""
    await cluster.apply(claim("data"))
    pod = await running(
        cluster, as_launcher(user_of("user", "data", "Filesystem", "sleep", "infinity"))
    )
    fill = "head -c 100M /dev/zero >/claim/disk.img 2>/tmp/why || cat /tmp/why"
    assert "No space left on device" in await in_pod(cluster, pod, fill)
    before = int(await in_pod(cluster, pod, "stat -c %s /claim/disk.img"))
    assert 0.9 * 64 * MIB < before < 1.1 * 64 * MIB

    await grow(cluster, "data", "128Mi")
    assert await in_pod(cluster, pod, fill) == ""
    assert await in_pod(cluster, pod, "stat -c %s /claim/disk.img") == str(100 * MIB)


async def test_snapshot_holds_what_was_written(cluster: Cluster) -> None:
    """A snapshot under a writing pod is restored into a larger claim, and a claim is cloned; what came later is in neither."""
    await cluster.apply(claim("data"))
    pod = await running(cluster, user_of("user", "data", "Filesystem", "sleep", "infinity"))
    await in_pod(cluster, pod, "head -c 5M /dev/urandom >/claim/disk.img")
    written = await in_pod(cluster, pod, "sha256sum </claim/disk.img | cut -d' ' -f1")
    await snapshot_of(cluster, "snap", of="data")
    await cluster.apply(claim("cloned", source=("PersistentVolumeClaim", "data")))
    assert await checksum(cluster, "cloned") == written

    await in_pod(cluster, pod, "echo later >>/claim/disk.img")
    await cluster.apply(claim("restored", "96Mi", source=("VolumeSnapshot", "snap")))
    assert await checksum(cluster, "restored") == written
    assert await checksum(cluster, "data") != written
    free = int(await look_into(cluster, "restored", "df --output=size -m /claim | tail -n 1"))
    assert free > 80


async def own_device(pod: str, cluster: Cluster) -> None:
    """Give a pod's user the device, as virt-handler does for a launcher: the runtime leaves it root's."""
    state = await cluster.get("pod", pod)
    assert state is not None
    await on_node(
        "sh", "-c",
        f"for pid in $(grep -ls {state['metadata']['uid']} /proc/[0-9]*/cgroup | cut -d/ -f3); do"
        " [ ! -b /proc/$pid/root/dev/claim ] || chown 107:107 /proc/$pid/root/dev/claim; done",
    )  # fmt: skip


async def test_block_claim_is_written_by_an_unprivileged_user(cluster: Cluster) -> None:
    """A raw volume bound at once: uid 107 writes to it, it grows under its user, and another pod reads the same bytes."""
    await cluster.apply(claim("raw", storage_class=CSI_IMMEDIATE, mode="Block"))
    pod = await running(cluster, as_launcher(user_of("user", "raw", "Block", "sleep", "infinity")))
    await own_device(pod, cluster)
    await in_pod(
        cluster, pod, "head -c 64M /dev/urandom | dd of=/dev/claim bs=1M conv=fsync status=none"
    )
    written = await in_pod(cluster, pod, "sha256sum </dev/claim | cut -d' ' -f1")
    assert await checksum(cluster, "raw") == written

    await snapshot_of(cluster, "snap", of="raw")
    await grow(cluster, "raw", "80Mi")
    assert await in_pod(cluster, pod, "wc -c </dev/claim") == str(80 * MIB)
    await cluster.apply(
        claim("restored", storage_class=CSI_IMMEDIATE, mode="Block", source=("VolumeSnapshot", "snap"))
    )  # fmt: skip
    assert await checksum(cluster, "restored") == written


@pytest.mark.parametrize("mode", ["Filesystem", "Block"])
async def test_local_volume_leaves_nothing(cluster: Cluster, mode: VolumeMode) -> None:
    """A local volume keeps what one pod wrote for the next, and takes mounts, devices and bytes with it."""
    target = {"Filesystem": "/claim/disk.img", "Block": "/dev/claim"}[mode]
    async with local_volume(cluster, "local", 32 * MIB, mode):
        pod = await running(cluster, user_of("user", "local", mode, "sleep", "infinity"))
        await in_pod(
            cluster, pod, f"head -c 4M /dev/urandom | dd of={target} bs=1M conv=fsync status=none"
        )
        size = await in_pod(cluster, pod, f"wc -c <{target}")
        assert int(size) == (4 if mode == "Filesystem" else 32) * MIB
        written = await in_pod(cluster, pod, f"sha256sum <{target} | cut -d' ' -f1")
        assert await checksum(cluster, "local") == written
    await gone_from_node(f"{cluster.namespace}-local")


async def gone_from_node(identity: str) -> None:
    """Nothing on the node knows of a local volume any more. Raises AssertionError that says what does."""
    look = (
        f"losetup --list --noheadings | grep {identity}; findmnt -rn | grep {identity};"
        f" ls -d /var/lib/storage/local/{identity}* 2>/dev/null"
    )
    left = ""
    try:
        async with asyncio.timeout(20):
            while left := (await on_node("sh", "-c", look, check=False)).stdout:
                pass
    except TimeoutError:
        raise AssertionError(left) from None
