"""Trees of files that a guest shares: a claim that it writes to, a ConfigMap and a Secret that it reads."""

from collections.abc import AsyncIterator

import pytest

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine, condition, vmi

MOUNT = (
    "mkdir -p /mnt/{0} && until mount -t virtiofs {0} /mnt/{0} 2>/dev/null; do usleep 100000; done"
)


@pytest.fixture
async def directory(cluster: Cluster) -> AsyncIterator[str]:
    """A directory of the node that belongs to the launchers' user, bound to the claim `data`."""
    name = f"{cluster.namespace}-data"
    path = f"/var/lib/{name}"
    await on_node("install", "-d", "-o", "107", "-g", "107", path)
    shape: Json = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            **shape,
            "capacity": {"storage": "64Mi"},
            "hostPath": {"path": path},
            "claimRef": {"namespace": cluster.namespace, "name": "data"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {
            **shape,
            "volumeName": name,
            "resources": {"requests": {"storage": "64Mi"}},
        },
    }
    await cluster.apply(volume)
    await cluster.apply(claim)
    yield path
    await cluster.kubectl("delete", "persistentvolume", name, "--wait=false")
    await on_node("rm", "-rf", path)


def sharing(name: str, **sources: Json) -> Json:
    """A machine that shares these volumes, by their names, beside its disks."""
    machine = vmi(name)
    spec = machine["spec"]
    spec["domain"]["devices"]["filesystems"] = [{"name": each, "virtiofs": {}} for each in sources]
    spec["volumes"] += [{"name": each, **source} for each, source in sources.items()]
    return machine


def keyed(kind: str, name: str, **data: str) -> Json:
    """A ConfigMap or a Secret."""
    field = "stringData" if kind == "Secret" else "data"
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: data}


async def test_a_claim_is_shared_by_two_guests(cluster: Cluster, directory: str) -> None:
    """What one writes the other reads, and it is on the volume when both have gone."""
    claim = {"persistentVolumeClaim": {"claimName": "data"}}
    machines = [Machine(cluster, name) for name in ("writer", "reader")]
    for machine in machines:
        await cluster.apply(sharing(machine.name, data=claim))
    for machine in machines:
        await machine.console_shows(rf"{machine.name} login:")
        await machine.ssh(MOUNT.format("data"))
    writer, reader = machines
    await writer.ssh("mkdir /mnt/data/sub && echo hello > /mnt/data/sub/file && sync")
    assert (await reader.ssh("sleep 1; cat /mnt/data/sub/file")).stdout == "hello\n"
    await cluster.kubectl("delete", "vmi", "writer", "reader", timeout_s=90)
    found = await on_node("find", directory, "-type", "f", "-exec", "cat", "{}", "+")
    assert found.stdout == "hello\n"  # and no disk.img beside it


async def test_what_the_cluster_holds_is_read_and_kept_up_to_date(cluster: Cluster) -> None:
    """A guest waits for the Secret that it shares, reads it and a ConfigMap, and can change neither."""
    await cluster.apply(keyed("ConfigMap", "settings", colour="blue"))
    await cluster.apply(
        sharing(
            "files",
            config={"configMap": {"name": "settings"}},
            token={"secret": {"secretName": "late"}},
        )
    )
    waits = await cluster.until(
        "vmi",
        "files",
        lambda state: '"late"' in condition(state, "Synchronized").get("message", ""),
        within_s=30,
        what="the missing Secret is named",
    )
    assert condition(waits, "Ready").get("status") != "True"
    await cluster.apply(keyed("Secret", "late", password="opensesame"))
    machine = Machine(cluster, "files")
    await machine.console_shows(r"files login:", within_s=150)
    await machine.ssh(f"{MOUNT.format('config')}; {MOUNT.format('token')}")
    said = await machine.ssh("cat /mnt/config/colour; echo; cat /mnt/token/password")
    assert said.stdout.split() == ["blue", "opensesame"]
    refused = await machine.ssh("touch /mnt/config/new 2>&1 || rm /mnt/token/password 2>&1 || true")
    assert refused.stdout.count("Read-only file system") == 2


async def test_a_guest_keeps_its_files_when_its_keepers_die(cluster: Cluster) -> None:
    await cluster.apply(keyed("ConfigMap", "settings", colour="blue"))
    await cluster.apply(sharing("kept", config={"configMap": {"name": "settings"}}))
    machine = Machine(cluster, "kept")
    await machine.console_shows(r"kept login:")
    await machine.ssh(MOUNT.format("config"))
    for keeper in ("podvisor_launcher", "libvirtd"):
        await machine.kill(keeper)
    assert (await machine.ssh("cat /mnt/config/colour")).stdout == "blue"


async def test_a_disk_has_no_files_to_share(cluster: Cluster) -> None:
    machine = sharing("wrong", data={"emptyDisk": {"capacity": "64Mi"}})
    field = "spec.domain.devices.filesystems[0].name"
    assert f"{field} 'data' is a volume without files to share" in await cluster.refused(machine)
