"""What one VirtualMachine needs next.

Invariant: plan() reads only its arguments and returns a value; calling it twice changes nothing. It never waits, retries
or talks to anything: reconciler.py does what it says, and calls again when something has changed.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import RunStrategy

from podvisor_controller.vm import requests
from podvisor_controller.vm.observed import Observed, generation_of
from podvisor_controller.webhooks.defaults_instance import instance_of


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """Create the next instance."""

    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteInstance:
    """Begin the deletion of an instance; with a resource version, only as it was seen."""

    uid: str
    resource_version: str | None = None


@dataclass(frozen=True, slots=True)
class AdoptInstance:
    """Make an instance that nobody manages the machine's own."""


@dataclass(frozen=True, slots=True)
class FollowGeneration:
    """Note on the instance that it is what the machine's present generation makes."""

    generation: int


@dataclass(frozen=True, slots=True)
class PlugVolumes:
    """Give the instance these volumes and disks in place of those that it has. `own`: the names of those that are its alone."""

    volumes: list[v1.Volume]
    disks: list[v1.Disk]
    own: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PlugInterfaces:
    """Give the instance these networks and interfaces in place of those that it has."""

    networks: list[v1.Network]
    interfaces: list[v1.Interface]


@dataclass(frozen=True, slots=True)
class ChangeTemplate:
    """Give the template these volumes and disks in place of those that it has."""

    volumes: list[v1.Volume]
    disks: list[v1.Disk]


@dataclass(frozen=True, slots=True)
class BeginAlways:
    """A halted machine was asked to start: from now on it runs always."""


@dataclass(frozen=True, slots=True)
class ReleaseFinalizer:
    """Nothing of the machine is left: let the object go."""


Action = (
    CreateInstance
    | DeleteInstance
    | AdoptInstance
    | FollowGeneration
    | PlugVolumes
    | PlugInterfaces
    | ChangeTemplate
    | BeginAlways
    | ReleaseFinalizer
)


def plan(now: Observed) -> list[Action]:
    """The actions that bring `now` one step nearer to what the spec asks, in order; empty when there is nothing to do."""
    if now.vm.metadata.is_being_deleted:
        return _wind_down(now)
    if (requested := now.requested).is_change:
        return [ChangeTemplate(requested.volumes, requested.disks)]
    if now.has_stranger:
        return []
    if now.has_orphan:
        return [AdoptInstance()]
    vmi = now.vmi
    if vmi is None:
        return _without_instance(now)
    if vmi.metadata.is_being_deleted:
        return []
    if is_to_go(now):
        return [DeleteInstance(vmi.metadata.uid)] if _may_go(now, vmi) else []
    if (plugged := now.to_plug) is not None and now.plug_retry_left <= timedelta(0):
        return [PlugVolumes(plugged.volumes, plugged.disks, plugged.own)]
    if (wired := now.to_wire) is not None and now.wire_retry_left <= timedelta(0):
        return [PlugInterfaces(wired.networks, wired.interfaces)]
    follows = now.is_current and generation_of(vmi) != now.vm.metadata.generation
    return [FollowGeneration(now.vm.metadata.generation)] if follows else []


def _without_instance(now: Observed) -> list[Action]:
    if now.vm.status.restore_in_progress:
        # What it would start with is being replaced.
        return []
    if now.backoff_left > timedelta(0) or requests.stops_any(now.vm):
        return []
    if now.strategy == RunStrategy.HALTED:
        # A halt ends the pause after failures, which the status has to say before the machine runs always again.
        may_begin = now.asks_start and now.vm.status.start_failure is None
        return [BeginAlways()] if may_begin else []
    if not now.wants_new:
        return []
    manifest = instance_of(now.vm)
    if requests.starts_paused(now.requests):
        manifest["spec"]["startStrategy"] = names.START_PAUSED
    return [CreateInstance(manifest)]


def is_to_go(now: Observed) -> bool:
    """The instance is there and nobody wants it any more, now or as soon as its successor may come."""
    vmi = now.vmi
    if vmi is None or vmi.metadata.is_being_deleted:
        return False
    if now.vm.metadata.is_being_deleted:
        return "orphan" not in (now.vm.metadata.finalizers or ())
    if now.strategy == RunStrategy.HALTED or now.asks_stop:
        return True
    ends_with_guest = now.wants_replacement or now.strategy == RunStrategy.RERUN_ON_FAILURE
    return vmi.is_final and ends_with_guest


def _may_go(now: Observed, vmi: v1.VirtualMachineInstance) -> bool:
    """What is to go may go now. An ended instance goes when its successor may come: until then it shows why it ended."""
    if now.delete_retry_left > timedelta(0):
        return False
    if now.strategy == RunStrategy.HALTED or not vmi.is_final:
        return True
    waits = now.wants_replacement and not now.asks_stop and now.backoff_left > timedelta(0)
    return now.end_is_recorded and not waits


def _wind_down(now: Observed) -> list[Action]:
    """Being deleted: the instance first, the object when it is gone. An orphaning deletion leaves the instance alone."""
    finalizers = now.vm.metadata.finalizers or ()
    vmi = now.vmi
    if vmi is not None and "orphan" not in finalizers:
        if not is_to_go(now) or now.delete_retry_left > timedelta(0):
            return []
        # As it was seen: it may have been orphaned since.
        return [DeleteInstance(vmi.metadata.uid, vmi.metadata.resource_version)]
    return [ReleaseFinalizer()] if names.VM_FINALIZER in finalizers else []
