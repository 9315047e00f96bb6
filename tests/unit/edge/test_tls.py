"""The certificate authority and hot-swapped contexts, proven with OpenSSL's own verification."""

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from podvisor_common.http.server import serve_http
from podvisor_common.tls.authority import (
    BadCertificate,
    CertificateAuthority,
    KeyPair,
    check_key_pair,
    expires_at,
    is_signed_by,
    make_bundle,
    parse_certificate,
    remaining_share,
    split_bundle,
)
from podvisor_common.tls.contexts import load_pair, report_refusals, server_context

NOW = datetime.now(UTC).replace(microsecond=0)
YEAR = timedelta(days=365)
DAY = timedelta(days=1)


def authority(name: str = "podvisor", now: datetime = NOW) -> CertificateAuthority:
    return CertificateAuthority.create(name, now=now, valid_for=YEAR)


async def served_certificate(port: int, ca: bytes, host: str = "localhost") -> bytes:
    """The certificate that a client which trusts `ca` and expects `host` is shown."""
    context = ssl.create_default_context(cadata=ca.decode())
    _reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=host
    )
    try:
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return ssl.DER_cert_to_PEM_cert(shown).encode()
    finally:
        writer.close()
        await writer.wait_closed()


def shake_hands(port: int, ca: bytes) -> None:
    """As a client that says why it turns a certificate down, which those of asyncio do not."""
    context = ssl.create_default_context(cadata=ca.decode())
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
        context.wrap_socket(connection, server_hostname="localhost"),
    ):
        pass


async def test_new_connections_see_a_swapped_certificate() -> None:
    old, new = authority(), authority()
    bundle = make_bundle([new.certificate, old.certificate], now=NOW)
    first = old.issue("a", ["localhost", "127.0.0.1"], now=NOW, valid_for=DAY)
    context = server_context(first)
    async with serve_http(web.Application(), host="127.0.0.1", port=0, tls=context) as port:
        assert await served_certificate(port, bundle) == first.certificate
        second = new.issue("b", ["localhost", "127.0.0.1"], now=NOW, valid_for=DAY)
        load_pair(context, second)
        assert await served_certificate(port, bundle) == second.certificate
        assert await served_certificate(port, bundle, "127.0.0.1") == second.certificate
        with pytest.raises(ssl.SSLCertVerificationError):
            await served_certificate(port, old.certificate)
        with pytest.raises(ssl.SSLCertVerificationError):
            await served_certificate(port, bundle, "elsewhere")


def test_a_leaf_knows_its_authority() -> None:
    ours, other = authority(), authority()
    leaf = ours.issue("x", ["x"], now=NOW, valid_for=DAY)
    assert is_signed_by(leaf.certificate, ours.certificate)
    assert not is_signed_by(leaf.certificate, other.certificate)
    check_key_pair(leaf)


def test_a_leaf_never_outlives_its_authority() -> None:
    leaf = authority().issue("x", ["x"], now=NOW + YEAR - DAY, valid_for=timedelta(days=9))
    assert expires_at(leaf.certificate) == NOW + YEAR


def test_remaining_share() -> None:
    leaf = authority().issue("x", ["x"], now=NOW, valid_for=DAY).certificate
    assert remaining_share(leaf, now=NOW) == pytest.approx(1, abs=0.01)
    assert remaining_share(leaf, now=NOW + DAY) == 0
    assert remaining_share(leaf, now=NOW + 2 * DAY) < 0


def test_bundle_has_no_duplicates_and_nothing_expired() -> None:
    fresh, stale = authority().certificate, authority(now=NOW - 2 * YEAR).certificate
    bundle = make_bundle([fresh, stale + fresh, b""], now=NOW)
    assert split_bundle(bundle) == [fresh]


@pytest.mark.parametrize("pem", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_garbage_is_a_typed_error(pem: bytes) -> None:
    with pytest.raises(BadCertificate):
        parse_certificate(pem)


def test_key_of_another_certificate_is_refused_and_never_shown() -> None:
    one, two = authority().pair, authority().pair
    mixed = KeyPair(one.certificate, two.key)
    with pytest.raises(BadCertificate):
        check_key_pair(mixed)
    assert "PRIVATE" not in repr(mixed)


@pytest.mark.parametrize("life", [timedelta(seconds=20), timedelta(minutes=2), DAY], ids=str)
def test_a_new_certificate_has_its_whole_life_before_it(life: timedelta) -> None:
    """However short that is against the time from before its making for which it is valid too."""
    leaf = authority().issue("x", ["x"], now=NOW, valid_for=life).certificate
    assert remaining_share(leaf, now=NOW) == 1
    assert remaining_share(leaf, now=NOW + life / 2) == 0.5


@pytest.mark.parametrize("ahead", [timedelta(hours=-1), timedelta(hours=1)], ids=str)
async def test_a_clock_that_is_an_hour_off_issues_what_others_accept(ahead: timedelta) -> None:
    ours = authority(now=NOW + ahead)
    pair = ours.issue("a", ["localhost"], now=NOW + ahead, valid_for=DAY)
    async with serve_http(
        web.Application(), host="127.0.0.1", port=0, tls=server_context(pair)
    ) as port:
        assert await served_certificate(port, ours.certificate) == pair.certificate


@pytest.mark.parametrize(
    ("issued", "trusted", "said"),
    [
        pytest.param(NOW, "other", {"unknown authority"}, id="wrong authority"),
        pytest.param(NOW - 2 * DAY, "ours", {"certificate expired"}, id="expired"),
        pytest.param(NOW, "ours", set(), id="accepted"),
    ],
)
async def test_what_a_client_turns_down_is_reported(
    issued: datetime, trusted: str, said: set[str]
) -> None:
    authorities = {"ours": authority(now=NOW - 3 * DAY), "other": authority()}
    pair = authorities["ours"].issue("a", ["localhost"], now=issued, valid_for=DAY)
    context = server_context(pair)
    heard: asyncio.Queue[str] = asyncio.Queue()
    report_refusals(context, heard.put_nowait)
    async with serve_http(web.Application(), host="127.0.0.1", port=0, tls=context) as port:
        shaking = asyncio.to_thread(shake_hands, port, authorities[trusted].certificate)
        if said:
            with pytest.raises(ssl.SSLCertVerificationError):
                await shaking
            assert {await heard.get()} == said
        else:
            await shaking
    assert heard.empty()
