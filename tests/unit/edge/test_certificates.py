"""Certificates against a fake API server: bootstrap, two replicas, rotation, repair; checked by
real TLS.
"""

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from podvisor_common.http.server import serve_http
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiForbidden, ApiNotFound, ApiUnavailable
from podvisor_common.kube.resources import (
    CRDS,
    MUTATING_WEBHOOKS,
    SECRETS,
    VALIDATING_WEBHOOKS,
    ObjectKey,
)
from podvisor_controller.subresources.api_services import API_SERVICES, NAMES
from podvisor_controller.webhooks import certificates, rotation
from podvisor_controller.webhooks.certificates import Certificates, NotPublished
from podvisor_controller.webhooks.publication import OWNER
from structlog.testing import capture_logs

from tests.unit.edge.certificate_replicas import (
    CRD,
    SECRET,
    Clock,
    is_trusted,
    published,
    replica,
    stored,
)
from tests.unit.kube.fake_apiserver import FakeApiServer, Refuse


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as server:
        server.put(
            CRDS,
            {
                "metadata": {"name": CRD.name},
                "spec": {"group": "kubevirt.io", "conversion": {"strategy": "None"}},
            },
        )
        yield server


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[KubeClient]:
    async with KubeClient.for_url(server.url, user_agent="test") as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime.now(UTC))


