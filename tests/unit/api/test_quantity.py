"""Quantities are what Kubernetes takes them for, to the last digit."""

from decimal import Decimal

import pytest
from podvisor_common.api.quantity import (
    QuantityError,
    format_bytes,
    parse_quantity,
    quantity_to_int,
)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0"),
        (128, "128"),
        ("64M", "64000000"),
        ("64Mi", "67108864"),
        ("1.5Gi", "1610612736"),
        (".5", "0.5"),
        ("5.", "5"),
        ("+1k", "1000"),
        ("-1Ki", "-1024"),
        ("100m", "0.1"),
        ("3u", "0.000003"),
        ("7n", "0.000000007"),
        ("0.1n", "0.000000001"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("1E", "1000000000000000000"),
        ("12e-3", "0.012"),
        ("9223372036854775807", "9223372036854775807"),
        ("64E", "9223372036854775807"),
        ("1e999", "9223372036854775807"),
        ("-1e999", "-9223372036854775807"),
        ("1e-999", "0.000000001"),
    ],
)
def test_amount(text: str | int, amount: str) -> None:
    assert parse_quantity(text) == Decimal(amount)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "64Q",
        "Mi",
        ".",
        "1 Gi",
        " 1",
        "1mi",
        "1K",
        "1e",
        "1e1.5",
        "0x10",
        "1_000",
        "１",
        "9" * 65,
    ],
)
def test_not_a_quantity(text: str) -> None:
    with pytest.raises(QuantityError, match="is not a quantity"):
        parse_quantity(text)


def test_boolean_is_not_a_quantity() -> None:
    with pytest.raises(QuantityError):
        parse_quantity(True)


def test_integers_are_rounded_up() -> None:
    assert quantity_to_int("100m") == 1
    assert quantity_to_int("1.1Ki") == 1127
    assert quantity_to_int("-100m") == 0


def test_spellings_of_one_amount_are_equal() -> None:
    assert parse_quantity("1Gi") == parse_quantity("1024Mi")
    assert parse_quantity("0.5") == parse_quantity("500m")
    assert parse_quantity("1G") != parse_quantity("1Gi")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1Ki"),
        (128 << 20, "128Mi"),
        (3 << 30, "3Gi"),
        (64000000, "62500Ki"),
    ],
)
def test_bytes_as_text(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text
    assert quantity_to_int(text) == size_bytes
