"""Who asks: the API server's front proxy says it in headers, and is known by its certificate.

Invariant: headers of anybody else are not believed, whatever they say. Whom to believe is in a ConfigMap that the API server keeps; a
connection that was verified against an authority which is not in there any more counts as one without a certificate.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import msgspec
import structlog
from multidict import CIMultiDictProxy
from podvisor_common.api import core
from podvisor_common.errors import Terminal
from podvisor_common.kube.resources import ObjectKey
from podvisor_common.tls.authority import BadCertificate, KeyPair, is_signed_by, split_bundle
from podvisor_common.tls.contexts import load_pair, server_context

from podvisor_controller.subresources.statuses import unauthorized

CONFIG_MAP = ObjectKey("kube-system", "extension-apiserver-authentication")

_log = structlog.stdlib.get_logger(__name__)


class BadTrust(Terminal):
    """The ConfigMap does not say whom to believe."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe, and in which headers. Without `names` any certificate of the authorities will do."""

    authorities: frozenset[bytes]
    names: frozenset[str]
    user_headers: tuple[str, ...]
    uid_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class User:
    """Who asks."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, list[str]] = field(default_factory=dict)


class Request(Protocol):
    """The part of a request that tells who asks."""

    @property
    def headers(self) -> CIMultiDictProxy[str]: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


def trust_of(data: Mapping[str, str]) -> Trust:
    """What the ConfigMap says. Raises BadTrust; without an authority nobody is believed."""
    try:
        authorities = frozenset(split_bundle(data.get("requestheader-client-ca-file", "").encode()))
    except BadCertificate as error:
        raise BadTrust("requestheader-client-ca-file holds no certificates") from error
    if not authorities:
        raise BadTrust("requestheader-client-ca-file is empty")
    return Trust(
        authorities=authorities,
        names=frozenset(_list(data, "requestheader-allowed-names")),
        user_headers=_list(data, "requestheader-username-headers"),
        uid_headers=_list(data, "requestheader-uid-headers"),
        group_headers=_list(data, "requestheader-group-headers"),
        extra_prefixes=_list(data, "requestheader-extra-headers-prefix"),
    )


def user_of(headers: CIMultiDictProxy[str], trust: Trust) -> User | None:
    """The user that the headers name; None when they name none."""
    names = _values(headers, trust.user_headers)
    if not names:
        return None
    extra: dict[str, list[str]] = {}
    for header, value in headers.items():
        for prefix in trust.extra_prefixes:
            if prefix and header.lower().startswith(prefix.lower()):
                extra.setdefault(unquote(header[len(prefix) :].lower()), []).append(value)
    uids = _values(headers, trust.uid_headers)
    groups = tuple(_values(headers, trust.group_headers))
    return User(names[0], uids[0] if uids else "", groups, extra)


class FrontProxy:
    """Owns the SSL context of the server, and finds out who asks. Until it has been told whom to trust, nobody is believed."""

    def __init__(self, pair: KeyPair) -> None:
        self._pair = pair
        self._trust: Trust | None = None
        self._verified_by: WeakKeyDictionary[ssl.SSLContext, frozenset[bytes]] = WeakKeyDictionary()
        # Connections begin with this one, which knows no authority, and go on with the one of the day.
        self.context = self._new_context(frozenset())
        self.context.sni_callback = self._choose
        self._current = self.context

    def present(self, pair: KeyPair) -> None:
        """Use this certificate from now on."""
        self._pair = pair
        for context in {self.context, self._current}:
            load_pair(context, pair)

    def learn(self, key: ObjectKey, old: core.ConfigMap | None, new: core.ConfigMap | None) -> None:
        """A callback of the ConfigMap's informer. What makes no sense leaves nobody to be believed."""
        if key != CONFIG_MAP:
            return
        trust = None
        try:
            trust = trust_of((new.data if new else None) or {})
        except BadTrust as error:
            _log.warning("users of subresources are not believed", reason=str(error))
        if trust == self._trust:
            return
        self._trust = trust
        self._current = self._new_context(trust.authorities) if trust else self.context

    def user(self, request: Request) -> User:
        """Who asks. Raises StatusError (401) where no front proxy vouches for that."""
        trust, connection = self._trust, request.get_extra_info("ssl_object")
        certificate = connection.getpeercert() if connection is not None else None
        if trust is None or not certificate:
            raise unauthorized()
        if not self._is_still_verified(connection, trust):
            raise unauthorized()
        if trust.names and not _common_names(certificate) & trust.names:
            raise unauthorized()
        user = user_of(request.headers, trust)
        if user is None:
            raise unauthorized()
        return user

    def _is_still_verified(self, connection: ssl.SSLObject, trust: Trust) -> bool:
        """The connection's certificate is of an authority that is trusted today, too."""
        verified_by = self._verified_by.get(connection.context, frozenset())
        if verified_by <= trust.authorities:
            return bool(verified_by)
        shown = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"").encode()
        return any(is_signed_by(shown, one) for one in verified_by & trust.authorities)

    def _new_context(self, authorities: frozenset[bytes]) -> ssl.SSLContext:
        context = server_context(self._pair)
        # No session is taken up again: what was verified once is verified each time.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        context.verify_mode = ssl.CERT_OPTIONAL
        if authorities:
            context.load_verify_locations(cadata=b"".join(sorted(authorities)).decode())
        self._verified_by[context] = authorities
        return context

    def _choose(
        self, connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext
    ) -> None:
        connection.context = self._current


def _list(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    """One of the ConfigMap's values, which are JSON lists of strings."""
    try:
        return tuple(msgspec.json.decode(data.get(key) or "[]", type=list[str]))
    except msgspec.DecodeError as error:
        raise BadTrust(f"{key} is no list of strings") from error


def _values(headers: CIMultiDictProxy[str], names: tuple[str, ...]) -> list[str]:
    return [value for name in names for value in headers.getall(name, ()) if value]


def _common_names(certificate: Mapping[str, Any]) -> set[str]:
    parts = (pair for part in certificate.get("subject", ()) for pair in part)
    return {value for name, value in parts if name == "commonName"}
