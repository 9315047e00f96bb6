"""How soon the words of a guest's agent are heard, and whether it takes its access credentials.

Invariant: a guest decides how often its agent comes, goes and says something else, and the handler how often that is heard: the first
few times at once or nearly so, then ever more seldom, until there is a long quiet. Only the newest words wait, and nothing else with them.
"""

import math
import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from google.protobuf.message import Message
from podvisor.domain.v1 import domain_pb2
from podvisor_common.aio.backoff import Backoff

# Seconds from one change that was heard to the next: 1, 2, 4 and so on.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 120.0
# So long that whoever waits for it is not heard more often than whoever does not.
_QUIET_S = 900.0


_Field: TypeAlias = Literal["guest_agent", "access_credentials"]


class AgentNews:
    """What was heard of the agent in one guest. Times of `clock` are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._fields = (
            _Heard("guest_agent", _is_news_of_agent, clock),
            _Heard("access_credentials", lambda _heard, _said: True, clock),
        )

    def listen(self, report: domain_pb2.DomainReport | None) -> None:
        """Hear what the report says of the agent, if it is news and its time has come."""
        for each in self._fields:
            each.listen(report)

    def heard(self, report: domain_pb2.DomainReport | None) -> domain_pb2.DomainReport | None:
        """The report, with those words of the agent that were heard last instead of others."""
        if report is None:
            return None
        other = [each for each in self._fields if each.says_other(report)]
        if not other:
            return report
        as_heard = domain_pb2.DomainReport()
        as_heard.CopyFrom(report)
        for each in other:
            each.put_into(as_heard)
        return as_heard

    @property
    def next_look_s(self) -> float | None:
        """Until words that wait are heard, in seconds; None where none wait."""
        looks_s = (each.next_look_s for each in self._fields)
        return min((each for each in looks_s if each is not None), default=None)


class _Heard:
    """One field of the reports. `is_news` is told what was heard last, if anything, and what else is said now."""

    def __init__(
        self, name: _Field, is_news: Callable[[Any, Any], bool], clock: Callable[[], float]
    ) -> None:
        self._name = name
        self._is_news = is_news
        self._clock = clock
        self._pauses = Backoff(_FIRST_PAUSE_S, max_s=_LONGEST_PAUSE_S, jitter=0.0)
        self._heard: Message | None = None
        self._heard_at_s = self._next_s = -math.inf
        self._waits = False

    def listen(self, report: domain_pb2.DomainReport | None) -> None:
        now_s = self._clock()
        said: Any = None
        if report is not None and report.HasField(self._name):
            said = getattr(report, self._name)
        is_news = said is not None and said != self._heard and self._is_news(self._heard, said)
        self._waits = is_news and now_s < self._next_s
        if not is_news or self._waits:
            return
        if now_s - self._heard_at_s >= _QUIET_S:
            self._pauses.reset()
        self._heard = type(said)()
        self._heard.CopyFrom(said)
        self._heard_at_s = now_s
        self._next_s = now_s + self._pauses.next_s()

    def says_other(self, report: domain_pb2.DomainReport) -> bool:
        """The report does not say what was heard."""
        is_said = self._heard is not None and report.HasField(self._name)
        return is_said and getattr(report, self._name) != self._heard

    def put_into(self, report: domain_pb2.DomainReport) -> None:
        """Have the report say what was heard."""
        getattr(report, self._name).CopyFrom(self._heard)

    @property
    def next_look_s(self) -> float | None:
        return max(0.0, self._next_s - self._clock()) if self._waits else None


def _is_news_of_agent(
    heard: domain_pb2.GuestAgentReport | None, said: domain_pb2.GuestAgentReport
) -> bool:
    """A launcher that has just started asks anew: what it has not had an answer to is no news."""
    if heard is None:
        return said.connected
    is_new_launcher = not said.answered and not said.HasField("os")
    return not (heard.connected and said.connected and is_new_launcher)
