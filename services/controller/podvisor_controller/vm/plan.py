"""What one VirtualMachine needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. It never waits, retries
or talks to anything: reconciler.py does what it says, and calls again when something has changed.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import RunStrategy

from podvisor_controller.vm.observed import Observed
from podvisor_controller.webhooks.defaults_instance import instance_of


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """Create the next instance."""

    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteInstance:
    """Begin the deletion of an instance."""

    uid: str


@dataclass(frozen=True, slots=True)
class ReleaseFinalizer:
    """Nothing of the machine is left: let the object go."""


Action = CreateInstance | DeleteInstance | ReleaseFinalizer


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to what the spec asks, in order; empty when there is nothing to do."""
    if now.vm.metadata.is_being_deleted:
        return _wind_down(now)
    if now.has_stranger:
        return []
    vmi = now.vmi
    if vmi is None:
        waits = not now.wants_new or now.backoff_left > timedelta(0)
        return [] if waits else [CreateInstance(instance_of(now.vm))]
    if vmi.metadata.is_being_deleted:
        return []
    if now.strategy == RunStrategy.HALTED:
        return [DeleteInstance(vmi.metadata.uid)]
    # An ended instance goes when its successor may come: until then it shows why it ended.
    is_due = now.failure_is_recorded and now.backoff_left <= timedelta(0)
    if now.wants_replacement and is_due:
        return [DeleteInstance(vmi.metadata.uid)]
    return []


def _wind_down(now: Observed) -> list[Action]:
    """Being deleted: the instance first, the object when it is gone. An orphaning deletion leaves the instance alone."""
    finalizers = now.vm.metadata.finalizers or ()
    vmi = now.vmi
    if vmi is not None and "orphan" not in finalizers:
        return [] if vmi.metadata.is_being_deleted else [DeleteInstance(vmi.metadata.uid)]
    return [ReleaseFinalizer()] if names.VM_FINALIZER in finalizers else []
