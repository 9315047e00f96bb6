"""Kubernetes quantities: `64M`, `1.5Gi`, `100m`, `1e3`.

Invariant: a quantity is exact (a Decimal, within Kubernetes' limits); rounding happens only where a caller asks for an
integer, and then upwards.
The text a user wrote is never rewritten: two spellings of one amount are compared by parsing both.
"""

import re
from decimal import ROUND_CEILING, ROUND_UP, Context, Decimal

from podvisor_common.errors import Terminal

_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?P<suffix>[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+|)"
)
_DECIMAL_EXPONENTS = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_BINARY_EXPONENTS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_MAX_LENGTH = 64
# Kubernetes keeps quantities between these: more is cut off, less is rounded up, away from zero.
_MAX_AMOUNT = Decimal(2**63 - 1)
_LEAST_STEP = Decimal("1e-9")
# Beyond these an exponent leaves nothing but the limits above.
_MAX_EXPONENT = 100
# Wide enough that no quantity of _MAX_LENGTH characters is rounded by arithmetic.
_EXACT = Context(prec=_MAX_LENGTH + 2 * _MAX_EXPONENT)

Quantity = str | int


class QuantityError(ValueError, Terminal):
    """The text is not a Kubernetes quantity. The message says what is wrong with it, for a person."""


def parse_quantity(text: Quantity) -> Decimal:
    """The exact amount. Raises QuantityError for anything Kubernetes would not accept."""
    if isinstance(text, bool):
        raise QuantityError("a boolean is not a quantity")
    literal = str(text)
    match = _QUANTITY.fullmatch(literal) if len(literal) <= _MAX_LENGTH else None
    if match is None:
        raise QuantityError(
            f"{literal[:_MAX_LENGTH]!r} is not a quantity: expected a number with an optional suffix"
            " (n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei) or exponent, for example 64M or 1.5Gi"
        )
    return _within_limits(_EXACT.multiply(Decimal(match["number"]), _factor(match["suffix"])))


def _factor(suffix: str) -> Decimal:
    if suffix in _BINARY_EXPONENTS:
        return Decimal(2 ** _BINARY_EXPONENTS[suffix])
    exponent = _DECIMAL_EXPONENTS.get(suffix)
    if exponent is None:
        exponent = max(-_MAX_EXPONENT, min(int(suffix[1:]), _MAX_EXPONENT))
    return Decimal(1).scaleb(exponent)


def _within_limits(amount: Decimal) -> Decimal:
    rounded = amount.quantize(_LEAST_STEP, ROUND_UP, _EXACT)
    return max(-_MAX_AMOUNT, min(rounded, _MAX_AMOUNT)).normalize(_EXACT)


def quantity_to_int(text: Quantity) -> int:
    """The amount in whole units (bytes, for memory), rounded up."""
    return int(parse_quantity(text).to_integral_value(ROUND_CEILING))


def format_bytes(size_bytes: int) -> str:
    """The shortest exact quantity of a number of bytes with a binary suffix: 134217728 is `128Mi`."""
    for suffix, exponent in sorted(_BINARY_EXPONENTS.items(), key=lambda item: -item[1]):
        if size_bytes and size_bytes % (1 << exponent) == 0:
            return f"{size_bytes >> exponent}{suffix}"
    return str(size_bytes)
