"""gRPC over TLS on loopback: who gets in, who is believed, and what happens to open streams when certificates change."""

from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from podvisor_common.rpc.errors import PermissionDenied, Unavailable
from podvisor_common.rpc.tcp import Credentials, serve_tcp
from podvisor_common.tls.authority import (
    BadCertificate,
    CertificateAuthority,
    CertificateRequest,
    KeyPair,
    make_bundle,
    parse_certificate,
)
from podvisor_common.tls.identities import CONTROLLER, BadNodeName, handler_of
from structlog.testing import capture_logs

from tests.unit.edge.tls_peers import (
    DAY,
    NOW,
    Port,
    ask,
    authority,
    client_pair,
    server_pair,
)

Signer = CertificateAuthority


@pytest.fixture(scope="module")
def signer() -> Signer:
    return authority()


@pytest.fixture
async def port(signer: Signer) -> AsyncIterator[Port]:
    async with Port(signer).open() as one:
        yield one


async def test_the_controller_is_let_in(port: Port, signer: Signer) -> None:
    async with port.channel(signer.certificate, client_pair(signer)) as channel:
        await ask(channel)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (lambda signer: None, "PEER_DID_NOT_RETURN_A_CERTIFICATE"),
        (lambda signer: client_pair(authority()), "unable to get local issuer certificate"),
        (lambda signer: client_pair(signer, now=NOW - 2 * DAY), "certificate has expired"),
        (server_pair, "unsupported certificate purpose"),
    ],
    ids=["none", "another authority's", "expired", "a handler's own"],
)
async def test_certificates_that_end_the_handshake(
    port: Port,
    signer: Signer,
    shown: Callable[[Signer], KeyPair | None],
    said: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Each with a line in the server's log that says why."""
    async with port.channel(signer.certificate, shown(signer)) as channel:
        with pytest.raises(Unavailable):
            await ask(channel)
    assert said in capfd.readouterr().err


async def test_who_speaks_no_tls_gets_nothing(port: Port) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port.number}") as channel:
        with pytest.raises(Unavailable):
            await ask(channel)


@pytest.mark.parametrize(
    "name", ["virt-controller.kubevirt.svc", f"x.{CONTROLLER}", handler_of("n2")]
)
async def test_a_caller_of_another_name_is_refused(port: Port, signer: Signer, name: str) -> None:
    with capture_logs() as logs:
        async with port.channel(signer.certificate, client_pair(signer, name)) as channel:
            for _ in range(2):
                with pytest.raises(PermissionDenied) as refused:
                    await ask(channel)
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            with pytest.raises(grpc.aio.AioRpcError) as unwatched:
                await anext(aiter(watched))
    assert refused.value.reason == "CallerRefused"
    assert unwatched.value.code() is grpc.StatusCode.PERMISSION_DENIED
    (line,) = logs
    assert (line["event"], line["names"]) == ("caller refused", [name])


async def test_the_handler_of_another_node_is_not_believed(port: Port, signer: Signer) -> None:
    async with port.channel(signer.certificate, client_pair(signer), node="n2") as channel:
        with pytest.raises(Unavailable, match="Hostname Verification"):
            await ask(channel)


async def test_a_server_of_another_authority_is_not_believed(port: Port, signer: Signer) -> None:
    async with port.channel(authority().certificate, client_pair(signer)) as channel:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(channel)


async def test_a_new_certificate_leaves_streams_open(port: Port, signer: Signer) -> None:
    """New connections see the new one, of another authority, while those of the old one are trusted still; and then no more."""
    following = authority()
    both = make_bundle([following.certificate, signer.certificate], now=NOW)
    async with (
        port.channel(signer.certificate, client_pair(signer)) as old,
        port.channel(following.certificate, client_pair(signer)) as late,
        port.channel(following.certificate, client_pair(following)) as new,
        port.channel(following.certificate, client_pair(signer)) as too_late,
    ):
        stream = health_pb2_grpc.HealthStub(old).Watch(health_pb2.HealthCheckRequest())
        assert (await anext(aiter(stream))).status == health_pb2.HealthCheckResponse.SERVING
        port.credentials = Credentials(server_pair(following), both)
        await ask(late)
        await ask(new)
        port.credentials = Credentials(server_pair(following), following.certificate)
        with pytest.raises(Unavailable):
            await ask(too_late)
        await ask(old)
        assert not stream.done()
        stream.cancel()


async def test_without_a_caller_to_expect_everybody_is_let_in(signer: Signer) -> None:
    port = Port(signer)
    async with (
        serve_tcp(
            0, [], credentials=lambda: port.credentials, only_for=None, host="127.0.0.1"
        ) as port.number,
        port.channel(signer.certificate, None) as channel,
    ):
        await ask(channel)


async def test_a_port_that_is_taken(port: Port) -> None:
    with pytest.raises(OSError, match="cannot listen"):
        async with serve_tcp(
            port.number,
            [],
            credentials=lambda: port.credentials,
            only_for=CONTROLLER,
            host="127.0.0.1",
        ):
            pass


def test_of_a_request_only_the_key_is_taken(signer: Signer) -> None:
    asked = CertificateRequest.create("system:masters")
    signed = signer.sign_for_server(asked.request, "n1", ["n1.x"], now=NOW, valid_for=DAY)
    assert asked.answered(signed) == KeyPair(signed, asked.key)
    assert parse_certificate(signed).subject.rfc4514_string() == "CN=n1"
    assert asked.key.decode() not in repr(asked)
    with pytest.raises(BadCertificate, match="belong together"):
        CertificateRequest.create("n1").answered(signed)


@pytest.mark.parametrize("flip", [None, 150])
def test_requests_that_are_not_signed(signer: Signer, flip: int | None) -> None:
    """Text that is no request, and a request in which a character of the key is another one."""
    request = bytearray(CertificateRequest.create("n1").request)
    if flip is None:
        request = bytearray(b"-----BEGIN nothing")
    else:
        request[flip] = ord("A") if request[flip] != ord("A") else ord("B")
    with pytest.raises(BadCertificate):
        signer.sign_for_server(bytes(request), "n1", ["n1.x"], now=NOW, valid_for=DAY)


@pytest.mark.parametrize(
    ("node", "name"),
    [
        ("n1", "n1.virt-handler.podvisor.io"),
        ("ip-10-0-0-1.eu.example", "ip-10-0-0-1.eu.example.virt-handler.podvisor.io"),
        ("10.0.0.1", "10.0.0.1.virt-handler.podvisor.io"),
    ],
)
def test_names_of_handlers(node: str, name: str) -> None:
    assert handler_of(node) == name


@pytest.mark.parametrize("node", ["", "*", "*.x", "A", "a..b", ".a", "a\n", "a" * 250])
def test_names_of_no_handler(node: str) -> None:
    with pytest.raises(BadNodeName):
        handler_of(node)
