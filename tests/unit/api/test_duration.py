"""Durations as Kubernetes writes them."""

from datetime import timedelta

import pytest
from podvisor_common.api.duration import DurationError, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("5m", 300),
        ("5m0s", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2.5s", 2.5),
        (".5s", 0.5),
        ("1500ms", 1.5),
        ("10us", 0.00001),
        ("10µs", 0.00001),
        ("999ns", 0.000001),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "m", "5 m", "-5m", "5m!", "5d", "1e3s", "999999999999h", "1" * 65, "0" * 2**20 + "h"],
    ids=lambda text: text[:20],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(DurationError):
        parse_duration(text)
