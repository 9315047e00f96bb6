"""The webhook server over real TLS with a certificate of our own, asked like the API server asks."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from podvisor_controller.webhooks.review import AdmissionRequest, Refused, Verdict
from podvisor_controller.webhooks.server import Webhooks
from podvisor_controller.webhooks.validation_fields import Cause

from tests.unit.edge.webhook_session import asked_over_tls

NOW = datetime.now(UTC)


def judge(request: AdmissionRequest) -> Verdict:
    """Says what the object's name asks for."""
    match request.name:
        case "refused":
            cause = Cause(
                "spec.template", "missing virtual machine template.", "FieldValueRequired"
            )
            return Verdict(causes=[cause], warnings=["clear text"])
        case "many":
            return Verdict(causes=[Cause(f"spec.a[{i}]", f"bad {i}") for i in range(12)])
        case "patched":
            return Verdict(patch=[{"op": "add", "path": "/a", "value": request.client_api_version}])
        case "odd":
            raise Refused("cannot decode the object: $.spec")
        case "broken":
            raise KeyError("password")
    return Verdict()


async def reviewer(request: AdmissionRequest) -> Verdict:
    """Refuses for now what its name asks to keep, after a turn of the loop."""
    await asyncio.sleep(0)
    return Verdict(not_yet="try again" if request.name == "kept" else "")


def convert(obj: Mapping[str, Any], api_version: str) -> Mapping[str, Any]:
    if obj.get("kind") != "VirtualMachine":
        raise Refused("no such kind")
    return {**obj, "apiVersion": api_version}


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def client(stopping: asyncio.Event) -> AsyncIterator[aiohttp.ClientSession]:
    webhooks = Webhooks({"/validate": judge}, convert, {"/review": reviewer})
    async with asked_over_tls(webhooks, stopping.is_set) as session:
        yield session


def review(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "operation": "CREATE",
            "name": name,
            "namespace": "shop",
            "kind": {"group": "kubevirt.io", "version": "v1", "kind": "VirtualMachine"},
            "requestKind": {
                "group": "kubevirt.io",
                "version": "v1alpha1",
                "kind": "VirtualMachine",
            },
            "userInfo": {"username": "me", "groups": ["a"], "extra": {"x": ["y"]}},
            "object": {"spec": {"unknown": 1}},
            "oldObject": None,
            "options": {},
        },
    }


async def ask(
    client: aiohttp.ClientSession, name: str, *, path: str = "/validate"
) -> dict[str, Any]:
    async with client.post(path, json=review(name)) as reply:
        assert reply.status == 200
        body: dict[str, Any] = await reply.json()
    assert (body["apiVersion"], body["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, Any] = body["response"]
    assert response["uid"] == "u-1"
    return response


async def test_consent(client: aiohttp.ClientSession) -> None:
    assert await ask(client, "fine") == {"uid": "u-1", "allowed": True}


async def test_refusal_names_fields(client: aiohttp.ClientSession) -> None:
    response = await ask(client, "refused")
    assert response["allowed"] is False
    assert response["warnings"] == ["clear text"]
    status = response["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["message"] == "missing virtual machine template."
    assert status["details"]["causes"] == [
        {
            "reason": "FieldValueRequired",
            "message": "missing virtual machine template.",
            "field": "spec.template",
        }
    ]


async def test_what_is_to_be_tried_again_is_a_429(client: aiohttp.ClientSession) -> None:
    response = await ask(client, "kept", path="/review")
    assert response["allowed"] is False
    status = response["status"]
    assert (status["code"], status["reason"]) == (429, "TooManyRequests")
    assert status["message"] == "try again"
    assert (await ask(client, "other", path="/review"))["allowed"] is True


async def test_at_most_ten_causes(client: aiohttp.ClientSession) -> None:
    status = (await ask(client, "many"))["status"]
    assert len(status["details"]["causes"]) == 10
    assert status["message"].startswith("bad 0, bad 1")
    assert status["message"].endswith("and 2 more validation errors")


async def test_patch(client: aiohttp.ClientSession) -> None:
    response = await ask(client, "patched")
    assert response["patchType"] == "JSONPatch"
    patch = json.loads(base64.b64decode(response["patch"]))
    assert patch == [{"op": "add", "path": "/a", "value": "kubevirt.io/v1alpha1"}]


async def test_what_cannot_be_judged_is_a_400(client: aiohttp.ClientSession) -> None:
    status = (await ask(client, "odd"))["status"]
    assert (status["code"], status["message"]) == (400, "cannot decode the object: $.spec")


async def test_a_bug_refuses_and_says_nothing(client: aiohttp.ClientSession) -> None:
    response = await ask(client, "broken")
    assert response["allowed"] is False
    assert response["status"]["code"] == 500
    assert "password" not in json.dumps(response)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}'],
)
@pytest.mark.parametrize("path", ["/validate", "/convert"])
async def test_what_is_no_review_is_a_bad_request(
    client: aiohttp.ClientSession, path: str, body: bytes
) -> None:
    async with client.post(path, data=body) as reply:
        assert reply.status == 400


async def test_a_large_body_is_refused_unread(client: aiohttp.ClientSession) -> None:
    async with client.post("/validate", data=io.BytesIO(bytes(9 << 20))) as reply:
        assert reply.status == 413


async def test_unknown_paths_and_methods(client: aiohttp.ClientSession) -> None:
    async with client.post("/elsewhere", json={}) as reply:
        assert reply.status == 404
    async with client.get("/validate") as reply:
        assert reply.status == 405


async def test_conversion_keeps_order_and_unknown_fields(client: aiohttp.ClientSession) -> None:
    objects = [
        {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "number": number}
        for number in range(50)
    ]
    response = await converted(client, objects)
    assert response["result"] == {"status": "Success"}
    assert [one["number"] for one in response["convertedObjects"]] == list(range(50))
    assert {one["apiVersion"] for one in response["convertedObjects"]} == {"kubevirt.io/v1alpha1"}


async def test_conversion_of_one_bad_object_converts_none(client: aiohttp.ClientSession) -> None:
    response = await converted(client, [{"kind": "VirtualMachine"}, {"kind": "Pod"}])
    assert response["result"] == {"status": "Failed", "message": "no such kind"}
    assert "convertedObjects" not in response


async def test_many_at_once(client: aiohttp.ClientSession) -> None:
    answers = await asyncio.gather(*(ask(client, "fine") for _ in range(50)))
    assert all(answer["allowed"] for answer in answers)


async def converted(client: aiohttp.ClientSession, objects: list[Any]) -> dict[str, Any]:
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "request": {
            "uid": "u-2",
            "desiredAPIVersion": "kubevirt.io/v1alpha1",
            "objects": objects,
        },
    }
    async with client.post("/convert", json=body) as reply:
        assert reply.status == 200
        answer: dict[str, Any] = (await reply.json())["response"]
    assert answer["uid"] == "u-2"
    return answer


async def test_connections_end_with_the_answer_once_the_replica_stops(
    client: aiohttp.ClientSession, stopping: asyncio.Event
) -> None:
    async with client.post("/validate", json=review("good")) as before:
        assert "Connection" not in before.headers
    stopping.set()
    async with client.post("/validate", json=review("good")) as after:
        assert after.status == 200
        assert after.headers["Connection"] == "close"
