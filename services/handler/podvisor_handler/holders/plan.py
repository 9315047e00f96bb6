"""Whether the process of a pod that holds a volume is ended before its pod's grace period is over.

Invariant: pure, and only about pods that are being deleted: that is never taken back, and nothing is handed over from one any
more, so what nobody has of it now, nobody will have. Silence proves nothing: a guest has let go when its launcher says so now, or
when no process is left of the launcher's pod.
"""

from dataclasses import dataclass

from podvisor_common.api import core

from podvisor_handler.vmi import hotplug
from podvisor_handler.vmi import plan as machine


@dataclass(frozen=True, slots=True)
class Launcher:
    """A launcher pod of this node whose guest may have the volume."""

    uid: str
    pod: core.Pod | None  # None: the API server has it no more
    has_lost_container: bool = False  # in which the launcher was; it has no process

    @property
    def seems_over(self) -> bool:
        """Worth looking whether anything is left of it. Objects can be deleted by force, and phases be written by others."""
        return self.pod is None or self.pod.is_terminal or self.has_lost_container


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything the decision depends on, read in one go."""

    pod: core.Pod
    launchers: tuple[Launcher, ...]  # the pod's owner, and those of each instance that names it
    # The instances whose status names the pod; None is one of which too little is known.
    guests: tuple[machine.Observed | None, ...] = ()


@dataclass(frozen=True, slots=True)
class EndHolder:
    """Kill the process that holds the volume, unless a process is left of one of the pods `once_ended`."""

    holder: str  # uid of its pod
    once_ended: tuple[str, ...] = ()


def plan(now: Observed) -> EndHolder | None:
    """What is to be done about the pod; None while it is to hold, or while nobody but the controller has to see to it."""
    metadata = now.pod.metadata
    if not metadata.is_being_deleted or now.pod.is_terminal:
        return None
    if _has_been_let_go(now):
        return EndHolder(metadata.uid)
    if now.launchers and all(launcher.seems_over for launcher in now.launchers):
        return EndHolder(metadata.uid, tuple(launcher.uid for launcher in now.launchers))
    return None


def _has_been_let_go(now: Observed) -> bool:
    """By the guest of the one launcher that there is for the pod."""
    if len(now.guests) != 1 or (guest := now.guests[0]) is None or guest.pod is None:
        return False
    is_alone = {launcher.uid for launcher in now.launchers} == {guest.pod.metadata.uid}
    return is_alone and hotplug.has_let_go(guest, now.pod.metadata.uid)
