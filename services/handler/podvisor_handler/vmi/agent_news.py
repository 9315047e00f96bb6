"""How soon the words of a guest's agent are heard.

Invariant: a guest decides how often its agent comes, goes and says something else, and the handler how often that is heard: the first
few times at once or nearly so, then ever more seldom, until there is a long quiet. Only the newest words wait, and nothing else with them.
"""

import math
import time
from collections.abc import Callable

from podvisor.domain.v1 import domain_pb2
from podvisor_common.aio.backoff import Backoff

# Seconds from one change that was heard to the next: 1, 2, 4 and so on.
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 120.0
# So long that whoever waits for it is not heard more often than whoever does not.
_QUIET_S = 900.0


class AgentNews:
    """What was heard of the agent in one guest. Times of `clock` are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses = Backoff(_FIRST_PAUSE_S, max_s=_LONGEST_PAUSE_S, jitter=0.0)
        self._heard: domain_pb2.GuestAgentReport | None = None
        self._heard_at_s = self._next_s = -math.inf
        self._waits = False

    def listen(self, report: domain_pb2.DomainReport | None) -> None:
        """Hear what the report says of the agent, if it is news and its time has come."""
        now_s = self._clock()
        is_news = report is not None and self._is_news(report)
        self._waits = is_news and now_s < self._next_s
        if report is None or not is_news or self._waits:
            return
        if now_s - self._heard_at_s >= _QUIET_S:
            self._pauses.reset()
        self._heard = domain_pb2.GuestAgentReport()
        self._heard.CopyFrom(report.guest_agent)
        self._heard_at_s = now_s
        self._next_s = now_s + self._pauses.next_s()

    def heard(self, report: domain_pb2.DomainReport | None) -> domain_pb2.DomainReport | None:
        """The report, with those words of the agent that were heard last instead of others."""
        if report is None or not report.HasField("guest_agent"):
            return report
        if self._heard is None or report.guest_agent == self._heard:
            return report
        as_heard = domain_pb2.DomainReport()
        as_heard.CopyFrom(report)
        as_heard.guest_agent.CopyFrom(self._heard)
        return as_heard

    @property
    def next_look_s(self) -> float | None:
        """Until the words that wait are heard, in seconds; None where none wait."""
        return max(0.0, self._next_s - self._clock()) if self._waits else None

    def _is_news(self, report: domain_pb2.DomainReport) -> bool:
        """A launcher that has just started asks anew: what it has not had an answer to is no news."""
        if not report.HasField("guest_agent"):
            return False
        agent = report.guest_agent
        if self._heard is None:
            return agent.connected
        is_new_launcher = not agent.answered and not agent.HasField("os")
        if self._heard.connected and agent.connected and is_new_launcher:
            return False
        return agent != self._heard
