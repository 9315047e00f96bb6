"""A handler's way to its certificate: what a controller asks the API server, whom it refuses, and how the handler keeps one."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from podvisor.identity.v1 import identity_pb2, identity_pb2_grpc
from podvisor_common.kube.errors import ApiForbidden
from podvisor_common.kube.resources import CONFIGMAPS, ObjectKey
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import (
    InvalidArgument,
    PermissionDenied,
    RpcError,
    Unauthenticated,
    Unavailable,
)
from podvisor_common.rpc.tcp import tls_channel
from podvisor_common.tls.authority import CertificateRequest, parse_certificate
from podvisor_common.tls.identities import AUDIENCE, TRUST_CONFIG_MAP
from podvisor_controller.handlers.issuing import REQUEST_LIMIT_BYTES, TOKEN_LIMIT_BYTES
from podvisor_handler.identity import renewal
from structlog.testing import capture_logs

from tests.unit.edge.certificate_replicas import NAMESPACE, replica
from tests.unit.edge.handler_identities import (
    HANDLER,
    LIFE,
    SERVER_NAME,
    TOKEN,
    Controllers,
    Handler,
    controllers,
    vouched,
)
from tests.unit.edge.tls_peers import NOW, authority
from tests.unit.kube.fake_apiserver import Refuse

ASKED = CertificateRequest.create("somebody")
BEARER = [("authorization", f"Bearer {TOKEN}")]


@pytest.fixture
async def issuers() -> AsyncIterator[Controllers]:
    async with controllers() as made, made.issuing():
        yield made


async def issued(
    issuers: Controllers, *metadata: tuple[str, str], request: bytes = ASKED.request
) -> bytes:
    """A certificate from the controller. Raises what call() raises."""
    async with tls_channel(
        f"127.0.0.1:{issuers.port}", server_name=SERVER_NAME, authorities=issuers.trust()
    ) as channel:
        answer = await call(
            identity_pb2_grpc.IdentityServiceStub(channel).IssueCertificate,
            identity_pb2.IssueCertificateRequest(certificate_request=request),
            timeout_s=5,
            metadata=metadata,
        )
    return answer.certificate


async def test_the_certificate_is_for_the_node_of_the_token(issuers: Controllers) -> None:
    certificate = parse_certificate(await issued(issuers, *BEARER))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName("n1.virt-handler.podvisor.io")]
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert renewal.is_trusted(
        ASKED.answered(await issued(issuers, *BEARER)).certificate, issuers.trust()
    )
    assert issuers.server.reviews[0] == {"token": TOKEN, "audiences": [AUDIENCE]}


def account(name: str) -> dict[str, Any]:
    return {**vouched()["user"], "username": name}


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        ({"authenticated": False, "error": f"no {TOKEN}"}, Unauthenticated, "TokenRefused"),
        (vouched(audiences=["https://kubernetes.default.svc"]), Unauthenticated, "TokenRefused"),
        (vouched(audiences=None), Unauthenticated, "TokenRefused"),
        ({}, Unauthenticated, "TokenRefused"),
        (
            vouched(user=account("system:serviceaccount:kubevirt:default")),
            PermissionDenied,
            "NotAHandler",
        ),
        (
            vouched(user=account("system:serviceaccount:shop:virt-handler")),
            PermissionDenied,
            "NotAHandler",
        ),
        (vouched(user={"username": HANDLER}), PermissionDenied, "NotBoundToANode"),
        (
            vouched(
                user={
                    **account(HANDLER),
                    "extra": {"authentication.kubernetes.io/node-name": ["n1", "n2"]},
                }
            ),
            PermissionDenied,
            "NotBoundToANode",
        ),
        (
            vouched(
                user={
                    **account(HANDLER),
                    "extra": {"authentication.kubernetes.io/node-name": ["*"]},
                }
            ),
            InvalidArgument,
            "BadNodeName",
        ),
    ],
    ids=[
        "of nobody",
        "for another audience",
        "for any audience",
        "no answer",
        "of another account",
        "of another namespace",
        "of no node",
        "of two nodes",
        "of any node",
    ],
)
async def test_tokens_that_get_no_certificate(
    issuers: Controllers, status: dict[str, Any], error: type[RpcError], reason: str
) -> None:
    issuers.server.tokens[TOKEN] = status
    with capture_logs() as logs, pytest.raises(error) as refused:
        await issued(issuers, *BEARER)
    assert refused.value.reason == reason
    assert logs or error is InvalidArgument
    assert TOKEN not in f"{logs}{refused.value}"


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", TOKEN)],
        [("authorization", "Bearer ")],
        [*BEARER, *BEARER],
        [("authorization", f"Bearer {'a' * (TOKEN_LIMIT_BYTES + 1)}")],
    ],
    ids=["none", "no scheme", "empty", "two", "too long"],
)
async def test_calls_without_a_token(issuers: Controllers, metadata: list[tuple[str, str]]) -> None:
    """The API server is not even asked."""
    with pytest.raises(RpcError):
        await issued(issuers, *metadata)
    assert issuers.server.reviews == []


@pytest.mark.parametrize("request_", [b"", b"x" * (REQUEST_LIMIT_BYTES + 1)])
async def test_requests_that_are_none(issuers: Controllers, request_: bytes) -> None:
    with pytest.raises(InvalidArgument):
        await issued(issuers, *BEARER, request=request_)


async def test_an_api_server_that_does_not_answer(issuers: Controllers) -> None:
    issuers.server.refusals.append(Refuse(503, "ServiceUnavailable", f"cannot look at {TOKEN}"))
    with capture_logs() as logs, pytest.raises(Unavailable) as refused:
        await issued(issuers, *BEARER)
    assert refused.value.reason == "TokenNotReviewed"
    (line,) = logs
    assert TOKEN not in f"{line}{refused.value}"


async def test_no_certificate_before_somebody_has_been_told_whom_to_trust(
    issuers: Controllers,
) -> None:
    trust = issuers.trust()
    early = replica(issuers.client, issuers.clock)
    made = Controllers(issuers.server, issuers.client, early, issuers.clock)
    async with made.issuing():
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await issued(made, *BEARER)
        await early.bring_up_to_date()
        assert renewal.is_trusted(await issued(made, *BEARER), trust)


async def test_who_may_not_write_the_config_map_has_working_webhooks(issuers: Controllers) -> None:
    """As a controller under the rights of the release before it."""
    issuers.server.remove(CONFIGMAPS, ObjectKey(NAMESPACE, TRUST_CONFIG_MAP))
    issuers.server.forbidden.add("configmaps")
    fresh = replica(issuers.client, issuers.clock)
    with pytest.raises(ApiForbidden):
        await fresh.bring_up_to_date()
    assert fresh.not_ready() is None


async def test_a_handler_gets_its_certificate(issuers: Controllers, tmp_path: Path) -> None:
    certificate = Handler(tmp_path, issuers.port, issuers.trust()).certificate
    with capture_logs() as logs:
        pause_s = await certificate.bring_up_to_date()
    await certificate.first()
    life_s = LIFE.total_seconds()
    assert 0.56 * life_s < pause_s <= 0.67 * life_s
    assert certificate.current().authorities == issuers.trust()
    assert await certificate.bring_up_to_date() <= pause_s
    assert len(issuers.server.reviews) == 1
    assert TOKEN not in str(logs)
    assert certificate.current().pair.key.decode() not in str(logs)


async def test_a_handler_waits_for_word_of_its_controllers(
    issuers: Controllers, tmp_path: Path
) -> None:
    """It acts at once, and has complained of nothing meanwhile."""
    handler = Handler(tmp_path, issuers.port)
    running = asyncio.create_task(handler.certificate.run(), name="certificate")
    try:
        with capture_logs() as logs:
            await asyncio.sleep(0)  # its turn: it looks, and finds nothing
            handler.trust(issuers.trust())
            async with asyncio.timeout(5):
                await handler.certificate.first()
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert {line["log_level"] for line in logs} == {"info"}


async def test_a_handler_without_a_token(issuers: Controllers, tmp_path: Path) -> None:
    handler = Handler(tmp_path, issuers.port, issuers.trust(), token=" ")
    with capture_logs() as logs:
        await handler.certificate.bring_up_to_date()
    assert [line["reason"] for line in logs] == ["NoToken"]
    assert issuers.server.reviews == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_handler_without_controllers_tries_again(tmp_path: Path) -> None:
    async with controllers() as made:
        made.port = free_port()
        certificate = Handler(tmp_path, made.port, made.trust()).certificate
        with capture_logs() as logs:
            pauses = [await certificate.bring_up_to_date() for _ in range(3)]
        assert all(low < high for low, high in zip(pauses, (2, 4, 8), strict=True))
        assert {line["reason"] for line in logs} == {"Unavailable"}
        async with made.issuing():
            await certificate.bring_up_to_date()
        await certificate.first()


async def test_a_handler_believes_no_controller_of_another_authority(
    issuers: Controllers, tmp_path: Path
) -> None:
    """Nor does such a one see the token."""
    certificate = Handler(tmp_path, issuers.port, authority().certificate).certificate
    with capture_logs() as logs:
        await certificate.bring_up_to_date()
    assert "CERTIFICATE_VERIFY_FAILED" in logs[0]["error"]
    assert issuers.server.reviews == []


async def test_a_handler_replaces_what_nobody_trusts_any_more(
    issuers: Controllers, tmp_path: Path
) -> None:
    handler = Handler(tmp_path, issuers.port, issuers.trust())
    certificate = handler.certificate
    await certificate.bring_up_to_date()
    before = certificate.current()
    await issuers.make_another_authority()
    handler.trust(before.authorities or b"")
    await certificate.bring_up_to_date()
    assert certificate.current() is before
    handler.trust(issuers.trust() + (before.authorities or b""))
    await certificate.bring_up_to_date()
    assert certificate.current().pair is before.pair
    assert certificate.current().authorities != before.authorities
    handler.trust(issuers.trust())
    await certificate.bring_up_to_date()
    assert renewal.is_trusted(certificate.current().pair.certificate, issuers.trust())


@pytest.mark.parametrize(
    ("life", "jitter", "pause_s"),
    [
        (timedelta(hours=24), 0.0, 57600.0),
        (timedelta(hours=24), 1.0, 48960.0),
        (timedelta(seconds=1), 1.0, 1.0),
    ],
)
def test_when_a_certificate_is_replaced(life: timedelta, jitter: float, pause_s: float) -> None:
    leaf = authority().issue("n1", ["n1"], now=NOW, valid_for=life)
    assert renewal.pause_s(leaf.certificate, jitter=jitter) == pytest.approx(pause_s, abs=2)
