"""podvisor's authority as exports use it: read, not made, and trusted with what follows it."""

from datetime import timedelta

import pytest
from podvisor_common.api.meta import now
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import SECRETS
from podvisor_common.tls.authority import expires_at, is_signed_by, split_bundle
from podvisor_controller.export.authority import MARGIN, Authority, NoAuthority
from podvisor_controller.webhooks.rotation import Authorities, Lives, Step, take, to_secret_data

from tests.unit.controller.api_server import ApiServer, Json


def put(server: ApiServer, data: Json) -> None:
    server.put(
        SECRETS, {"metadata": {"namespace": "kubevirt", "name": "podvisor-ca"}, "data": data}
    )


def authorities(life: timedelta = timedelta(days=1)) -> Authorities:
    first = take(Step.CREATE, None, now=now(), lives=Lives(authority=life))
    return take(Step.INTRODUCE, first, now=now())


async def test_clients_trust_the_authority_that_is_to_follow_as_well(
    server: ApiServer, client: KubeClient
) -> None:
    known = authorities()
    put(server, to_secret_data(known))
    authority = Authority(client, "kubevirt")
    assert known.following is not None
    assert split_bundle(await authority.bundle()) == [
        known.signing.certificate,
        known.following.certificate,
    ]
    pair = await authority.issue(["a.shop.svc"], now() + timedelta(hours=1))
    assert is_signed_by(pair.certificate, known.signing.certificate)
    left = expires_at(pair.certificate) - now()
    assert timedelta(hours=1) < left <= timedelta(hours=1) + MARGIN


async def test_a_certificate_ends_before_its_authority(
    server: ApiServer, client: KubeClient
) -> None:
    known = authorities(timedelta(minutes=10))
    put(server, to_secret_data(known))
    authority = Authority(client, "kubevirt")
    end = expires_at(known.signing.certificate)
    assert await authority.lasts_until() == end - MARGIN
    pair = await authority.issue(["a.shop.svc"], now() + timedelta(days=9))
    assert expires_at(pair.certificate) == end


@pytest.mark.parametrize("data", [None, {}, {"ca.crt": "eA==", "ca.key": "eA=="}])
async def test_an_authority_that_is_not_there_yet_is_waited_for(
    server: ApiServer, client: KubeClient, data: Json | None
) -> None:
    if data is not None:
        put(server, data)
    with pytest.raises(NoAuthority):
        await Authority(client, "kubevirt").bundle()


async def test_it_is_read_once_for_many_exports(server: ApiServer, client: KubeClient) -> None:
    put(server, to_secret_data(authorities()))
    authority = Authority(client, "kubevirt")
    for _ in range(3):
        await authority.bundle()
    assert [r.path for r in server.requests if r.path.endswith("podvisor-ca")] == [
        "/api/v1/namespaces/kubevirt/secrets/podvisor-ca"
    ]
