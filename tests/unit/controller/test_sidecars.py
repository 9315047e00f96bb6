"""Container disks where the cluster mounts no image as a volume: what the launcher pod has instead."""

import pytest
from podvisor_controller.config import ClusterConfig
from podvisor_controller.vmi.pod import render_pod

from tests.unit.controller.builders import CONFIG, IMAGE, Json, situations, vmi

HOLDING = ClusterConfig(launcher_image=IMAGE, image_pull_policy="Always", image_volumes=False)
IMAGES = "/run/podvisor/images"


def pod_spec(*disks: Json, config: ClusterConfig = HOLDING) -> Json:
    """The specification of a pod whose instance has these container disks."""
    volumes = [
        {"name": name, "containerDisk": disk}
        for disk in disks
        if (name := disk.pop("name", "root"))
    ]
    spec: Json = render_pod(vmi(spec={"volumes": volumes}), config, {})["spec"]
    return spec


def mounts(container: Json) -> dict[str, tuple[str, bool]]:
    return {
        m["name"]: (m["mountPath"], m.get("readOnly", False)) for m in container["volumeMounts"]
    }


def test_an_image_is_held_by_a_container_of_its_own() -> None:
    disk = {"image": "demo/disk:devel", "imagePullPolicy": "Never", "imagePullSecret": "registry"}
    spec = pod_spec(disk)
    assert not any("image" in volume for volume in spec["volumes"])
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    _, holder = spec["initContainers"]
    assert (holder["name"], holder["image"]) == ("volumeroot", "demo/disk:devel")
    assert holder["imagePullPolicy"] == "Never"
    assert [*holder["command"], *holder["args"]] == ["/run/podvisor/tools/image-holder", "root"]
    assert holder["workingDir"] == "/"
    assert holder["resources"]["requests"] == {"cpu": "1m", "memory": "4Mi"}
    assert mounts(holder) == {
        "tools": ("/run/podvisor/tools", True),
        "images": (IMAGES, False),
        "console": ("/run/podvisor/console", True),
    }


def test_a_kernels_image_is_held_as_well() -> None:
    boot = {"kernelBoot": {"container": {"image": "demo/kernel:1", "kernelPath": "/k"}}}
    domain = {"memory": {"guest": "64M"}, "devices": {}, "firmware": boot}
    spec = render_pod(vmi(spec={"domain": domain, "volumes": []}), HOLDING, {})["spec"]
    _, holder = spec["initContainers"]
    assert (holder["name"], holder["image"]) == ("kernel-boot", "demo/kernel:1")
    assert holder["args"] == ["_kernel"]
    assert mounts(spec["containers"][0])["images"] == (IMAGES, True)


def test_compute_sees_the_images_and_begins_when_they_are_there() -> None:
    spec = pod_spec({"image": "a"}, {"name": "data", "image": "b"})
    assert spec["shareProcessNamespace"] is True
    assert [(c["name"], c.get("restartPolicy")) for c in spec["initContainers"]] == [
        ("container-disk-binary", None),
        ("volumeroot", "Always"),
        ("volumedata", "Always"),
    ]
    compute, console_log = spec["containers"]
    assert mounts(compute)["images"] == (IMAGES, True)
    assert "images" not in mounts(console_log)


def test_the_program_comes_from_the_launchers_image() -> None:
    tools, _ = pod_spec({"image": "demo/disk:devel"})["initContainers"]
    assert (tools["image"], tools["imagePullPolicy"]) == (IMAGE, "Always")
    assert tools["command"] == [
        "cp",
        "/usr/libexec/podvisor/image-holder",
        "/run/podvisor/tools",
    ]
    assert mounts(tools) == {"tools": ("/run/podvisor/tools", False)}


def test_nothing_of_it_has_a_privilege_or_boundless_scratch_space() -> None:
    spec = pod_spec({"image": "demo/disk:devel"})
    for container in spec["initContainers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    limits = {v["name"]: v["emptyDir"]["sizeLimit"] for v in spec["volumes"] if "emptyDir" in v}
    assert limits.keys() >= {"tools", "images"}


def test_names_that_are_too_long_for_a_container_are_cut_and_stay_apart() -> None:
    long = ["a" * 62 + end for end in "xy"]
    _, *holders = pod_spec(*({"name": name, "image": "i"} for name in long))["initContainers"]
    assert len({holder["name"] for holder in holders}) == 2
    assert all(len(holder["name"]) <= 63 for holder in holders)
    assert [holder["args"] for holder in holders] == [[name] for name in long]


@pytest.mark.parametrize(
    ("disks", "config"),
    situations(
        ("no container disk", [], HOLDING),
        ("image volumes", [{"image": "a"}], CONFIG),
        ("perhaps image volumes", [{"image": "a"}], ClusterConfig(launcher_image=IMAGE)),
    ),
)
def test_where_nothing_is_to_be_held_the_pod_is_as_ever(
    disks: list[Json], config: ClusterConfig
) -> None:
    spec = pod_spec(*map(dict, disks), config=config)
    assert spec.keys().isdisjoint({"initContainers", "shareProcessNamespace"})
    assert not {"tools", "images"} & {volume["name"] for volume in spec["volumes"]}
    assert sum("image" in volume for volume in spec["volumes"]) == len(disks)
