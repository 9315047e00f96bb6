"""The aggregated API over real TLS: who is believed, who may, and what it says of itself."""

import asyncio
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import VIRTUAL_MACHINES, ObjectKey
from podvisor_controller.subresources import access
from yarl import URL

from tests.unit.controller.builders import vm_body
from tests.unit.edge.subresource_session import (
    USER,
    Authorizer,
    Served,
    authority,
    leaf,
    learn,
    path_of,
    served,
    trust_data,
)
from tests.unit.kube.fake_apiserver import Refuse

KEY = ObjectKey("shop", "myvm")
ADD = path_of("virtualmachines", KEY, "addvolume")
REMOVE = path_of("virtualmachines", KEY, "removevolume")
# Streams and files: everything else is written.
READ = {
    "virtualmachines/portforward",
    *(
        f"virtualmachineinstances/{one}"
        for one in (
            *("console", "vnc", "vnc/screenshot", "portforward"),
            *("guestosinfo", "userlist", "filesystemlist"),
        )
    ),
}
OPTIONS = {
    "name": "data",
    "disk": {"disk": {"bus": "scsi"}},
    "volumeSource": {"persistentVolumeClaim": {"claimName": "data"}},
}


@pytest.fixture
async def server() -> AsyncIterator[Authorizer]:
    async with Authorizer() as server:
        server.put(VIRTUAL_MACHINES, vm_body())
        yield server


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def api(server: Authorizer, stopping: asyncio.Event) -> AsyncIterator[Served]:
    async with (
        KubeClient.for_url(server.url, user_agent="test") as client,
        served(client, stopping.is_set) as api,
    ):
        yield api


@pytest.fixture
async def proxy(api: Served) -> AsyncIterator[aiohttp.ClientSession]:
    async with api.asked_by(api.proxy) as session:
        yield session


async def put(session: aiohttp.ClientSession, path: str = ADD) -> int:
    options = OPTIONS if path == ADD else {"name": OPTIONS["name"]}
    async with session.put(path, json=options, headers=USER) as answer:
        return answer.status


def requests(server: Authorizer) -> list[object]:
    found = server.get(VIRTUAL_MACHINES, KEY)
    assert found is not None
    asked: list[object] = found["status"].get("volumeRequests", [])
    return asked


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
async def test_the_api_is_discovered_without_a_certificate(api: Served, version: str) -> None:
    async with api.asked_by(None) as anybody:
        async with anybody.get(f"/apis/subresources.kubevirt.io/{version}") as answer:
            assert (answer.status, answer.content_type) == (200, "application/json")
            found = await answer.json()
        async with anybody.get("/apis/subresources.kubevirt.io") as answer:
            group = await answer.json()
        async with anybody.get("/apis") as answer:
            assert [one["name"] for one in (await answer.json())["groups"]] == [group["name"]]
    assert (found["kind"], found["groupVersion"]) == (
        "APIResourceList",
        f"subresources.kubevirt.io/{version}",
    )
    assert {one["name"] for one in found["resources"]} == {
        f"{plural}/{verb}"
        for plural in ("virtualmachines", "virtualmachineinstances")
        for verb in ("addvolume", "removevolume", "evacuate/cancel")
    } | {f"virtualmachines/{verb}" for verb in ("start", "stop", "restart")} | READ | {
        f"virtualmachineinstances/{verb}"
        for verb in ("pause", "unpause", "reset", "softreboot", "freeze", "unfreeze")
    }  # fmt: skip
    for resource in found["resources"]:
        assert resource["namespaced"] is True
        assert resource["verbs"] == ["get" if resource["name"] in READ else "update"]
    assert group["preferredVersion"]["version"] == "v1"
    assert {"groupVersion": found["groupVersion"], "version": version} in group["versions"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/openapi/v2", "swagger"),
        ("/openapi/v3", "paths"),
        ("/openapi/v3/apis/subresources.kubevirt.io/v1", "openapi"),
        ("/version", "gitVersion"),
        ("/apis/subresources.kubevirt.io/v1/version", "gitVersion"),
        ("/", "paths"),
    ],
)
async def test_documents(api: Served, path: str, key: str) -> None:
    async with api.asked_by(None) as anybody, anybody.get(path) as answer:
        assert answer.status == 200
        assert key in await answer.json()


@pytest.mark.parametrize("path", ["/healthz", "/apis/subresources.kubevirt.io/v1/healthz"])
async def test_health(api: Served, path: str) -> None:
    async with api.asked_by(None) as anybody, anybody.get(path) as answer:
        assert (answer.status, await answer.text()) == (200, "ok")


async def test_the_front_proxy_is_asked_for_its_user_each_time(
    proxy: aiohttp.ClientSession, server: Authorizer
) -> None:
    assert await put(proxy) == 202
    server.allowed = lambda spec: False
    assert await put(proxy) == 403
    assert len(requests(server)) == 1
    assert server.reviews[0] == server.reviews[1]
    assert server.reviews[0] == {
        "user": "jane",
        "uid": "",
        "groups": ["devs", "system:authenticated"],
        "extra": {"scopes/a": ["one"]},
        "resourceAttributes": {
            "group": "subresources.kubevirt.io",
            "version": "v1",
            "resource": "virtualmachines",
            "subresource": "addvolume",
            "verb": "update",
            "namespace": "shop",
            "name": "myvm",
        },
    }


