"""Data sources of cloud-init as a guest reads them: files and their content, public keys from Secrets, and the identity by which
cloud-init knows a new machine from one that was restarted."""

import json
import re

from tests.support.cluster import Cluster, Json
from tests.support.disks import guest_disks, with_disk
from tests.support.machine import Machine, gone, vm, vmi

KEYS = ("ssh-ed25519 AAAAfirst one@example", "ssh-ed25519 AAAAsecond two@example")
USER_DATA = "#cloud-config\nbootcmd: [echo ümlaut]\n"
NETWORK_DATA = json.dumps({"links": [{"id": "eth0", "type": "phy"}], "networks": []})
NETWORK_CONFIG = "version: 2\nethernets: {}\n"


async def test_config_drive(cluster: Cluster) -> None:
    """The files that OpenStack has, with user data, network data, public keys and what is tagged; nothing else."""
    await cluster.apply(_secret("keys", first=KEYS[0], second=f"{KEYS[1]}\n\n{KEYS[0]}\n"))
    await cluster.apply(_secret("network", networkdata=NETWORK_DATA))
    manifest = vmi("drive")
    source = {"userData": USER_DATA, "networkDataSecretRef": {"name": "network"}}
    with_disk(manifest, "config", {"cloudInitConfigDrive": source})
    with_disk(manifest, "tagged", {"emptyDisk": {"capacity": "1Mi"}})
    manifest["spec"]["domain"]["devices"]["disks"][-1]["tag"] = "role-data"
    manifest["spec"]["accessCredentials"] = [_keys_by("configDrive")]
    await cluster.apply(manifest)
    machine = Machine(cluster, "drive")
    await machine.console_shows("drive login:")

    label, files = await _files_on(machine, "config")
    assert label == "config-2"
    assert set(files) == {
        f"openstack/latest/{name}" for name in ("meta_data.json", "user_data", "network_data.json")
    }
    assert files["openstack/latest/user_data"] == USER_DATA
    assert files["openstack/latest/network_data.json"] == NETWORK_DATA
    meta_data = json.loads(files["openstack/latest/meta_data.json"])
    assert meta_data["hostname"] == "drive"
    assert list(meta_data["public_keys"].values()) == list(KEYS)
    [device] = meta_data["devices"]
    assert (device["serial"], device["tags"]) == ("tagged", ["role-data"])

    _, seed = await _files_on(machine, "seed")
    assert "public-keys" not in seed["meta-data"]


async def test_no_cloud(cluster: Cluster) -> None:
    """Public keys of a Secret stand beside the user data and the network configuration of the manifest."""
    await cluster.apply(_secret("keys", only="\n".join(KEYS)))
    manifest = vmi("plain")
    manifest["spec"]["volumes"][1]["cloudInitNoCloud"]["networkData"] = NETWORK_CONFIG
    manifest["spec"]["accessCredentials"] = [_keys_by("noCloud")]
    await cluster.apply(manifest)
    machine = Machine(cluster, "plain")
    await machine.console_shows("plain login:")
    label, files = await _files_on(machine, "seed")
    assert label == "cidata"
    assert set(files) == {"meta-data", "user-data", "network-config"}
    assert all(key in files["meta-data"] for key in KEYS)
    assert files["network-config"] == NETWORK_CONFIG
    assert "#cloud-config" in files["user-data"]


async def test_instance_of_cloud_init(cluster: Cluster) -> None:
    """The same over restarts of a machine, whatever ended its pod; another for the next machine of its name."""
    machine = Machine(cluster, "known")
    await cluster.apply(vm("known"))
    instance = await machine.running()
    first = await _instance_id(machine)
    pod = (await machine.pod())["metadata"]["name"]
    await cluster.kubectl("delete", "pod", pod, "--wait=false")
    await machine.running(within_s=60, not_uid=instance["metadata"]["uid"])
    assert await _instance_id(machine) == first
    await cluster.kubectl("delete", "vm", "known", "--timeout=30s")
    await cluster.until("vmi", "known", gone, within_s=20, what="gone")
    await cluster.apply(vm("known"))
    await machine.running()
    assert await _instance_id(machine) != first


async def _instance_id(machine: Machine) -> str:
    await machine.console_shows("known login:")
    _, files = await _files_on(machine, "seed")
    found = re.search(r"^instance-id: (.+)$", files["meta-data"], re.MULTILINE)
    assert found is not None
    return found[1]


async def _files_on(machine: Machine, volume: str) -> tuple[str, dict[str, str]]:
    """The label of the file system on a volume's disk, and its files as the guest reads them, by path."""
    disks = await guest_disks(machine)
    # The seed of a small machine has no serial number; it is the one that the guest found.
    device = disks[volume].device if volume in disks else "vdb"
    at = f"/mnt/{volume}"
    mounted = (
        f"mkdir -p {at} && mount -t iso9660 -o ro /dev/{device} {at} && cd {at} && find . -type f"
    )
    paths = (await machine.ssh(mounted)).stdout.split()
    files = {path.removeprefix("./"): await _text(machine, f"{at}/{path}") for path in paths}
    label = await machine.ssh(f"dd if=/dev/{device} bs=1 skip=32808 count=32 2>/dev/null")
    await machine.ssh(f"umount {at}")
    return label.stdout.strip(), files


async def _text(machine: Machine, path: str) -> str:
    return (await machine.ssh(f"cat {path}")).stdout


def _secret(name: str, **values: str) -> Json:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def _keys_by(way: str) -> Json:
    source = {"secret": {"secretName": "keys"}}
    return {"sshPublicKey": {"source": source, "propagationMethod": {way: {}}}}
