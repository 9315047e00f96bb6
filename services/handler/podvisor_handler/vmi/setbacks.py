"""What went wrong on the way to a machine, and when that is over.

Invariant: a problem lasts until the step that met it succeeds, or one that is built on it. What comes before it, and is done again and
again, proves nothing.
"""

from collections.abc import Sequence
from enum import IntEnum

from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi.plan import (
    Action,
    ApplyDomain,
    HandOverVolume,
    Observed,
    PrepareNetwork,
    PrepareVolumes,
    Problem,
    ShutdownDomain,
)


class Step(IntEnum):
    """The steps, each built on those before it."""

    HAND_OVER = 0  # what fails there is a volume's affair, not the machine's
    NETWORK = 1
    SPECIFICATION = 2
    VOLUMES = 3
    DOMAIN = 4
    END = 5


def step_of(action: Action) -> Step:
    """The step that an action is."""
    match action:
        case HandOverVolume():
            return Step.HAND_OVER
        case PrepareNetwork():
            return Step.NETWORK
        case PrepareVolumes():
            return Step.VOLUMES
        case ApplyDomain():
            return Step.DOMAIN
        case ShutdownDomain():
            return Step.END


def is_specified(now: Observed, actions: Sequence[Action]) -> bool:
    """Whether a plan of such actions says that the machine's specification can be: one without a launcher, or that looks at the network
    first, does not come so far."""
    is_connected = now.launcher.connection is Connection.CONNECTED
    return is_connected and not any(isinstance(action, PrepareNetwork) for action in actions)


class Setback:
    """The problem of one machine, if it has one."""

    def __init__(self) -> None:
        self._step = Step.HAND_OVER
        self.problem: Problem | None = None

    def met(self, step: Step, problem: Problem) -> bool:
        """`step` cannot be done, for a reason that no repetition changes. Whether that is news."""
        is_news = problem != self.problem
        self._step, self.problem = step, problem
        return is_news

    def passed(self, step: Step) -> None:
        """`step` was done."""
        if step >= self._step:
            self.problem = None
