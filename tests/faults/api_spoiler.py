"""Everything that can become of a watch between the API server and who watches, by chance.

Invariant: no change is kept back silently, for nobody could notice that: whoever loses one is told by a broken line, a broken
connection, silence, or an error.
"""

import json
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable

from aiohttp import web

from tests.faults.api_proxy import (
    Answer,
    Cut,
    Fault,
    Reset,
    Silence,
    Spoiled,
    Spoilers,
    status_of,
    whole,
)

# So many of the last lines about a resource may come again.
_REMEMBERED = 20
_REQUEST_FAULTS: tuple[Answer | Reset, ...] = (
    Answer(429, retry_after_s=1, reason="TooManyRequests"),
    Answer(500, reason="InternalError"),
    Answer(503, reason="ServiceUnavailable"),
    Reset(),
)


class Chaos:
    """Spoils a share of requests and of lines; counts what it did, by kind. `expiring`: also tells that versions are too old."""

    def __init__(
        self, chance: random.Random, *, share: float = 0.1, expiring: bool = False
    ) -> None:
        self.done: Counter[str] = Counter()
        self._past: defaultdict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._chance = chance
        self._share = share
        self._line_faults: list[tuple[str, Callable[[bytes, deque[bytes]], Spoiled]]] = [
            ("twice", lambda line, _: (2 * _whole(line), None)),
            ("past again", self._past_again),
            ("cut", lambda line, _: (b"", Cut(self._part(line)))),
            ("cut between lines", lambda line, _: (_whole(line), Cut(b""))),
            ("truncated", lambda line, _: (_whole(self._part(line)), None)),
            ("silence", lambda line, _: (b"", Silence())),
            ("error 500", lambda line, _: (_error(500, "InternalError"), Cut(b""))),
        ]
        self._request_faults = [*_REQUEST_FAULTS]
        if expiring:
            self._line_faults.append(
                ("error 410", lambda line, _: (_error(410, "Expired"), Cut(b"")))
            )
            self._request_faults.append(Answer(410, reason="Expired"))

    @property
    def spoilers(self) -> Spoilers:
        """For a proxy."""
        return Spoilers(self._of_request, self._of_stream)

    @property
    def expired(self) -> int:
        """How often somebody was told that a version is too old, which is a reason for a new list."""
        return self.done["error 410"] + self.done["request 410"]

    async def _of_request(self, request: web.Request) -> Fault | None:
        if request.method != "GET" or self._chance.random() >= self._share:
            return None
        fault = self._chance.choice(self._request_faults)
        self.done[f"request {fault.status if isinstance(fault, Answer) else 'reset'}"] += 1
        return fault

    def _of_stream(self, request: web.Request) -> Callable[[bytes], Spoiled]:
        past = self._past[request.path]

        def spoil(line: bytes) -> Spoiled:
            if self._chance.random() >= self._share:
                past.append(line)
                return whole(line)
            name, fault = self._chance.choice(self._line_faults)
            self.done[name] += 1
            spoiled = fault(line, past)
            past.append(line)
            return spoiled

        return spoil

    def _past_again(self, line: bytes, past: deque[bytes]) -> Spoiled:
        """Some of what came before this line comes once more, in any order, without what followed it. What an earlier stream lost
        and this one has not told yet is no past: told ahead of the rest, it would hide that."""
        version = _version(line)
        earlier = [each for each in past if _version(each) < version]
        again = self._chance.sample(earlier, self._chance.randint(0, len(earlier)))
        return b"".join(map(_whole, [line, *again])), None

    def _part(self, line: bytes) -> bytes:
        return line[: self._chance.randrange(1, len(line))]


def _version(line: bytes) -> int:
    """Of the object that the line tells; 0 when it tells an error."""
    return int(json.loads(line)["object"]["metadata"].get("resourceVersion") or 0)


def _whole(line: bytes) -> bytes:
    return line + b"\n"


def _error(code: int, reason: str) -> bytes:
    return _whole(json.dumps({"type": "ERROR", "object": status_of(code, reason)}).encode())
