"""KubeClient against a fake API server: what it asks for, and what becomes of the answers."""

import asyncio
import logging
from contextlib import aclosing

import msgspec
import pytest
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiConflict,
    ApiError,
    ApiExpired,
    ApiForbidden,
    ApiInvalid,
    ApiNotFound,
    ApiUnavailable,
    error_from_response,
)
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    NODES,
    PODS,
    SECRETS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
)
from structlog.testing import capture_logs

from tests.unit.kube.fake_apiserver import FakeApiServer, Refuse, Stall

KEY = ObjectKey("shop", "a")


def manifest(name: str = "a", **more: object) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **more}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PODS.path(), "/api/v1/pods"),
        (PODS.path("shop"), "/api/v1/namespaces/shop/pods"),
        (PODS.path("shop", "a", "binding"), "/api/v1/namespaces/shop/pods/a/binding"),
        (NODES.path(None, "n1"), "/api/v1/nodes/n1"),
        (NODES.path("", "n1", "status"), "/api/v1/nodes/n1/status"),
        (
            VIRTUAL_MACHINE_INSTANCES.path("shop", "vm/../x"),
            "/apis/kubevirt.io/v1/namespaces/shop/virtualmachineinstances/vm%2F..%2Fx",
        ),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


def test_paths_of_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="namespace"):
        PODS.path(None, "a")
    with pytest.raises(ValueError, match="name"):
        PODS.path("shop", None, "status")


async def test_create_read_change_delete(server: FakeApiServer, client: KubeClient) -> None:
    created = msgspec.json.decode(
        await client.create(CONFIGMAPS, "shop", manifest(data={"x": "1"}))
    )
    assert created["metadata"]["namespace"] == "shop"
    assert msgspec.json.decode(await client.get(CONFIGMAPS, KEY)) == created

    await client.merge_patch(CONFIGMAPS, KEY, {"data": {"x": None, "y": "2"}})
    await client.json_patch(CONFIGMAPS, KEY, [{"op": "add", "path": "/data/z", "value": "3"}])
    await client.apply(CONFIGMAPS, KEY, manifest(data={"w": "4"}), field_manager="test", force=True)
    stored = server.get(CONFIGMAPS, KEY)
    assert stored is not None
    assert stored["data"] == {"w": "4", "y": "2", "z": "3"}

    await client.delete(CONFIGMAPS, KEY, uid=stored["metadata"]["uid"], grace_period_s=0)
    assert server.get(CONFIGMAPS, KEY) is None


async def test_requests_name_their_content_types_and_who_asks(
    server: FakeApiServer, client: KubeClient
) -> None:
    await client.create(CONFIGMAPS, "shop", manifest())
    await client.merge_patch(CONFIGMAPS, KEY, {"data": {}})
    await client.json_patch(CONFIGMAPS, KEY, [])
    await client.apply(CONFIGMAPS, KEY, manifest(), field_manager="virt-test")
    assert [request.headers["Content-Type"] for request in server.requests] == [
        "application/json",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/apply-patch+yaml",
    ]
    assert {request.headers["User-Agent"] for request in server.requests} == {"podvisor-test"}
    assert server.requests[-1].query == {"fieldManager": "virt-test"}


async def test_status_is_written_apart(server: FakeApiServer, client: KubeClient) -> None:
    server.put(PODS, {"metadata": {"namespace": "shop", "name": "a"}, "spec": {"nodeName": "n1"}})
    patch = {"spec": {"nodeName": "n2"}, "status": {"phase": "Running"}}
    await client.merge_patch(PODS, KEY, patch, subresource="status")
    pod = server.get(PODS, KEY)
    assert pod is not None
    assert (pod["spec"], pod["status"]) == ({"nodeName": "n1"}, {"phase": "Running"})


async def test_lists_come_in_pages(server: FakeApiServer, client: KubeClient) -> None:
    for number in range(5):
        server.put(PODS, {"metadata": {"namespace": "shop", "name": f"p{number}"}})
    names: list[str] = []
    continue_ = ""
    while True:
        page = msgspec.json.decode(await client.list_page(PODS, limit=2, continue_=continue_))
        names += [item["metadata"]["name"] for item in page["items"]]
        continue_ = page["metadata"].get("continue", "")
        if not continue_:
            break
    assert names == ["p0", "p1", "p2", "p3", "p4"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "reason", "expected", "fate"),
    [
        (400, "BadRequest", ApiInvalid, Terminal),
        (401, "Unauthorized", ApiForbidden, Retryable),
        (403, "Forbidden", ApiForbidden, Retryable),
        (404, "NotFound", ApiNotFound, Retryable),
        (409, "AlreadyExists", ApiAlreadyExists, Retryable),
        (409, "Conflict", ApiConflict, Retryable),
        (410, "Expired", ApiExpired, Retryable),
        (422, "Invalid", ApiInvalid, Terminal),
        (429, "TooManyRequests", ApiUnavailable, Retryable),
        (500, "InternalError", ApiUnavailable, Retryable),
        (503, "ServiceUnavailable", ApiUnavailable, Retryable),
    ],
)
async def test_refusals_are_typed(
    server: FakeApiServer,
    client: KubeClient,
    status: int,
    reason: str,
    expected: type[ApiError],
    fate: type[Exception],
) -> None:
    server.refusals.append(Refuse(status, reason, "no", headers={"Retry-After": "7"}))
    with pytest.raises(expected) as caught:
        await client.get(PODS, KEY)
    error = caught.value
    assert isinstance(error, fate)
    assert (error.status, error.reason, error.message) == (status, reason, "no")
    assert error.retry_after_s == 7.0


