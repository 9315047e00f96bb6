"""Exports against an API server on a real socket, with a kubelet that does its part."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from aiohttp import web
from podvisor_common.kube.resources import (
    EXPORTS,
    SECRETS,
    SERVICES,
)
from podvisor_common.tls.authority import is_signed_by, parse_certificate
from podvisor_controller.controllers import Controllers
from podvisor_controller.export import observed, reconciler
from podvisor_controller.export.makers import TOKEN_LENGTH
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer, Fate
from tests.unit.controller.exports import (
    POD,
    TOKEN,
    ExportUser,
    leader,
)
from tests.unit.kube.fake_apiserver import Refuse

BASE = "https://virt-export-copy.shop.svc"


async def test_a_disk_in_a_claim(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    await exports.ask()
    pod = await exports.until_pod()
    waiting = await exports.until_reason("PodPending")
    assert waiting["status"] == "False"
    assert "links" not in exports.status
    exports.run_pod(0)
    links = await exports.until_ready()
    assert links["volumes"] == [
        {
            "name": "data",
            "formats": [
                {"format": "raw", "url": f"{BASE}/volumes/data/disk.img"},
                {"format": "gzip", "url": f"{BASE}/volumes/data/disk.img.gz"},
            ],
        }
    ]
    assert links["manifests"] == [
        {"type": "auth-header-secret", "url": f"{BASE}/internal/manifests/secret"}
    ]
    assert links["cert"] == exports.authority.strip()
    status = exports.status
    assert status["serviceName"] == "virt-export-copy"
    assert status["tokenSecretRef"] == "export-token-copy"
    assert exports.condition("Ready")["reason"] == "PodReady"
    assert exports.condition("PVCReady")["reason"] == "PVCBound"
    assert len(exports.token) == TOKEN_LENGTH
    assert exports.service is not None
    selector = exports.service["spec"]["selector"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    await exports.server.until(lambda: "ExporterPodCreated" in exports.events())


async def test_an_export_costs_eight_writes_and_four_events(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.serve()
    await exports.server.until(lambda: len(exports.events()) == 4)
    writes = [
        request.path
        for request in exports.server.requests
        if request.method != "GET" and request.headers["User-Agent"] == "test"
    ]
    assert len([path for path in writes if "/shop/" in path and "/events" not in path]) <= 8


async def test_files_in_a_claim(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    exports.run_pod()
    [volume] = (await exports.until_ready())["volumes"]
    assert volume["formats"] == [
        {"format": "dir", "url": f"{BASE}/volumes/data/dir"},
        {"format": "tar.gz", "url": f"{BASE}/volumes/data/disk.tar.gz"},
    ]


async def test_the_certificate_is_a_servers_of_that_name(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    identity = exports.identity
    assert identity is not None
    assert is_signed_by(identity["tls.crt"], exports.authority.encode())
    certificate = parse_certificate(identity["tls.crt"])
    text = str(certificate.extensions)
    assert "virt-export-copy.shop.svc" in text
    assert "serverAuth" in text
    assert "clientAuth" not in text
    secrets = [one["metadata"] for one in exports.server.list(SECRETS)]
    [owner] = [
        one["ownerReferences"][0]["kind"]
        for one in secrets
        if one["name"].startswith("virt-export-")
    ]
    assert owner == "Pod"


async def test_a_token_of_the_users(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    await exports.ask(tokenSecretRef="secret-copy")
    pod = await exports.until_pod()
    assert "secret-copy" in json.dumps(pod["spec"]["volumes"])
    assert exports.server.get(SECRETS, TOKEN) is None
    waiting = await exports.until_reason("PodPending")
    assert "secret-copy" in waiting["message"]
    assert exports.status["tokenSecretRef"] == "secret-copy"


async def test_a_claim_that_is_not_there_is_waited_for(
    exports: ExportUser, leading: Controllers
) -> None:
    await exports.ask()
    told = await exports.until_reason("PVCNotFound", "PVCReady")
    assert told["message"] == "PersistentVolumeClaim shop/data not found"
    assert exports.condition("Ready")["reason"] == "Initializing"
    exports.provide()
    await exports.until_pod()


async def test_an_export_is_deleted_when_its_time_is_over(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask(ttlDuration="1500ms")
    await exports.server.until(lambda: "ttlExpirationTime" in exports.status)
    await exports.server.until(lambda: exports.body is None)


async def test_what_has_failed_is_said_and_tried_again_later(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    trouble = 'PersistentVolumeClaim "data" cannot be read: Permission denied.'
    message = json.dumps({"trouble": trouble})
    looked = {"terminated": {"exitCode": 1, "message": message}}
    exports.run_pod(
        phase="Failed", conditions=[], initContainerStatuses=[{"name": "look", "state": looked}]
    )
    await exports.server.until(lambda: exports.pod is None)
    told = {"reason": "PodPending", "message": trouble}
    await exports.server.until(lambda: told.items() <= exports.condition("Ready").items())
    await exports.server.until(lambda: "ExporterPodFailedOrCompleted" in exports.events())


async def test_a_pod_that_has_come_to_its_deadline_is_followed_by_another(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    first = await exports.until_pod()
    exports.run_pod(0, phase="Succeeded", conditions=[])
    await exports.server.until(
        lambda: (
            exports.pod is not None and exports.pod["metadata"]["uid"] != first["metadata"]["uid"]
        )
    )
    await exports.until_pod()


async def test_something_in_the_way_is_named_and_left_alone(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    theirs = {"metadata": {"namespace": "shop", "name": POD.name}, "spec": {"theirs": True}}
    exports.server.put(SERVICES, theirs)
    await exports.ask()
    told = await exports.until_reason("PodPending")
    assert "Service named virt-export-copy" in told["message"]
    assert exports.service is not None
    assert exports.service["spec"] == {"theirs": True}
    assert exports.pod is None


async def test_a_token_that_somebody_else_has_put_there_is_not_served_with(
    exports: ExportUser, leading: Controllers
) -> None:
    """Whoever may make Secrets would read the claims."""
    exports.provide()
    planted = {"metadata": {"namespace": "shop", "name": TOKEN.name}, "data": {"token": "a25vd24="}}
    exports.server.put(SECRETS, planted)
    await exports.ask()
    told = await exports.until_reason("PodPending")
    assert "Secret named export-token-copy" in told["message"]
    assert "tokenSecretRef" not in exports.status
    assert exports.pod is None
    assert exports.token == "known"
    exports.server.remove(SECRETS, TOKEN)
    await exports.until_pod()
    await exports.server.until(lambda: "tokenSecretRef" in exports.status)
    assert len(exports.token) == TOKEN_LENGTH


@pytest.mark.parametrize("is_same_leader", [True, False])
async def test_a_token_that_is_deleted_is_made_anew(
    exports: ExportUser,
    server: ApiServer,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    is_same_leader: bool,
) -> None:
    for module in (observed, reconciler):
        monkeypatch.setattr(module, "LOOK_AGAIN", timedelta(seconds=0.2))
    exports.provide()
    async with leader(server, settings):
        await exports.serve()
        first = exports.token
        if is_same_leader:
            server.remove(SECRETS, TOKEN)
            await server.until(lambda: exports.token not in ("", first))
    if not is_same_leader:
        server.remove(SECRETS, TOKEN)
        async with leader(server, settings):
            await server.until(lambda: exports.token not in ("", first))
    assert exports.status["phase"] == "Ready"


async def test_a_pod_that_may_not_be_made_is_told_of(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    exports.server.refuse("POST", "/shop/pods", Refuse(403, "Forbidden", "exceeded quota"))
    await exports.ask()
    told = await exports.until_reason("PodPending")
    assert "exceeded quota" in told["message"]
    await exports.until_pod()


def lose(number: int, fate: Fate) -> Callable[[web.Request], Fate]:
    """Has the write of that number meet its fate."""
    seen = 0

    def fate_of(request: web.Request) -> Fate:
        nonlocal seen
        is_ours = request.headers["User-Agent"] == "test" and request.method != "GET"
        if not is_ours or "/shop/" not in request.path:
            return Fate.ANSWERED
        seen += 1
        return fate if seen == number else Fate.ANSWERED

    return fate_of


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.ANSWER_LOST])
@pytest.mark.parametrize("number", range(1, 7))
async def test_no_write_that_fails_or_whose_answer_is_lost_stands_in_the_way(
    exports: ExportUser, leading: Controllers, number: int, fate: Fate
) -> None:
    exports.server.fate_of = lose(number, fate)
    exports.provide()
    await exports.serve()
    assert len(exports.token) == TOKEN_LENGTH
    assert len([one for one in exports.server.created if one["kind"] == "Pod"]) == 1


@pytest.mark.parametrize("is_ready", [False, True])
async def test_another_leader_goes_on_where_one_has_ended(
    exports: ExportUser, server: ApiServer, settings: Settings, is_ready: bool
) -> None:
    """Nothing is made twice, whatever there is already."""
    exports.provide()
    async with leader(server, settings):
        await exports.serve()
        created = len(server.created)
    if not is_ready:
        body = exports.body
        assert body is not None
        server.put(EXPORTS, body | {"status": {}})
    async with leader(server, settings):
        exports.provide(labels={"a": "b"})
        await exports.until_ready()
    kinds = [one["kind"] for one in server.created[created:]]
    assert [kind for kind in kinds if kind not in ("Event", "Lease")] == []
