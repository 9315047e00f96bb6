"""Each bad value in a volume has its own error, which names the field and says what to do."""

import base64
from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import changed, is_refused


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("volumes/1/name", "root", "volumes[1].name", "must not have the same Name ('root')"),
        ("volumes/1", {"name": "seed"}, "volumes[1]", "must have exactly one source, not none"),
        (
            "volumes/1/containerDisk",
            {"image": "x"},
            "volumes[1]",
            "not containerDisk and cloudInitNoCloud",
        ),
        (
            "volumes/1",
            {"name": "seed", "memoryDump": {}},
            "volumes[1].memoryDump",
            "is not supported yet",
        ),
        (
            "volumes/0/containerDisk/image",
            "",
            "volumes[0].containerDisk.image",
            "must name an image",
        ),
        (
            "volumes/0/containerDisk/image",
            "A:B:C",
            "volumes[0].containerDisk.image",
            "not a valid image reference",
        ),
        (
            "volumes/0/containerDisk/path",
            "../x",
            "volumes[0].containerDisk.path",
            "must be an absolute path",
        ),
        (
            "volumes/0/containerDisk/path",
            "/",
            "volumes[0].containerDisk.path",
            "must be an absolute path",
        ),
        (
            "volumes/0/containerDisk/imagePullPolicy",
            "x",
            "volumes[0].containerDisk.imagePullPolicy",
            "one of: Always",
        ),
        (
            "volumes/0/containerDisk/imagePullSecret",
            "_",
            "volumes[0].containerDisk.imagePullSecret",
            "not a name",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {},
            "volumes[1].cloudInitNoCloud",
            "at least one userdatasource",
        ),
        (
            "volumes/1/cloudInitNoCloud/userDataBase64",
            "eA==",
            "volumes[1].cloudInitNoCloud",
            "must have only one userdatasource set, not userData and userDataBase64",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"userDataBase64": "no base64!"},
            "volumes[1].cloudInitNoCloud.userDataBase64",
            "is not a valid base64 value",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"userData": "é" * 1025},
            "volumes[1].cloudInitNoCloud.userData",
            "exceeds 2048 byte limit (it has 2050). Should use secretRef for larger data.",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"networkDataBase64": base64.b64encode(b"x" * 2049).decode()},
            "volumes[1].cloudInitNoCloud.networkDataBase64",
            "exceeds 2048 byte limit (it has 2049). Should use networkDataSecretRef",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"secretRef": {"name": "A B"}},
            "volumes[1].cloudInitNoCloud.secretRef.name",
            "is not the name of a Secret",
        ),
        ("volumes/0/name", 7, "volumes[0].name", "Expected `str`, got `int`"),
    ],
)
def test_bad_volume(path: str, value: Any, field: str, message: str) -> None:
    is_refused(path, value, field, message)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("volumes/0/containerDisk/image", "kubevirt/cirros-registry-disk-demo:devel"),
        ("volumes/0/containerDisk/image", "registry.local:5000/a/b_c@sha256:" + "0" * 64),
        ("volumes/0/containerDisk/image", "localhost/x"),
        ("volumes/0/containerDisk/path", "/disk/x.qcow2"),
        ("volumes/1/cloudInitNoCloud", {"userData": "x" * 2048}),
        ("volumes/1/cloudInitNoCloud", {"userDataBase64": "eHh4\neHh4\n"}),
        ("volumes/1/cloudInitNoCloud", {"secretRef": {"name": "my.secret"}}),
    ],
)
def test_unusual_and_good(path: str, value: Any) -> None:
    assert validate_virtual_machine(changed(path, value)) == []
