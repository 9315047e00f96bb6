"""What people are told by events. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class News:
    """One event about an object."""

    type: str
    reason: str
    message: str
