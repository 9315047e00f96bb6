"""Objects that nest deeper than anybody means: refused with a path, whatever would have read them next."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from podvisor_controller.webhooks import registration
from podvisor_controller.webhooks.nesting import MOST_LEVELS, decode_bounded, deep_place

from tests.unit.api.admission_chain import served_webhooks
from tests.unit.api.machines import instance, machine

LEVELS = (80, 300, 600, 950, 1100, 5000, 100_000)
DEVICES = "domain.devices.gpus"


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with served_webhooks() as session:
        yield session


def nested(levels: int) -> str:
    return '{"a":[' * (levels // 2) + "1" + "]}" * (levels // 2)


def review(kind: str, version: str = "v1") -> dict[str, Any]:
    obj = machine() if kind == "VirtualMachine" else instance()
    template = obj["spec"]["template"]["spec"] if kind == "VirtualMachine" else obj["spec"]
    template["domain"]["devices"]["gpus"] = "DEEP"
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": "CREATE",
            "requestKind": {"group": "kubevirt.io", "version": version, "kind": kind},
            "object": obj,
        },
    }


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize(
    ("path", "kind", "version", "field"),
    [
        (registration.VM_MUTATE, "VirtualMachine", "v1", f"spec.template.spec.{DEVICES}"),
        (registration.VM_VALIDATE, "VirtualMachine", "v1", f"spec.template.spec.{DEVICES}"),
        (registration.VM_MUTATE, "VirtualMachine", "v1alpha1", f"spec.{DEVICES}"),
        (registration.VMI_MUTATE, "VirtualMachineInstance", "v1", f"spec.{DEVICES}"),
        (registration.VMI_VALIDATE_CREATE, "VirtualMachineInstance", "v1", f"spec.{DEVICES}"),
    ],
)
async def test_deep_objects_are_refused_by_path(
    client: aiohttp.ClientSession, path: str, kind: str, version: str, field: str, levels: int
) -> None:
    body = json.dumps(review(kind, version)).replace('"DEEP"', nested(levels))
    async with client.post(path, data=body) as reply:
        assert reply.status == 200
        response = (await reply.json())["response"]
    assert response["uid"] == "u-1"
    assert response["status"]["code"] == 422
    [cause] = response["status"]["details"]["causes"]
    assert cause["field"].startswith(field)
    assert f"nested deeper than {MOST_LEVELS} levels" in cause["message"]


@pytest.mark.parametrize("levels", LEVELS)
async def test_deep_objects_are_converted_so_that_they_can_be_refused(
    client: aiohttp.ClientSession, levels: int
) -> None:
    obj = {
        "apiVersion": "kubevirt.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": "deep"},
        "spec": {"domain": "DEEP", "volumes": []},
    }
    request = {"uid": "u-1", "desiredAPIVersion": "kubevirt.io/v1", "objects": [obj]}
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "request": request,
    }
    text = json.dumps(body).replace('"DEEP"', nested(levels))
    async with client.post(registration.CONVERT, data=text) as reply:
        assert reply.status == 200
        response = (await reply.json())["response"]
    assert response["result"]["status"] == "Success"
    [converted] = response["convertedObjects"]
    assert (deep_place(converted) or "").startswith("spec.template.spec.domain.a[0]")


async def test_deep_nonsense_is_a_bad_request(client: aiohttp.ClientSession) -> None:
    for body in ('{"a":' * 5000, "[" * 5000, "[" * 5000 + '"', "[" * 5000 + '"\\'):
        async with client.post(registration.VM_VALIDATE, data=body) as reply:
            assert reply.status == 400


def test_only_what_lies_too_deep_is_cut_off() -> None:
    text = '{"deep":' + nested(5000) + ',"text":"]}[{\\"\\\\","list":[[]]}'
    kept = decode_bounded(msgspec.json.decode, text.encode())
    assert kept["text"] == ']}[{"\\'
    assert kept["list"] == [[]]
    assert deep_place(kept) == "deep.a[0].a[0].a[0].a[0]"[: len("deep.a[0].a[0].a[0].a")]


def test_what_is_as_deep_as_the_api_gets_is_left_alone() -> None:
    value: Any = json.loads(nested(MOST_LEVELS - 2))
    assert deep_place({"spec": value}) is None
    assert deep_place({"spec": {"a": {"a": value}}}) is not None


def test_the_place_is_the_clients_own() -> None:
    """The API server's notes repeat the client's fields, in front of them and a little deeper."""
    deep = json.loads(nested(2 * MOST_LEVELS))
    noted = {"managedFields": [{"fieldsV1": {"f:spec": deep}}]}
    assert (deep_place({"metadata": noted, "spec": deep}) or "").startswith("spec.a[0]")
    assert deep_place({"metadata": noted, "spec": {}}) is None
