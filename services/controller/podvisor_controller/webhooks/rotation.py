"""When the webhooks' certificate authority is made, replaced and forgotten.

Pure: state and clock in, next state out; certificates.py stores it. A new authority is trusted
(`following`) before it signs (`signing`), and the old one stays trusted (`previous`) until it
expires, so at no moment does a client meet a leaf it cannot check.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum

from podvisor_common.tls.authority import (
    CLOCK_SKEW,
    BadCertificate,
    CertificateAuthority,
    KeyPair,
    check_key_pair,
    expires_at,
    make_bundle,
    parse_certificate,
    remaining_share,
)

AUTHORITY_RENEWAL_SHARE = 1 / 3
LEAF_RENEWAL_SHARE = 1 / 2
# The API server's processes follow the webhook configurations by watching, and the handlers a ConfigMap; they have seen a new
# bundle by then.
SETTLING_S = 60.0


@dataclass(frozen=True, slots=True)
class Lives:
    """How long certificates are made for. An authority must outlive its own replacement: SETTLING_S and a few passes."""

    authority: timedelta = timedelta(days=90)
    leaf: timedelta = timedelta(hours=24)


DEFAULT_LIVES = Lives()


@dataclass(frozen=True, slots=True)
class Authorities:
    """The content of the Secret: who signs, who will, who did."""

    signing: KeyPair
    following: KeyPair | None = None
    previous: bytes = b""

    def bundle(self, *, now: datetime) -> bytes:
        """Every certificate that clients must trust, as one PEM text; the same for every replica."""
        following = self.following.certificate if self.following else b""
        return make_bundle([self.signing.certificate, following, self.previous], now=now)


class Step(Enum):
    """What to do to the Secret next."""

    NOTHING = "nothing"
    CREATE = "create"
    INTRODUCE = "introduce"
    PROMOTE = "promote"


def next_step(
    state: Authorities | None,
    *,
    published_for_s: float | None,
    now: datetime,
    lives: Lives = DEFAULT_LIVES,
) -> Step:
    """The step that is due. `published_for_s`: how long every client has had the whole bundle; None
    if not all do. An authority that has longer to live than is wanted now is replaced as well.
    """
    if state is None or expires_at(state.signing.certificate) <= now:
        return Step.CREATE
    if state.following is not None:
        settled = published_for_s is not None and published_for_s >= SETTLING_S
        return Step.PROMOTE if settled else Step.NOTHING
    is_old = remaining_share(state.signing.certificate, now=now) < AUTHORITY_RENEWAL_SHARE
    lives_too_long = expires_at(state.signing.certificate) - now > lives.authority + CLOCK_SKEW
    return Step.INTRODUCE if is_old or lives_too_long else Step.NOTHING


def take(
    step: Step, state: Authorities | None, *, now: datetime, lives: Lives = DEFAULT_LIVES
) -> Authorities:
    """The state after `step`. ValueError for a step that does not fit the state."""
    if step is Step.CREATE:
        return Authorities(new_authority(now, lives).pair)
    if state is None or step is Step.NOTHING:
        raise ValueError(f"{step} changes nothing")
    if step is Step.INTRODUCE:
        return replace(state, following=new_authority(now, lives).pair)
    if state.following is None:
        raise ValueError("no authority to promote")
    previous = make_bundle([state.signing.certificate, state.previous], now=now)
    return Authorities(state.following, None, previous)


def new_authority(now: datetime, lives: Lives = DEFAULT_LIVES) -> CertificateAuthority:
    """A fresh authority, valid from `now`."""
    # The date tells two authorities of one installation apart for people.
    name = f"podvisor {now:%Y-%m-%dT%H:%M:%SZ}"
    return CertificateAuthority.create(name, now=now, valid_for=lives.authority)


def leaf_is_due(leaf: KeyPair | None, signing: bytes, issuer: bytes, *, now: datetime) -> bool:
    """Whether a new leaf must be issued: none yet, half of its life over, or another authority
    signs.
    """
    return (
        leaf is None
        or issuer != signing
        or remaining_share(leaf.certificate, now=now) < LEAF_RENEWAL_SHARE
    )


def to_secret_data(state: Authorities) -> dict[str, str]:
    """The `data` of the Secret."""
    values = {"ca.crt": state.signing.certificate, "ca.key": state.signing.key}
    if state.following:
        values |= {"next.crt": state.following.certificate, "next.key": state.following.key}
    if state.previous:
        values["previous.crt"] = state.previous
    return {name: base64.b64encode(value).decode() for name, value in values.items()}


def from_secret_data(data: Mapping[str, str]) -> Authorities | None:
    """The state in the `data` of the Secret; None when it is not usable and must be made anew."""
    try:
        values = {name: base64.b64decode(value, validate=True) for name, value in data.items()}
        signing = _pair(values, "ca")
        following = _pair(values, "next")
        previous = values.get("previous.crt", b"")
        if previous:
            parse_certificate(previous)
    except (BadCertificate, binascii.Error):
        return None
    return None if signing is None else Authorities(signing, following, previous)


def _pair(values: Mapping[str, bytes], name: str) -> KeyPair | None:
    if f"{name}.crt" not in values and f"{name}.key" not in values:
        return None
    pair = KeyPair(values.get(f"{name}.crt", b""), values.get(f"{name}.key", b""))
    check_key_pair(pair)
    return pair
