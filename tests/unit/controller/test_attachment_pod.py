"""The pod that holds a volume for a running guest: what is in it, and what the cache keeps of it."""

import pytest
from podvisor_controller.vmi.attachment_pod import render_attachment_pod
from podvisor_controller.vmi.outline import outline

from tests.unit.controller.builders import (
    CONFIG,
    IMAGE,
    UID,
    Json,
    claim,
    pod,
    situations,
    vmi,
)
from tests.unit.controller.plugged import (
    FIRST,
    LAUNCHER,
    disk,
    holder,
    running,
    volume,
    with_volumes,
)


def rendered(spec: Json, mode: str = "Filesystem") -> Json:
    [wanted] = [v for v in vmi(spec=spec).spec.volumes or () if v.is_hotpluggable]
    instance = running(spec=spec)
    return render_attachment_pod(FIRST, instance, wanted, claim(mode=mode), LAUNCHER, CONFIG)


def test_the_pod() -> None:
    manifest = rendered(with_volumes(volume()))
    metadata, spec = manifest["metadata"], manifest["spec"]
    assert FIRST.startswith("hp-volume-")
    assert len(FIRST) == len("hp-volume-") + 10
    assert (metadata["name"], metadata["namespace"]) == (FIRST, "shop")
    assert metadata["labels"] == {
        "kubevirt.io": "hotplug-disk",
        "kubevirt.io/created-by": UID,
        "podvisor.io/volume": "data",
    }
    assert metadata["annotations"]["kubevirt.io/owner-vmi-name"] == "myvm"
    assert metadata["annotations"]["podvisor.io/claim"] == "data"
    [owner] = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Pod", "pod-1", True)
    [term] = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert not spec["automountServiceAccountToken"]
    # The launcher pod's is 30 seconds more than the guest's.
    assert spec["terminationGracePeriodSeconds"] == running().grace_period_s + 60
    assert spec["securityContext"]["runAsUser"] == 107
    [container] = spec["containers"]
    assert container["image"] == IMAGE
    assert container["command"] == ["/usr/libexec/podvisor/volume-holder"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"name": "sockets", "mountPath": "/run/podvisor/sockets"} in container["volumeMounts"]


@pytest.mark.parametrize(
    ("spec", "mode", "mounted"),
    situations(
        (
            "a file system",
            with_volumes(volume()),
            "Filesystem",
            {"name": "volume", "mountPath": "/run/podvisor/volumes/data"},
        ),
        (
            "a file system that is read",
            with_volumes(volume(), disks=(disk(cdrom={"bus": "sata"}),)),
            "Filesystem",
            {"name": "volume", "mountPath": "/run/podvisor/volumes/data", "readOnly": True},
        ),
        (
            "a device",
            with_volumes(volume()),
            "Block",
            {"name": "volume", "devicePath": "/dev/podvisor/data"},
        ),
    ),
)
def test_where_the_volume_is(spec: Json, mode: str, mounted: Json) -> None:
    [container] = rendered(spec, mode)["spec"]["containers"]
    found = container["volumeMounts"][1:] + container.get("volumeDevices", [])
    assert found == [mounted]
    source = rendered(spec, mode)["spec"]["volumes"][1]["persistentVolumeClaim"]
    assert source == {"claimName": "data"} | {k: v for k, v in mounted.items() if k == "readOnly"}


def test_what_the_cache_keeps_of_a_pod_that_holds_a_volume() -> None:
    kept = outline(holder(metadata={"annotations": {"podvisor.io/claim": "data", "x": "y"}}))
    assert kept.metadata.labels == {"podvisor.io/volume": "data"}
    assert kept.metadata.annotations == {"podvisor.io/claim": "data"}
    launcher = pod(metadata={"labels": {"a": "b", "podvisor.io/volume": "x"}})
    assert outline(launcher).metadata.labels is None
