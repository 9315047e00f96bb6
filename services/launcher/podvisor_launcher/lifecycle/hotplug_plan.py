"""What is next for the disks that come and go, and what is to be said of each.

Invariant: pure. Time is CLOCK_BOOTTIME in milliseconds.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum

_RETRY_MS = 5_000  # doubled up to the limit
_RETRY_MAX_MS = 60_000
_PATIENCE = 3  # requests; then it is told that nothing comes of them


class Attachment(StrEnum):
    """How far a disk or medium is."""

    AWAITED = "awaited"
    ATTACHED = "attached"
    DETACHING = "detaching"


@dataclass(frozen=True, slots=True)
class Attached:
    """What is to be said of a disk."""

    name: str
    attachment: Attachment
    message: str = ""


class Change(StrEnum):
    """What is done to the machine."""

    PLUG = "plug"
    UNPLUG = "unplug"


@dataclass(frozen=True, slots=True)
class DiskChange:
    """A step, worth a try at `due_ms`."""

    disk: str
    change: Change
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class Requests:
    """How often the guest was asked to let go of a disk, and when it is asked again."""

    count: int
    next_ms: int


@dataclass(frozen=True, slots=True)
class Disks:
    """All that is known of the disks that come and go, by name. A CD-ROM drive counts for the medium that is handed over."""

    wanted: tuple[str, ...] = ()
    present: tuple[str, ...] = ()  # the guest has it
    held: Mapping[str, bool] = field(default_factory=dict)  # open here; whether it is ready
    requests: Mapping[str, Requests] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def leaving(self) -> Set[str]:
        """What the guest has and shall let go of. One that was asked for and is wanted anew goes first, since nobody can take
        the request back."""
        return {each for each in self.present if each not in self.wanted or each in self.requests}


def next_change(disks: Disks) -> DiskChange | None:
    """The step that is due first."""
    steps = [
        DiskChange(name, Change.PLUG)
        for name in disks.wanted
        if disks.held.get(name) and name not in disks.present
    ]
    for name in disks.present:
        if name in disks.leaving:
            asked = disks.requests.get(name)
            steps.append(DiskChange(name, Change.UNPLUG, asked.next_ms if asked else 0))
    return min(steps, key=lambda step: step.due_ms, default=None)


def asked_again(known: Requests | None, now_ms: int) -> Requests:
    """The guest is asked now."""
    count = known.count if known is not None else 0
    return Requests(count + 1, now_ms + min(_RETRY_MS << min(count, 10), _RETRY_MAX_MS))


def attachments(disks: Disks) -> tuple[Attached, ...]:
    """What is to be said. Of what neither guest nor launcher has, and nobody wants, nothing."""
    names = dict.fromkeys((*disks.wanted, *disks.present, *disks.held))
    return tuple(_attached(name, disks) for name in names)


def _attached(name: str, disks: Disks) -> Attached:
    problem = disks.problems.get(name, "")
    if name in disks.leaving:
        asked = disks.requests.get(name)
        if not problem and asked is not None and asked.count > _PATIENCE:
            problem = f'Volume "{name}": the guest does not let go of the disk; it is asked again.'
        return Attached(name, Attachment.DETACHING, problem)
    if name in disks.present:
        return Attached(name, Attachment.ATTACHED)
    if name in disks.wanted:
        return Attached(name, Attachment.AWAITED, problem)
    return Attached(name, Attachment.DETACHING)  # it is open here for a moment more
