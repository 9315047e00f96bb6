"""What a test can have the fake API server do wrong, and what the server remembers of a request."""

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Refuse:
    """Answer with an error instead of doing what was asked."""

    status: int
    reason: str = "Refused"
    message: str = "refused by the test"
    headers: dict[str, str] = field(default_factory=dict)
    fields: tuple[str, ...] = ()  # what the refusal is about


@dataclass(frozen=True)
class Gone:
    """The watch tells after some events that its version has expired."""

    after_events: int = 0


@dataclass(frozen=True)
class Cut:
    """The connection of the watch breaks after some events, in the middle of a line."""

    after_events: int = 0


@dataclass(frozen=True)
class End:
    """The server ends the watch after some events, as at its timeout."""

    after_events: int = 0


@dataclass(frozen=True)
class Stall:
    """The watch stays open and silent after some events."""

    after_events: int = 0


@dataclass(frozen=True)
class Duplicate:
    """The watch tells everything twice, and the whole past again after some events."""

    after_events: int = 1_000_000


@dataclass(frozen=True)
class Repeat:
    """The watch tells its first event once more after some events, alone."""

    after_events: int


@dataclass(frozen=True)
class Delay:
    """The watch tells nothing until `release` is set, then everything at once."""

    release: asyncio.Event


WatchFault = Gone | Cut | End | Stall | Duplicate | Repeat | Delay | Refuse


@dataclass(frozen=True)
class Request:
    """What was asked, for tests of pace and headers; bodies are kept parsed."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "1"

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and "watch" not in self.query and "limit" in self.query
