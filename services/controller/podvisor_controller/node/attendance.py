"""Which nodes and their handlers are heard of.

Invariant: a node counts as unresponsive only when its Ready condition has been Unknown for a while: kubelets that could not reach
the API server either are all late when it is back, and answer within seconds. A handler counts as silent only after two fresh reads, some time apart, have shown the same old heartbeat. How old
one is, is measured here, from when it was first seen: the node's clock, which wrote it, may be wrong, and so may ours. An API
server that was away proves nothing, for then nobody was heard of.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from podvisor_common.api import core
from podvisor_common.api.v1 import names

from podvisor_controller.node.health import does_not_answer

# A kubelet tells of its node, and tries again when it could not, within 10 s. Twice that, of the 60 s in which users are told.
UNRESPONSIVE_AFTER_S = 20.0
# A handler beats once in 60 to 72 s.
OVERDUE_AFTER_S = 150.0
# A handler that could not reach the API server tries again every few seconds.
CONFIRMED_AFTER_S = 30.0


@dataclass(slots=True)
class _Beat:
    heartbeat: str
    due_s: float  # monotonic; until then nothing is wrong
    overdue: bool = False  # a fresh read has shown it once
    silent: bool = False


class Attendance:
    """Heartbeats by node, and since when they are the same; since when a node does not answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beats: dict[str, _Beat] = {}
        self._unknown_since_s: dict[str, float] = {}  # monotonic

    def saw(self, node: core.Node) -> None:
        """Take note of a node as it is."""
        name, heartbeat = node.metadata.name, _heartbeat_of(node)
        if does_not_answer(node):
            self._unknown_since_s.setdefault(name, self._clock())
        else:
            self._unknown_since_s.pop(name, None)
        known = self._beats.get(name)
        if known is None or known.heartbeat != heartbeat:
            self._beats[name] = _Beat(heartbeat, self._clock() + OVERDUE_AFTER_S)

    def saw_freshly(self, node: core.Node) -> None:
        """Take note of a node that the API server itself has just shown."""
        self.saw(node)
        beat = self._beats[node.metadata.name]
        if beat.due_s > self._clock():
            return
        beat.silent = beat.silent or beat.overdue
        beat.overdue = True
        beat.due_s = math.inf if beat.silent else self._clock() + CONFIRMED_AFTER_S

    def nobody_was_heard(self, name: str) -> None:
        """The API server does not answer: whether the handler beats is to be seen when it does."""
        beat = self._beats.get(name)
        if beat is not None:
            beat.overdue = False
            beat.due_s = max(beat.due_s, self._clock() + CONFIRMED_AFTER_S)

    def forget(self, name: str) -> None:
        """The node is gone."""
        self._beats.pop(name, None)
        self._unknown_since_s.pop(name, None)

    def is_attended(self, name: str) -> bool:
        """Whether the node's handler is heard of, or there was none to be heard of."""
        beat = self._beats.get(name)
        return beat is None or not beat.silent

    def patience_left_s(self, name: str) -> float:
        """How long a node that does not answer is still taken for one that does; 0.0 when it is not, or needs no patience."""
        since_s = self._unknown_since_s.get(name)
        return 0.0 if since_s is None else max(0.0, since_s + UNRESPONSIVE_AFTER_S - self._clock())

    def look_again_in_s(self, name: str) -> float | None:
        """When a fresh read is due, in seconds, not positive when it is now; None when only a heartbeat changes anything."""
        beat = self._beats.get(name)
        if beat is None or not beat.heartbeat or math.isinf(beat.due_s):
            return None
        return beat.due_s - self._clock()


def _heartbeat_of(node: core.Node) -> str:
    return node.metadata.annotation(names.HEARTBEAT_ANNOTATION) or ""
