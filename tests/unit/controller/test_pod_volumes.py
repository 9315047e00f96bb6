"""What a launcher pod has of volumes: their sources, their places, and what is read-only."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_controller.vmi.pod import render_pod
from podvisor_controller.vmi.pod_volumes import (
    UNKNOWN_OVERLAY_BYTES,
    PodVolumes,
    pod_volumes,
    private_limit_bytes,
)

from tests.unit.controller.builders import CONFIG, Json, claim, on_claim, situations, vmi

GIB = 1 << 30
FILES = "/run/podvisor/files/v"
SCRATCH = 4


def machine(*volumes: Json, **spec: Any) -> v1.VirtualMachineInstance:
    disks = [{"name": volume["name"], "disk": {}} for volume in volumes]
    domain = {"devices": {"disks": disks}}
    return vmi(spec={"domain": domain, "volumes": list(volumes)} | spec)


def held(
    instance: v1.VirtualMachineInstance, *claims: core.PersistentVolumeClaim
) -> tuple[list[Json], list[Json], list[Json]]:
    """What there is beside the scratch space: volumes, mounts and devices."""
    found = pod_volumes(instance, {c.metadata.name: c for c in claims}, with_images=True)
    return found.volumes[SCRATCH:], found.mounts[SCRATCH:], found.devices


def sources(instance: v1.VirtualMachineInstance) -> dict[str, Json]:
    """What is mounted where."""
    found: PodVolumes = pod_volumes(instance, {}, with_images=True)
    volumes = {v.pop("name"): v for v in msgspec.to_builtins(found.volumes)}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in found.mounts[SCRATCH:]}


@pytest.mark.parametrize(
    ("spec", "read_only"),
    situations(
        ("a disk", on_claim(), False),
        ("a disk that is read-only", on_claim(disk={"disk": {"readonly": True}}), True),
        ("a claim that is read-only", on_claim(source={"readOnly": True}), True),
        ("a CD-ROM", on_claim(disk={"cdrom": {}}), True),
        ("a unit", on_claim(disk={"lun": {}}), False),
        ("a unit that is read-only", on_claim(disk={"lun": {"readonly": True}}), True),
        (
            "an overlay",
            on_claim(volume={"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}}),
            True,
        ),
        ("a DataVolume", on_claim(volume={"dataVolume": {"name": "data"}}), False),
    ),
)
@pytest.mark.parametrize("mode", ["Filesystem", "Block"])
def test_claims(spec: Json, read_only: bool, mode: str) -> None:
    flag = {"readOnly": True} if read_only else {}
    volumes, mounts, devices = held(vmi(spec=spec), claim(mode=mode))
    source = {"claimName": "data"} | flag
    assert volumes == [{"name": "volume-data", "persistentVolumeClaim": source}]
    if mode == "Block":
        assert not mounts
        assert devices == [{"name": "volume-data", "devicePath": "/dev/podvisor/data"}]
    else:
        assert not devices
        path = "/run/podvisor/volumes/data"
        assert mounts == [{"name": "volume-data", "mountPath": path} | flag]


def test_a_claim_of_which_nothing_is_known_has_no_form() -> None:
    with pytest.raises(KeyError):
        pod_volumes(vmi(spec=on_claim()), {}, with_images=True)


def test_what_may_come_and_go_is_not_in_the_pod() -> None:
    instance = vmi(spec=on_claim(source={"hotpluggable": True}))
    assert held(instance) == ([], [], [])


def test_devices_are_of_the_container() -> None:
    instance = vmi(spec=on_claim())
    block = render_pod(instance, CONFIG, {"data": claim(mode="Block")})
    files = render_pod(instance, CONFIG, {"data": claim()})
    assert block["spec"]["containers"][0]["volumeDevices"]
    assert "volumeDevices" not in files["spec"]["containers"][0]


def test_a_disk_of_the_node_is_its_directory() -> None:
    disk = {"path": "/srv/disks/a.img", "type": "DiskOrCreate"}
    volumes, mounts, _ = held(machine({"name": "v", "hostDisk": disk}))
    directory = {"path": "/srv/disks", "type": "DirectoryOrCreate"}
    assert volumes == [{"name": "volume-v", "hostPath": directory}]
    assert mounts == [{"name": "volume-v", "mountPath": "/run/podvisor/volumes/v"}]


def test_container_disks_are_image_volumes() -> None:
    disk = {"image": "demo/disk:devel", "imagePullPolicy": "Never", "imagePullSecret": "registry"}
    instance = machine({"name": "root", "containerDisk": disk})
    volumes, mounts, _ = held(instance)
    source = {"reference": "demo/disk:devel", "pullPolicy": "Never"}
    assert volumes == [{"name": "disk-root", "image": source}]
    path = "/run/podvisor/images/root"
    assert mounts == [{"name": "disk-root", "mountPath": path, "readOnly": True}]
    pod = render_pod(instance, CONFIG, {})
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_a_kernels_image_is_an_image_volume() -> None:
    image = {"image": "demo/kernel:1", "imagePullPolicy": "Never", "imagePullSecret": "registry"}
    boot = {"kernelBoot": {"container": image | {"kernelPath": "/k"}}}
    domain = {"memory": {"guest": "64M"}, "devices": {}, "firmware": boot}
    instance = vmi(spec={"domain": domain, "volumes": []})
    volumes, mounts, _ = held(instance)
    source = {"reference": "demo/kernel:1", "pullPolicy": "Never"}
    assert volumes == [{"name": "kernel-boot", "image": source}]
    path = "/run/podvisor/images/_kernel"
    assert mounts == [{"name": "kernel-boot", "mountPath": path, "readOnly": True}]
    pod = render_pod(instance, CONFIG, {})
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]


SECRET = {"secret": {"secretName": "s", "defaultMode": 0o440, "optional": True}}
CONFIG_MAP = {"configMap": {"name": "c", "defaultMode": 0o440, "optional": True}}
DOWNWARD = [
    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
    {
        "path": "cpu",
        "resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"},
        "mode": 0o400,
    },
    {
        "path": "log",
        "resourceFieldRef": {"resource": "limits.cpu", "containerName": "guest-console-log"},
    },
]
DOWNWARD_SENT = [
    DOWNWARD[0],
    {
        "path": "cpu",
        "resourceFieldRef": {"containerName": "compute", "resource": "limits.cpu", "divisor": "1m"},
        "mode": 0o400,
    },
    DOWNWARD[2],
]
CLOUD_INIT = {"secretRef": {"name": "s"}, "networkDataSecretRef": {"name": "n"}}
SEEDS = {
    "/run/podvisor/secrets/v/user-data": SECRET,
    "/run/podvisor/secrets/v/network-data": {"secret": SECRET["secret"] | {"secretName": "n"}},
}


@pytest.mark.parametrize(
    ("volume", "expected"),
    situations(
        ("NoCloud", {"cloudInitNoCloud": CLOUD_INIT}, SEEDS),
        ("ConfigDrive", {"cloudInitConfigDrive": CLOUD_INIT}, SEEDS),
        ("clear text", {"cloudInitConfigDrive": {"userData": "hunter2"}}, {}),
        ("a Secret", {"secret": {"secretName": "s"}}, {FILES: SECRET}),
        ("a ConfigMap", {"configMap": {"name": "c", "optional": False}}, {FILES: CONFIG_MAP}),
        ("sysprep from a Secret", {"sysprep": {"secret": {"name": "s"}}}, {FILES: SECRET}),
        (
            "sysprep from a ConfigMap",
            {"sysprep": {"configMap": {"name": "c"}}},
            {FILES: CONFIG_MAP},
        ),
        (
            "facts about the pod",
            {"downwardAPI": {"fields": DOWNWARD, "volumeLabel": "facts"}},
            {FILES: {"downwardAPI": {"defaultMode": 0o440, "items": DOWNWARD_SENT}}},
        ),
        ("an empty disk", {"emptyDisk": {"capacity": "1Gi"}}, {}),
    ),
)
def test_files(volume: Json, expected: Json) -> None:
    instance = machine({"name": "v", **volume})
    assert sources(instance) == expected
    _, mounts, _ = held(instance)
    assert all(mount["readOnly"] for mount in mounts)


def test_a_service_account_is_the_pods_own() -> None:
    instance = machine({"name": "v", "serviceAccount": {"serviceAccountName": "robot"}})
    token, authority, namespace = sources(instance)[FILES]["projected"]["sources"]
    assert token["serviceAccountToken"]["path"] == "token"
    assert authority["configMap"]["name"] == "kube-root-ca.crt"
    assert namespace["downwardAPI"]["items"][0]["fieldRef"] == {"fieldPath": "metadata.namespace"}
    spec = render_pod(instance, CONFIG, {})["spec"]
    assert spec["serviceAccountName"] == "robot"
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in render_pod(machine(), CONFIG, {})["spec"]


def test_secrets_with_credentials_are_mounted_once() -> None:
    def key(secret: str, how: str) -> Json:
        source = {"secret": {"secretName": secret}}
        return {"sshPublicKey": {"source": source, "propagationMethod": {how: {}}}}

    by_agent = key("live", "qemuGuestAgent")
    credentials = [key("s", "noCloud"), key("s", "configDrive"), key("team.keys", "noCloud")]
    password = {"userPassword": key("live", "qemuGuestAgent")["sshPublicKey"]}
    found = sources(machine(accessCredentials=[*credentials, by_agent, password]))
    directory = "/run/podvisor/credentials"
    assert found == {
        f"{directory}/s": SECRET,
        f"{directory}/team.keys": {"secret": SECRET["secret"] | {"secretName": "team.keys"}},
        f"{directory}/live": {"secret": SECRET["secret"] | {"secretName": "live"}},
    }


def test_names_that_no_volume_can_have_are_changed_and_stay_apart() -> None:
    long = ["a" * 62 + end for end in "xy"]
    disks: list[Json] = [{"name": name, "containerDisk": {"image": "i"}} for name in long]
    seeds: list[Json] = [{"name": n, "cloudInitNoCloud": CLOUD_INIT} for n in ("a.b", "a-b")]
    volumes, mounts, _ = held(machine(*disks, *seeds))
    names = [volume["name"] for volume in volumes]
    assert len(set(names)) == len(names) == 6
    assert all(len(name) <= 63 and "." not in name for name in names)
    assert f"/run/podvisor/images/{long[0]}" in [mount["mountPath"] for mount in mounts]


@pytest.mark.parametrize(
    ("volumes", "least"),
    situations(
        ("nothing", [], 0),
        ("an empty disk", [{"emptyDisk": {"capacity": "200Gi"}}], 200 * GIB),
        (
            "two",
            [{"emptyDisk": {"capacity": "200Gi"}}, {"emptyDisk": {"capacity": "1Ti"}}],
            1224 * GIB,
        ),
        (
            "an image of a size unknown here",
            [{"containerDisk": {"image": "i"}}],
            UNKNOWN_OVERLAY_BYTES,
        ),
        (
            "an overlay over a claim, in which may be an image of any size",
            [{"ephemeral": {"persistentVolumeClaim": {"claimName": "data"}}}],
            UNKNOWN_OVERLAY_BYTES,
        ),
    ),
)
def test_no_guest_is_evicted_for_what_its_disks_hold(volumes: list[Json], least: int) -> None:
    instance = machine(*({"name": f"v{n}", **volume} for n, volume in enumerate(volumes)))
    # Tables of the images, and what else is there.
    assert private_limit_bytes(instance, {"data": claim()}) >= least + least // 4096 + GIB


def test_a_capacity_that_makes_no_sense_is_a_bound_that_the_api_takes() -> None:
    volumes = [{"name": f"v{n}", "emptyDisk": {"capacity": "7Ei"}} for n in range(3)]
    assert private_limit_bytes(machine(*volumes), {}) == 2**63 - 1


@pytest.mark.parametrize(
    ("spec", "mode", "told"),
    situations(
        ("a file system", on_claim(), "Filesystem", {"10", "131072"}),
        ("a device", on_claim(), "Block", set()),
        ("one that comes and goes", on_claim(source={"hotpluggable": True}), "Filesystem", set()),
    ),
)
def test_the_handler_is_told_how_images_are_made(spec: Json, mode: str, told: set[str]) -> None:
    pod = render_pod(vmi(spec=spec), CONFIG, {"data": claim(mode=mode)})
    annotations = pod["metadata"]["annotations"]
    keys = ("podvisor.io/pvc-tolerated-shortfall-percent", "podvisor.io/pvc-reserve-bytes")
    assert {annotations[key] for key in keys if key in annotations} == told


def test_a_claim_with_many_files_is_not_gone_through_at_every_start() -> None:
    context = render_pod(vmi(), CONFIG, {})["spec"]["securityContext"]
    assert (context["fsGroup"], context["fsGroupChangePolicy"]) == (107, "OnRootMismatch")
