"""Volumes that are attached by the verbs of subresources.kubevirt.io: called through the API server, as virtctl does."""

import json
from typing import Any

import pytest

from tests.e2e.test_hotplug import SIZE, started
from tests.support.cluster import Cluster, Json
from tests.support.disks import guest_disks, read, write
from tests.support.hotplug import reaches, seen
from tests.support.storage import local_volume
from tests.support.verbs import GROUP, call, served

NOBODY = 'User "jane" cannot update resource "{}/addvolume" in API group "subresources.kubevirt.io"'


def add(name: str, **more: Any) -> Json:
    """What `virtctl addvolume` sends for a claim of the volume's name."""
    source = {"persistentVolumeClaim": {"claimName": name}}
    disk = {"disk": {"bus": "scsi"}, "serial": name}
    return {"name": name, "disk": disk, "volumeSource": source, **more}


async def volumes_of(cluster: Cluster, kind: str, name: str) -> list[str]:
    found = await cluster.get(kind, name)
    assert found is not None
    spec = found["spec"]["template"]["spec"] if kind == "vm" else found["spec"]
    return [volume["name"] for volume in spec["volumes"]]


@pytest.fixture(autouse=True)
async def api(cluster: Cluster) -> None:
    await served(cluster)


async def test_the_api_is_there(cluster: Cluster) -> None:
    """The API server knows both versions of it, and finds all that is served."""
    for version in ("v1", "v1alpha3"):
        found = json.loads((await cluster.kubectl("get", "--raw", f"{GROUP}/{version}")).stdout)
        assert "virtualmachines/addvolume" in [one["name"] for one in found["resources"]]
    anybody = ("--as=jane", "--as-group=system:authenticated")
    told = await cluster.kubectl("get", "--raw", f"{GROUP}/v1/version", *anybody)
    assert json.loads(told.stdout)["gitVersion"].startswith("v")
    listed = await cluster.kubectl("api-resources", "--api-group=subresources.kubevirt.io")
    assert listed.stderr == ""


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
async def test_volume_of_a_machine(cluster: Cluster, version: str) -> None:
    """It is in the guest and in the template, and then in neither. A dry run changes nothing."""
    async with local_volume(cluster, "data", SIZE):
        machine = await started(cluster, "asked")
        target = "virtualmachines/asked"

        async def said(verb: str, options: Json) -> str:
            return (await call(cluster, target, verb, options, version=version)).stderr

        assert await said("addvolume", add("data", dryRun=["All"])) == ""
        assert "data" not in await volumes_of(cluster, "vm", "asked")
        assert await said("addvolume", add("data")) == ""
        await reaches(cluster, "asked", "data", "Ready")
        assert (await seen(machine, "data")).device.startswith("sd")
        await write(machine, "data", "kept")
        assert "data" in await volumes_of(cluster, "vm", "asked")
        assert "volume with that name already exists" in await said("addvolume", add("data"))
        assert await said("removevolume", {"name": "data"}) == ""
        await reaches(cluster, "asked", "data", "")
        assert "data" not in await guest_disks(machine)
        assert await volumes_of(cluster, "vm", "asked") == ["root", "seed"]
        assert "it does not exist" in await said("removevolume", {"name": "data"})
        assert "it is not hotpluggable" in await said("removevolume", {"name": "root"})


async def test_volume_of_an_instance(cluster: Cluster) -> None:
    """The machine does not know of it: the guest has it for as long as this instance lasts."""
    async with local_volume(cluster, "data", SIZE):
        machine = await started(cluster, "brief")
        target = "virtualmachineinstances/brief"
        assert (await call(cluster, target, "addvolume", add("data"))).stderr == ""
        await reaches(cluster, "brief", "data", "Ready")
        await seen(machine, "data")
        await write(machine, "data", "mine")
        assert await read(machine, "data", 4) == "mine"
        assert await volumes_of(cluster, "vm", "brief") == ["root", "seed"]
        assert (await call(cluster, target, "removevolume", {"name": "data"})).stderr == ""
        await reaches(cluster, "brief", "data", "")
        assert await volumes_of(cluster, "vmi", "brief") == ["root", "seed"]


@pytest.mark.parametrize("plural", ["virtualmachines", "virtualmachineinstances"])
async def test_who_may(cluster: Cluster, plural: str) -> None:
    """Nobody without a role; who may edit in the namespace may attach, who may view may not."""
    target = f"{plural}/nobody"
    refused = await call(cluster, target, "addvolume", add("data"), "--as=jane")
    assert NOBODY.format(plural) in refused.stderr
    for role, answer in (("view", NOBODY.format(plural)), ("edit", '"nobody" not found')):
        await cluster.kubectl(
            "create", "rolebinding", f"jane-{role}", f"--clusterrole={role}", "--user=jane"
        )
        done = await call(cluster, target, "addvolume", add("data"), "--as=jane")
        assert answer in done.stderr
