"""What somebody says whom nobody vouches for, a guest or its launcher, made fit to be shown.

Invariant: pure. Whatever is given, what comes out has the type that was asked for, can be printed and is bounded.
"""

_INT64_MAX = 2**63 - 1


def told_text(said: object, limit: int) -> str:
    """The text without what cannot be printed, at most `limit` characters of it; empty for what is no text."""
    if not isinstance(said, str):
        return ""
    return "".join(each for each in said[:limit] if each.isprintable()).strip()


def told_number(said: object, limit: int = _INT64_MAX) -> int:
    """The number, if it is one of those from 0 to `limit`, which clients hold in 64 bits with a sign; else 0."""
    if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said <= limit:
        return 0
    return said


def told_seconds(said: object) -> float:
    """The moment in seconds, if it is one that a clock can show; else 0."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said <= _INT64_MAX:
        return 0.0
    return float(said)