async def test_from_nothing_to_trusted(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one = replica(client, clock)
    assert one.not_ready() is not None
    await one.bring_up_to_date()
    assert one.not_ready() is None
    assert await is_trusted(one, published(server))
    definition = server.get(CRDS, CRD)
    assert definition is not None
    assert definition["spec"]["group"] == "kubevirt.io"


async def test_not_ready_with_a_certificate_that_is_over(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one = replica(client, clock)
    await one.bring_up_to_date()
    clock.pass_(rotation.DEFAULT_LIVES.leaf)
    assert one.not_ready() is not None
    await one.bring_up_to_date()
    assert one.not_ready() is None


async def test_a_leaf_is_renewed_without_the_api_server(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one = replica(client, clock)
    await one.bring_up_to_date()
    for _ in range(3):
        clock.pass_(rotation.DEFAULT_LIVES.leaf * 0.6)
        server.refusals.append(Refuse(503, "ServiceUnavailable"))
        with pytest.raises(ApiUnavailable):
            await one.bring_up_to_date()
        assert one.not_ready() is None


async def refuse(certificates: Certificates, trusted: bytes) -> None:
    """Turn the replica's certificate down as the API server does, saying so; asyncio's clients do not."""

    def shake_hands(port: int) -> None:
        trust = ssl.create_default_context(cadata=trusted.decode())
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            trust.wrap_socket(connection, server_hostname="virt-controller.kubevirt.svc")

    app = web.Application()
    async with serve_http(app, host="127.0.0.1", port=0, tls=certificates.context) as port:
        await asyncio.to_thread(shake_hands, port)


async def test_a_client_that_refuses_the_certificate_has_the_registration_repaired(
    server: FakeApiServer, client: KubeClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API server was told of another authority: its next call fails, and the one after that does not."""
    monkeypatch.setattr(certificates, "REFUSAL_PAUSE_S", 0.0)
    one = replica(client, clock)
    await one.bring_up_to_date()
    seen = len(server.requests)
    running = asyncio.create_task(one.run(), name="certificates")
    try:
        # The definition is what a pass looks at last.
        await server.until(lambda: any(r.path.endswith(CRD.name) for r in server.requests[seen:]))
        right = published(server)
        other = rotation.new_authority(clock.wall()).certificate
        wrong = base64.b64encode(other).decode()
        key = ObjectKey("", "podvisor-validating")
        found = server.get(VALIDATING_WEBHOOKS, key)
        assert found is not None
        for webhook in found["webhooks"]:
            webhook["clientConfig"]["caBundle"] = wrong
        server.put(VALIDATING_WEBHOOKS, found)
        with capture_logs() as lines:
            await refuse(one, other)
            await server.until(lambda: wrong not in str(server.get(VALIDATING_WEBHOOKS, key)))
            await refuse(one, other)
        assert published(server) == right
        said = [line for line in lines if line["log_level"] == "warning"]
        assert [line["reason"] for line in said] == ["unknown authority"]
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_two_replicas_share_one_authority(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one, two = replica(client, clock), replica(client, clock, leads=False)
    await one.bring_up_to_date()
    await two.bring_up_to_date()
    assert len(published(server)) == 1
    assert await is_trusted(one, published(server))
    assert await is_trusted(two, published(server))


async def test_a_follower_is_ready_once_the_leader_has_published(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    leader, follower = replica(client, clock), replica(client, clock, leads=False)
    with pytest.raises(NotPublished):
        await follower.bring_up_to_date()
    assert follower.not_ready() is not None
    assert server.get(MUTATING_WEBHOOKS, ObjectKey("", "podvisor-mutating")) is None
    await leader.bring_up_to_date()
    await follower.bring_up_to_date()
    assert follower.not_ready() is None
    assert await is_trusted(follower, published(server))


async def test_a_follower_of_another_release_leaves_the_leaders_registration(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    await replica(client, clock).bring_up_to_date()
    key = ObjectKey("", "podvisor-mutating")
    found = server.get(MUTATING_WEBHOOKS, key)
    assert found is not None
    for webhook in found["webhooks"]:
        webhook["timeoutSeconds"] = 3
    other = server.put(MUTATING_WEBHOOKS, found)
    await replica(client, clock, leads=False).bring_up_to_date()
    assert server.get(MUTATING_WEBHOOKS, key) == other


async def test_a_follower_of_a_leader_that_serves_no_subresources_is_ready(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    """Or no release could follow one that had none."""
    await replica(client, clock).bring_up_to_date()
    for name in NAMES.values():
        server.remove(API_SERVICES, ObjectKey("", name))
    follower = replica(client, clock, leads=False)
    await follower.bring_up_to_date()
    assert follower.not_ready() is None
    assert server.list(API_SERVICES) == []


async def test_webhooks_do_not_wait_for_leave_to_serve_subresources(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    """Policies that forbid APIServices are common."""
    server.forbidden.add("apiservices")
    leader = replica(client, clock)
    with pytest.raises(ApiForbidden):
        await leader.bring_up_to_date()
    follower = replica(client, clock, leads=False)
    await follower.bring_up_to_date()
    assert [one.not_ready() for one in (leader, follower)] == [None, None]
    server.forbidden.clear()
    await leader.bring_up_to_date()
    assert len(server.list(API_SERVICES)) == len(NAMES)


async def test_other_ports_show_each_new_certificate(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one = replica(client, clock)
    shown = [one.pair]
    one.subscribe(shown.append)
    await one.bring_up_to_date()
    await one.bring_up_to_date()
    clock.pass_(rotation.DEFAULT_LIVES.leaf * 0.6)
    await one.bring_up_to_date()
    assert len({pair.certificate for pair in shown}) == 3
    assert one.pair == shown[-1]


async def test_a_second_pass_writes_nothing(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one = replica(client, clock)
    await one.bring_up_to_date()
    seen = len(server.requests)
    await one.bring_up_to_date()
    assert {request.method for request in server.requests[seen:]} == {"GET"}


async def test_not_ready_until_everybody_was_told(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    server.remove(CRDS, CRD)
    one = replica(client, clock)
    with pytest.raises(ApiNotFound):
        await one.bring_up_to_date()
    assert one.not_ready() is not None


async def test_rotation_never_leaves_a_replica_untrusted(
    server: FakeApiServer, client: KubeClient
) -> None:
    clock = Clock(datetime.now(UTC) - rotation.DEFAULT_LIVES.authority * 0.7)
    one, two = replica(client, clock), replica(client, clock, leads=False)
    for each in (one, two):
        await each.bring_up_to_date()
    old = published(server)
    clock.pass_(rotation.DEFAULT_LIVES.authority * 0.7)

    await one.bring_up_to_date()
    both = published(server)
    assert both[:1] == old
    assert len(both) == 2
    await one.bring_up_to_date()
    assert "next.key" in stored(server), "promoted before the API server had time to hear of it"

    clock.pass_(timedelta(seconds=rotation.SETTLING_S))
    await one.bring_up_to_date()
    assert "next.key" not in stored(server)
    assert published(server) == [both[1], old[0]]
    await two.bring_up_to_date()
    for each in (one, two):
        assert await is_trusted(each, published(server))
        assert await is_trusted(each, [both[1]])

    clock.pass_(rotation.DEFAULT_LIVES.authority * 0.3)
    await one.bring_up_to_date()
    assert published(server) == [both[1]]


async def test_a_registration_that_somebody_damaged_is_repaired(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one = replica(client, clock)
    await one.bring_up_to_date()
    before = published(server)
    server.remove(MUTATING_WEBHOOKS, ObjectKey("", "podvisor-mutating"))
    await client.merge_patch(CRDS, CRD, {"spec": {"conversion": {"strategy": "None"}}})
    await one.bring_up_to_date()
    assert published(server) == before
    definition = server.get(CRDS, CRD)
    assert definition is not None
    assert definition["spec"]["conversion"]["strategy"] == "Webhook"


async def test_a_damaged_secret_is_made_anew(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    one = replica(client, clock)
    await one.bring_up_to_date()
    await client.merge_patch(SECRETS, SECRET, {"data": {"ca.key": "AAAA"}})
    await one.bring_up_to_date()
    assert await is_trusted(one, published(server))


async def test_configurations_belong_to_the_charts_role(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    role = server.put(OWNER, {"metadata": {"name": "virt-controller"}})
    await replica(client, clock).bring_up_to_date()
    for resource, name in (
        (MUTATING_WEBHOOKS, "podvisor-mutating"),
        (VALIDATING_WEBHOOKS, "podvisor-validating"),
        *((API_SERVICES, name) for name in NAMES.values()),
    ):
        found = server.get(resource, ObjectKey("", name))
        assert found is not None
        (owner,) = found["metadata"]["ownerReferences"]
        assert owner["uid"] == role["metadata"]["uid"]


async def test_a_replica_that_starts_too_early_tries_again(
    server: FakeApiServer, client: KubeClient, clock: Clock
) -> None:
    server.remove(CRDS, CRD)
    running = asyncio.create_task(replica(client, clock).run(), name="certificates")
    try:
        await server.until(
            lambda: (
                server.get(VALIDATING_WEBHOOKS, ObjectKey("", "podvisor-validating")) is not None
            )
        )
        server.put(CRDS, {"metadata": {"name": CRD.name}, "spec": {}})
        await server.until(lambda: "conversion" in (server.get(CRDS, CRD) or {})["spec"])
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()
