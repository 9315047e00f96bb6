"""The life of a certificate authority as a table: when it is made, introduced, promoted, forgotten."""

from datetime import UTC, datetime, timedelta

import pytest
from podvisor_common.tls.authority import CertificateAuthority, split_bundle
from podvisor_controller.webhooks import rotation
from podvisor_controller.webhooks.rotation import (
    DEFAULT_LIVES,
    SETTLING_S,
    Authorities,
    Lives,
    Step,
    from_secret_data,
    next_step,
    take,
    to_secret_data,
)

BORN = datetime(2026, 1, 1, tzinfo=UTC)
YOUNG = BORN + timedelta(days=1)
OLD = BORN + DEFAULT_LIVES.authority * 0.7
DEAD = BORN + DEFAULT_LIVES.authority

ONE = take(Step.CREATE, None, now=BORN)
TWO = take(Step.INTRODUCE, ONE, now=OLD)


STEPS: list[tuple[str, Authorities | None, float | None, datetime, Step]] = [
    ("first sight", None, None, YOUNG, Step.CREATE),
    ("young and published", ONE, 5.0, YOUNG, Step.NOTHING),
    ("young and not published", ONE, None, YOUNG, Step.NOTHING),
    ("old", ONE, 5.0, OLD, Step.INTRODUCE),
    ("introduced, nobody knows it", TWO, None, OLD, Step.NOTHING),
    ("introduced, just published", TWO, SETTLING_S - 1, OLD, Step.NOTHING),
    ("introduced, published and settled", TWO, SETTLING_S, OLD, Step.PROMOTE),
    ("expired while nobody looked", ONE, 5.0, DEAD, Step.CREATE),
]


@pytest.mark.parametrize(
    ("state", "published_for_s", "now", "expected"),
    [row[1:] for row in STEPS],
    ids=[row[0] for row in STEPS],
)
def test_next_step(
    state: Authorities | None,
    published_for_s: float | None,
    now: datetime,
    expected: Step,
) -> None:
    assert next_step(state, published_for_s=published_for_s, now=now) is expected


def test_a_shorter_life_takes_effect_on_the_authority_that_is_there() -> None:
    short = Lives(authority=timedelta(minutes=10))
    assert next_step(ONE, published_for_s=5.0, now=YOUNG, lives=short) is Step.INTRODUCE
    following = take(Step.INTRODUCE, ONE, now=YOUNG, lives=short)
    promoted = take(Step.PROMOTE, following, now=YOUNG, lives=short)
    assert next_step(promoted, published_for_s=5.0, now=YOUNG, lives=short) is Step.NOTHING


def test_the_old_authority_stays_trusted_until_it_expires() -> None:
    assert TWO.following is not None
    promoted = take(Step.PROMOTE, TWO, now=OLD)
    assert promoted.signing == TWO.following
    old, new = ONE.signing.certificate, promoted.signing.certificate
    assert split_bundle(TWO.bundle(now=OLD)) == [old, new]
    assert split_bundle(promoted.bundle(now=OLD)) == [new, old]
    assert split_bundle(promoted.bundle(now=DEAD)) == [new]


@pytest.mark.parametrize("state", [ONE, TWO, take(Step.PROMOTE, TWO, now=OLD)])
def test_the_secret_holds_the_whole_state(state: Authorities) -> None:
    assert from_secret_data(to_secret_data(state)) == state


@pytest.mark.parametrize(
    "damage",
    [
        {"ca.key": "AAAA"},
        {"ca.crt": "not base64!"},
        {"next.crt": "AAAA"},
        {"ca.key": to_secret_data(TWO)["next.key"]},
    ],
    ids=["key", "base64", "half a pair", "foreign key"],
)
def test_a_damaged_secret_counts_as_none(damage: dict[str, str]) -> None:
    assert from_secret_data(to_secret_data(ONE) | damage) is None


def test_an_empty_secret_counts_as_none() -> None:
    assert from_secret_data({}) is None


@pytest.mark.parametrize("step", [Step.NOTHING, Step.PROMOTE])
def test_a_step_that_does_not_fit_is_an_error(step: Step) -> None:
    with pytest.raises(ValueError):
        take(step, ONE, now=OLD)


def test_leaf_is_due() -> None:
    leaf = CertificateAuthority(ONE.signing).issue(
        "x", ["x"], now=YOUNG, valid_for=DEFAULT_LIVES.leaf
    )
    ca = ONE.signing.certificate
    assert rotation.leaf_is_due(None, ca, b"", now=YOUNG)
    assert not rotation.leaf_is_due(leaf, ca, ca, now=YOUNG)
    assert rotation.leaf_is_due(leaf, ca, ca, now=YOUNG + DEFAULT_LIVES.leaf * 0.6)
    assert rotation.leaf_is_due(leaf, ONE.signing.certificate, b"other", now=YOUNG)