def test_causes_and_texts_of_a_refusal_are_kept() -> None:
    body = (
        b'{"code":422,"reason":"Invalid","message":"bad","details":{"retryAfterSeconds":3,'
        b'"causes":[{"reason":"FieldValueRequired","field":"spec.x","message":"required"}]}}'
    )
    error = error_from_response(422, {}, body)
    assert [(c.field, c.reason, c.message) for c in error.causes] == [
        ("spec.x", "FieldValueRequired", "required")
    ]
    assert error.retry_after_s == 3.0
    proxy = error_from_response(502, {}, b"<html>bad gateway</html>" + b"x" * 10_000)
    assert isinstance(proxy, ApiUnavailable)
    assert proxy.message.startswith("<html>bad gateway")
    assert len(proxy.message) <= 2048


def test_a_pause_that_a_server_asks_for_is_bounded() -> None:
    assert error_from_response(429, {"Retry-After": "86400"}, b"").retry_after_s == 60.0
    body = b'{"code":429,"details":{"retryAfterSeconds":86400}}'
    assert error_from_response(429, {}, body).retry_after_s == 60.0


async def test_no_answer_in_time_is_unavailable(server: FakeApiServer, client: KubeClient) -> None:
    server.hang = True
    with pytest.raises(ApiUnavailable) as caught:
        await client.get(PODS, KEY, timeout_s=0.05)
    assert caught.value.reason == "Timeout"


async def test_no_server_is_unavailable() -> None:
    async with FakeApiServer() as gone:
        url = gone.url
    async with KubeClient.for_url(url, user_agent="test") as client:
        with pytest.raises(ApiUnavailable) as caught:
            await client.get(PODS, KEY)
    assert (caught.value.status, caught.value.reason) == (0, "TransportError")


async def test_silent_watch_is_given_up(server: FakeApiServer, client: KubeClient) -> None:
    server.watch_faults.append(Stall(after_events=1))
    version = str(server.version)
    server.put(PODS, {"metadata": {"namespace": "shop", "name": "a"}})
    watch = client.watch(PODS, resource_version=version, timeout_s=300, inactivity_s=0.2)
    async with aclosing(watch) as lines:
        assert msgspec.json.decode(await anext(lines))["type"] == "ADDED"
        with pytest.raises(ApiUnavailable) as caught:
            await anext(lines)
    assert caught.value.reason == "Timeout"


async def test_watched_objects_may_be_huge(server: FakeApiServer, client: KubeClient) -> None:
    version = str(server.version)
    size = 5 * 1024 * 1024
    server.put(SECRETS, {"metadata": {"namespace": "shop", "name": "a"}, "data": {"x": "A" * size}})
    watch = client.watch(SECRETS, resource_version=version, timeout_s=300)
    async with aclosing(watch) as stream:
        line = await anext(stream)
    assert len(msgspec.json.decode(line)["object"]["data"]["x"]) == size


async def test_ended_watch_closes_its_connection(server: FakeApiServer, client: KubeClient) -> None:
    watch = client.watch(PODS, resource_version="100", timeout_s=300)
    waiting = asyncio.ensure_future(anext(watch))
    await server.until(lambda: len(server.requests) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await watch.aclose()
    await client.list_page(PODS)


async def test_warnings_are_logged_once(server: FakeApiServer, client: KubeClient) -> None:
    server.response_headers = {"Warning": '299 - "spec.x is deprecated"'}
    with capture_logs() as logs:
        await client.list_page(PODS)
        await client.list_page(PODS)
    assert [(log["log_level"], log["event"]) for log in logs] == [
        ("info", "warning from the API server")
    ]


async def test_bodies_are_never_logged(
    server: FakeApiServer, client: KubeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"metadata": {"name": "a"}, "data": {"password": "aHVudGVyMg=="}}
    with capture_logs() as logs:
        await client.create(SECRETS, "shop", secret)
        await client.get(SECRETS, KEY)
        with pytest.raises(ApiAlreadyExists) as caught:
            await client.create(SECRETS, "shop", secret)
    assert "aHVudGVyMg" not in caplog.text + repr(logs) + repr(caught.value)