async def test_who_may_not_is_told_so(proxy: aiohttp.ClientSession, server: Authorizer) -> None:
    server.allowed = lambda spec: spec["resourceAttributes"]["subresource"] != "removevolume"
    async with proxy.put(REMOVE, json={"name": "data"}, headers=USER) as answer:
        assert answer.status == 403
        status = await answer.json()
    assert (status["kind"], status["reason"], status["code"]) == ("Status", "Forbidden", 403)
    assert status["message"] == (
        'virtualmachines.subresources.kubevirt.io "myvm" is forbidden: User "jane" cannot update'
        ' resource "virtualmachines/removevolume" in API group "subresources.kubevirt.io" in the'
        ' namespace "shop": no role'
    )
    assert await put(proxy) == 202


async def test_headers_without_a_certificate_are_not_believed(
    api: Served, server: Authorizer
) -> None:
    async with (
        api.asked_by(None) as anybody,
        anybody.put(ADD, json=OPTIONS, headers=USER) as answer,
    ):
        assert answer.status == 401
        assert (await answer.json())["reason"] == "Unauthorized"
    assert server.requests == []


async def test_a_certificate_of_another_authority_gets_no_connection(
    api: Served, server: Authorizer
) -> None:
    async with api.asked_by(leaf(authority(), "front-proxy-client")) as other:
        with pytest.raises(aiohttp.ClientError):
            await put(other)
    assert server.requests == []


async def test_a_certificate_of_another_name_is_not_believed(
    api: Served, server: Authorizer
) -> None:
    async with api.asked_by(leaf(api.proxy_authority, "kubelet")) as other:
        assert await put(other) == 401
        learn(
            api.front_proxy,
            trust_data(api.proxy_authority) | {"requestheader-allowed-names": "[]"},
        )
        assert await put(other) == 202


async def test_a_front_proxy_that_names_nobody(
    proxy: aiohttp.ClientSession, server: Authorizer
) -> None:
    async with proxy.put(ADD, json=OPTIONS, headers={"X-Remote-Group": "system:masters"}) as answer:
        assert answer.status == 401
    assert server.requests == []


async def test_another_authority_takes_over(
    api: Served, proxy: aiohttp.ClientSession, server: Authorizer
) -> None:
    """Both are believed for as long as both are named; then an open connection of the old one is not any more."""
    assert await put(proxy) == 202
    new = authority()
    learn(api.front_proxy, trust_data(api.proxy_authority, new))
    async with api.asked_by(leaf(new, "front-proxy-client")) as other:
        assert await put(proxy, REMOVE) == 409
        assert await put(other, REMOVE) == 409
        learn(api.front_proxy, trust_data(new))
        assert await put(proxy) == 401
        assert await put(other, REMOVE) == 409
    async with api.asked_by(api.proxy) as late:
        with pytest.raises(aiohttp.ClientError):
            await put(late)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"requestheader-client-ca-file": "x"},
        {"requestheader-username-headers": "X-Remote-User"},
    ],
)
async def test_nobody_is_believed_by_a_map_that_makes_no_sense(
    api: Served, proxy: aiohttp.ClientSession, data: dict[str, str]
) -> None:
    assert await put(proxy) == 202
    learn(api.front_proxy, trust_data(api.proxy_authority) | data if data else {})
    assert await put(proxy) == 401
    with pytest.raises(aiohttp.ClientError):
        await put(proxy)


async def test_another_certificate_is_shown_from_then_on(
    api: Served, proxy: aiohttp.ClientSession
) -> None:
    assert await put(proxy) == 202
    api.front_proxy.present(leaf(authority("another"), "127.0.0.1"))
    async with api.asked_by(api.proxy) as late:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await put(late)


async def test_no_answer_about_rights_is_no_right(
    proxy: aiohttp.ClientSession, server: Authorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "ANSWER_WITHIN_S", 0.05)
    server.hang = True
    assert await put(proxy) == 503
    server.hang = False
    server.refusals.append(Refuse(403, "Forbidden", "no rights to ask"))
    assert await put(proxy) == 500
    assert requests(server) == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", path_of("virtualmachines", KEY, "dance"), 404),
        ("GET", ADD, 405),
        ("PUT", path_of("virtualmachines", ObjectKey("shop", "%2e%2e"), "addvolume"), 404),
        ("PUT", path_of("virtualmachines", ObjectKey("shop", "a%2fb"), "addvolume"), 404),
        ("PUT", path_of("virtualmachines", KEY, "addvolume", "v2"), 404),
    ],
)
async def test_what_is_not_served(
    proxy: aiohttp.ClientSession, server: Authorizer, method: str, path: str, status: int
) -> None:
    async with proxy.request(method, URL(path, encoded=True), headers=USER) as answer:
        assert answer.status == status
        body = await answer.json()
    assert (body["kind"], body["code"]) == ("Status", status)
    assert server.requests == []


async def test_a_large_body_is_refused(proxy: aiohttp.ClientSession) -> None:
    async with proxy.put(ADD, data=io.BytesIO(bytes(2 << 20)), headers=USER) as answer:
        assert answer.status == 413
        assert (await answer.json())["reason"] == "RequestEntityTooLarge"


async def test_connections_end_with_the_answer_once_the_replica_stops(
    proxy: aiohttp.ClientSession, stopping: asyncio.Event
) -> None:
    async with proxy.get("/healthz") as before:
        assert "Connection" not in before.headers
    stopping.set()
    async with proxy.get("/healthz") as after:
        assert after.headers["Connection"] == "close"
