"""A bad manifest is answered with a sentence that names the field; nothing is half-created."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, vm, vmi
from tests.support.process import Completed


def _memory(quantity: str) -> Callable[[Json], None]:
    def change(spec: Json) -> None:
        spec["domain"]["resources"]["requests"]["memory"] = quantity

    return change


def _disk(**fields: Any) -> Callable[[Json], None]:
    def change(spec: Json) -> None:
        spec["domain"]["devices"]["disks"].append({"disk": {"bus": "virtio"}} | fields)

    return change


def _seed(**fields: Any) -> Callable[[Json], None]:
    def change(spec: Json) -> None:
        spec["volumes"][1]["cloudInitNoCloud"] = fields

    return change


def _top(**fields: Any) -> Callable[[Json], None]:
    def change(spec: Json) -> None:
        spec |= fields

    return change


def _unknown(spec: Json) -> None:
    spec["domain"]["memroy"] = {"guest": "64M"}


DEVICES = "spec.template.spec.domain.devices"
REFUSED = [
    ("unknown field", _unknown, 'unknown field "spec.template.spec.domain.memroy"'),
    ("disk naming no volume", _disk(name="ghost"), f"{DEVICES}.disks[2].name"),
    ("two disks of one name", _disk(name="root"), f"{DEVICES}.disks[2].name"),
    ("memory zero", _memory("0"), "spec.template.spec.domain.resources.requests.memory"),
    (
        "memory of an unknown unit",
        _memory("64Q"),
        "spec.template.spec.domain.resources.requests.memory",
    ),
    ("memory negative", _memory("-64M"), "spec.template.spec.domain.resources.requests.memory"),
    (
        "memory that no node has",
        _memory("9Ei"),
        "spec.template.spec.domain.resources.requests.memory '9Ei': must be less than",
    ),
    (
        "longer to shut down than can be counted",
        _top(terminationGracePeriodSeconds=2**40),
        "spec.template.spec.terminationGracePeriodSeconds must be between",
    ),
    (
        "node selector that no pod can have",
        _top(nodeSelector={"a b": "c"}),
        "spec.template.spec.nodeSelector holds 'a b'",
    ),
    (
        "user-data that is not base64",
        _seed(userDataBase64="%%%"),
        "spec.template.spec.volumes[1].cloudInitNoCloud.userDataBase64",
    ),
    (
        "user-data over the limit",
        _seed(userData="#" * 2049),
        "spec.template.spec.volumes[1].cloudInitNoCloud.userData",
    ),
]


@pytest.mark.parametrize(
    ("situation", "change", "expected"), REFUSED, ids=[row[0] for row in REFUSED]
)
async def test_refused_at_once(
    cluster: Cluster, situation: str, change: Callable[[Json], None], expected: str
) -> None:
    """The API server refuses it and names the field."""
    machine = vm("bad")
    change(machine["spec"]["template"]["spec"])
    assert expected in await cluster.refused(machine), situation
    assert await cluster.get("vm", "bad") is None


async def test_name_too_long_for_a_pod(cluster: Cluster) -> None:
    """A name that no pod could carry is refused."""
    answer = await cluster.refused(vm("x" * 80))
    assert "metadata.name" in answer


@pytest.mark.parametrize("validation", ["strict", "warn", "ignore"])
async def test_unsupported_field_is_refused_by_name(cluster: Cluster, validation: str) -> None:
    """A field of upstream's that is not implemented is said to be so, however lenient the client is."""
    machine = vm("gpu", run_strategy="Halted")
    machine["spec"]["template"]["spec"]["domain"]["devices"]["gpus"] = [
        {"name": "g", "deviceName": "x/y"}
    ]
    done = await _created(cluster, machine, validation)
    assert done.exit_code != 0
    assert f"{DEVICES}.gpus is not supported yet" in done.stderr
    assert await cluster.get("vm", "gpu") is None


@pytest.mark.parametrize(
    ("validation", "is_taken", "is_named"),
    [("strict", False, True), ("warn", True, True), ("ignore", True, False)],
)
async def test_field_that_nobody_knows(
    cluster: Cluster, validation: str, is_taken: bool, is_named: bool
) -> None:
    """Refused by name under strict validation, warned about by name otherwise, and dropped when the client wants no word."""
    machine = vm("odd", run_strategy="Halted")
    _unknown(machine["spec"]["template"]["spec"])
    done = await _created(cluster, machine, validation)
    assert (done.exit_code == 0) == is_taken, done.stderr
    assert ("memroy" in done.stderr) == is_named, done.stderr
    created = await cluster.get("vm", "odd")
    assert (created is not None) == is_taken
    assert "memroy" not in json.dumps(created)


async def _created(cluster: Cluster, machine: Json, validation: str) -> Completed:
    text = json.dumps(machine)
    return await cluster.kubectl(
        "create", f"--validate={validation}", "-f", "-", stdin=text, check=False
    )


def _synchronized_says(*words: str) -> Callable[[Json | None], bool]:
    def holds(state: Json | None) -> bool:
        conditions = (state or {}).get("status", {}).get("conditions", [])
        messages = [
            c.get("message", "")
            for c in conditions
            if c["type"] == "Synchronized" and c["status"] == "False"
        ]
        return any(all(word in message for word in words) for message in messages)

    return holds


async def test_image_that_does_not_exist(cluster: Cluster) -> None:
    """The instance says which image cannot be pulled."""
    machine = vmi("noimage")
    machine["spec"]["volumes"][0]["containerDisk"]["image"] = "podvisor/does-not-exist:devel"
    await cluster.apply(machine)
    await cluster.until(
        "vmi",
        "noimage",
        _synchronized_says("podvisor/does-not-exist:devel"),
        within_s=30,
        what="the condition names the image",
    )
    await cluster.kubectl("delete", "vmi", "noimage", "--timeout=20s")
    assert await cluster.all("pods") == []


@pytest.mark.parametrize(
    "image", ["podvisor/test-no-disk:devel", "podvisor/test-hostile-qcow2:devel"]
)
async def test_image_without_a_usable_disk(cluster: Cluster, image: str) -> None:
    """The instance says which volume holds no usable disk, and why."""
    machine = vmi("nodisk")
    machine["spec"]["volumes"][0]["containerDisk"]["image"] = image
    await cluster.apply(machine)
    await cluster.until(
        "vmi",
        "nodisk",
        _synchronized_says('"root"'),
        within_s=30,
        what="the condition names the volume",
    )
    await cluster.kubectl("delete", "vmi", "nodisk", "--timeout=20s")


async def test_missing_secret_heals(cluster: Cluster) -> None:
    """A missing Secret is named; when it is created, the machine starts by itself."""
    machine = vmi("patient")
    machine["spec"]["volumes"][1] = {
        "name": "seed",
        "cloudInitNoCloud": {"secretRef": {"name": "late"}},
    }
    await cluster.apply(machine)
    await cluster.until(
        "vmi",
        "patient",
        _synchronized_says('"late"'),
        within_s=30,
        what="the condition names the Secret",
    )
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "late"},
        "stringData": {"userdata": "#cloud-config\nhostname: patient\n"},
    }
    await cluster.apply(secret)
    await Machine(cluster, "patient").running(within_s=120)
