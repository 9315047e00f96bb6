"""What is shared with a guest as files: which directory, whether it may write, what is waited for."""

from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core
from podvisor_handler.vmi.build import build_domain
from podvisor_handler.vmi.errors import SpecRefused

from tests.unit.handler.builders import pod, pod_manifest, vmi

NAME = "share"
VOLUMES = "/run/podvisor/volumes/share"
FILES = "/run/podvisor/files/share"


def sharing(source: dict[str, Any]) -> dict[str, Any]:
    """A specification that shares one volume."""
    devices = {
        "autoattachPodInterface": False,
        "filesystems": [{"name": NAME, "virtiofs": {}}],
    }
    return {
        "domain": {"memory": {"guest": "64M"}, "devices": devices},
        "volumes": [{"name": NAME, **source}] if source else [],
    }


def shared(source: dict[str, Any], carrier: core.Pod) -> domain_pb2.FilesystemSpec:
    (built,) = build_domain(vmi(spec=sharing(source)), carrier, None).filesystems
    assert built.name == NAME
    return built


@pytest.mark.parametrize(
    ("source", "directory", "read_only", "awaited"),
    [
        ({"persistentVolumeClaim": {"claimName": "c"}}, VOLUMES, False, False),
        ({"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}, VOLUMES, True, False),
        ({"dataVolume": {"name": "c"}}, VOLUMES, False, False),
        ({"configMap": {"name": "m"}}, FILES, True, True),
        ({"configMap": {"name": "m", "optional": True}}, FILES, True, False),
        ({"secret": {"secretName": "s"}}, FILES, True, True),
        ({"secret": {"secretName": "s", "optional": True}}, FILES, True, False),
        ({"downwardAPI": {"fields": [{"path": "labels"}]}}, FILES, True, True),
        ({"downwardAPI": {}}, FILES, True, False),
        ({"serviceAccount": {"serviceAccountName": "a"}}, FILES, True, True),
    ],
)
def test_sources(source: dict[str, Any], directory: str, read_only: bool, awaited: bool) -> None:
    built = shared(source, pod())
    assert (built.directory, built.read_only, built.awaited) == (directory, read_only, awaited)


def test_a_claim_that_is_a_device_has_no_files() -> None:
    manifest = pod_manifest()
    (compute,) = manifest["spec"]["containers"]
    compute["volumeDevices"] = [{"name": "volume-share", "devicePath": f"/dev/podvisor/{NAME}"}]
    carrier = msgspec.convert(manifest, core.Pod)
    with pytest.raises(SpecRefused, match="'share' is a block volume and has no files to share"):
        shared({"persistentVolumeClaim": {"claimName": "c"}}, carrier)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({}, "no volume for the file system 'share'"),
        ({"containerDisk": {"image": "x"}}, "'share' cannot be shared as files"),
        ({"ephemeral": {"persistentVolumeClaim": {"claimName": "c"}}}, "cannot be shared as files"),
    ],
)
def test_what_cannot_be_shared(source: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecRefused, match=says):
        shared(source, pod())
