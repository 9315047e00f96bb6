"""Exponential backoff with jitter.

Invariant: the pause before jitter never exceeds `max_s`. It only computes; sleeping is the caller's.
"""

import math
import random
from collections.abc import Callable


class Backoff:
    """Pauses that grow by `factor` from `initial_s` to `max_s`, each lengthened by up to `jitter` of itself."""

    # There is one for every machine of the cluster.
    __slots__ = ("_base_s", "_factor", "_initial_s", "_jitter", "_max_s", "_rand")

    def __init__(
        self,
        initial_s: float = 0.2,
        factor: float = 2.0,
        max_s: float = 30.0,
        jitter: float = 0.5,
        *,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._initial_s = initial_s
        self._factor = factor
        self._max_s = max_s
        self._jitter = jitter
        self._rand = rand
        self._base_s = min(initial_s, max_s)

    def next_s(self, *, at_least_s: float = 0.0, at_most_s: float = math.inf) -> float:
        """The pause to make now, in seconds; the next one is longer.

        The bounds hold for this pause before jitter: those who were told the same time to come back do not come together.
        """
        base_s = min(max(self._base_s, at_least_s), at_most_s)
        self._base_s = min(self._base_s * self._factor, self._max_s)
        return base_s * (1.0 + self._jitter * self._rand())

    def reset(self) -> None:
        """Start again from `initial_s`: what was tried has succeeded."""
        self._base_s = min(self._initial_s, self._max_s)
