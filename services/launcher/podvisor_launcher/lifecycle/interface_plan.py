"""What is next for the network devices of a guest that runs, and what is to be said of each.

Invariant: pure. Time is CLOCK_BOOTTIME in milliseconds.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import StrEnum

from podvisor_launcher.lifecycle.hotplug_plan import Attachment, Requests

_PATIENCE = 3  # requests; then it is told that nothing comes of them


class InterfaceStep(StrEnum):
    """What is done to a device."""

    PLUG = "plug"
    UNPLUG = "unplug"
    LINK_UP = "link up"
    LINK_DOWN = "link down"


@dataclass(frozen=True, slots=True)
class InterfaceChange:
    """A step, worth a try at `due_ms`."""

    interface: str
    step: InterfaceStep
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class Wish:
    """How a device shall be."""

    link_up: bool = True
    is_pluggable: bool = False


@dataclass(frozen=True, slots=True)
class Interfaces:
    """All that is known of the devices, by name."""

    wanted: Mapping[str, Wish] = field(default_factory=dict)
    present: Mapping[str, bool] = field(default_factory=dict)  # the guest has it; its carrier
    requests: Mapping[str, Requests] = field(default_factory=dict)  # to let go of it
    attempts: Mapping[str, Requests] = field(default_factory=dict)  # that failed
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def leaving(self) -> Set[str]:
        """What the guest has and shall let go of. One that was asked for and is wanted anew goes first, since nobody can take
        the request back."""
        return {each for each in self.present if each not in self.wanted or each in self.requests}


@dataclass(frozen=True, slots=True)
class AttachedInterface:
    """What is to be said of a device; `attachment` is None for a fixed part of the machine."""

    name: str
    attachment: Attachment | None
    message: str = ""


def next_interface_change(interfaces: Interfaces) -> InterfaceChange | None:
    """The step that is due first."""
    steps = [
        *(
            InterfaceChange(name, InterfaceStep.UNPLUG, _due_ms(interfaces.requests, name))
            for name in interfaces.present
            if name in interfaces.leaving
        ),
        *(_towards(name, wish, interfaces) for name, wish in interfaces.wanted.items()),
    ]
    return min((each for each in steps if each), key=lambda step: step.due_ms, default=None)


def interfaces_said(interfaces: Interfaces) -> tuple[AttachedInterface, ...]:
    """What is to be said of the devices. Of what the guest has not, and nobody wants, nothing."""
    names = dict.fromkeys((*interfaces.wanted, *interfaces.present))
    return tuple(_said(name, interfaces) for name in names)


def _towards(name: str, wish: Wish, interfaces: Interfaces) -> InterfaceChange | None:
    due_ms = _due_ms(interfaces.attempts, name)
    if name not in interfaces.present:
        return InterfaceChange(name, InterfaceStep.PLUG, due_ms) if wish.is_pluggable else None
    if name in interfaces.leaving or interfaces.present[name] == wish.link_up:
        return None
    step = InterfaceStep.LINK_UP if wish.link_up else InterfaceStep.LINK_DOWN
    return InterfaceChange(name, step, due_ms)


def _said(name: str, interfaces: Interfaces) -> AttachedInterface:
    problem = interfaces.problems.get(name, "")
    if name in interfaces.leaving:
        asked = interfaces.requests.get(name)
        if not problem and asked is not None and asked.count > _PATIENCE:
            problem = (
                f'Interface "{name}": the guest does not let go of the device; it is asked again.'
            )
        return AttachedInterface(name, Attachment.DETACHING, problem)
    if not interfaces.wanted[name].is_pluggable:
        return AttachedInterface(name, None, problem)
    is_there = name in interfaces.present
    return AttachedInterface(name, Attachment.ATTACHED if is_there else Attachment.AWAITED, problem)


def _due_ms(known: Mapping[str, Requests], name: str) -> int:
    return known[name].next_ms if name in known else 0
