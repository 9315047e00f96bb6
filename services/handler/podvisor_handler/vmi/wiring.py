"""How far the network of one pod is, and when it is looked again for interfaces that it has not got yet.

Invariant: only an interface that a running guest is to get is waited for. It is looked for ever more seldom, and at once when Multus says
something else of the pod; what it says is only a hint, for anybody may write it who may write to pods.
"""

import time
from collections.abc import Callable
from datetime import datetime

from podvisor_common.aio.backoff import Backoff

from podvisor_handler.network.facts import PodNetwork

# Seconds between two looks, before the half that may come on top: from 2 to 30.
_FIRST_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 20.0


class Wiring:
    """What is known of the wired network. Times of `clock` are monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._backoff = Backoff(_FIRST_PAUSE_S, max_s=_LONGEST_PAUSE_S)
        self._told = ""
        self._missing_since_s: dict[str, float] = {}  # by network
        self._next_s = 0.0
        self.network: PodNetwork | None = None
        self.ready_at: datetime | None = None

    def note(self, network: PodNetwork, at: datetime, told: str) -> None:
        """The pod was wired at the moment `at`, when Multus had `told` so much of its networks."""
        now_s = self._clock()
        known = self._missing_since_s
        missing = {each.network: known.get(each.network, now_s) for each in network.missing}
        if missing.keys() != known.keys() or told != self._told:
            self._backoff.reset()
        self._missing_since_s, self._told = missing, told
        self._next_s = now_s + self._backoff.next_s() if missing else now_s
        self.network = network
        self.ready_at = self.ready_at or at

    def is_due(self, told: str) -> bool:
        """Whether what was missing may be there by now."""
        return bool(self._missing_since_s) and (told != self._told or self._clock() >= self._next_s)

    @property
    def next_look_s(self) -> float | None:
        """Until it is looked again, in seconds; None where nothing is missing."""
        return max(0.0, self._next_s - self._clock()) if self._missing_since_s else None

    @property
    def missing_for_s(self) -> dict[str, float]:
        """How long each network has been missing that is, in seconds."""
        now_s = self._clock()
        return {network: now_s - since_s for network, since_s in self._missing_since_s.items()}
