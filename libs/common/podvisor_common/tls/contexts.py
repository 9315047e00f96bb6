"""SSL contexts whose certificate can be swapped while they serve.

Invariant: a private key never touches a disk. The ssl module loads keys from files alone, so they
pass through an anonymous memory file.
"""

import os
import ssl
from collections.abc import Callable

from podvisor_common.tls.authority import KeyPair


def server_context(pair: KeyPair, *, client_ca: bytes | None = None) -> ssl.SSLContext:
    """A TLS 1.2+ server context with `pair`; with `client_ca` clients must show a certificate of
    it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if client_ca is not None:
        context.load_verify_locations(cadata=client_ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    load_pair(context, pair)
    return context


def load_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """Use `pair` for every connection of `context` from now on; open ones keep theirs."""
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")


# What OpenSSL calls the alerts with which a client turns a certificate down, and what they say.
_REFUSALS = {
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "certificate expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "certificate revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "certificate unknown",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "unsupported certificate",
    "TLSV1_ALERT_UNKNOWN_CA": "unknown authority",
}


def report_refusals(context: ssl.SSLContext, report: Callable[[str], None]) -> None:
    """Call `report` with the client's reason whenever one turns down the certificate of `context`."""

    class Reporting(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except ssl.SSLError as error:
                if (reason := _REFUSALS.get(error.reason)) is not None:
                    report(reason)
                raise

    context.sslobject_class = Reporting
