"""Brings VirtualMachines to what they ask for: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of a machine (Notes) only saves work. The queue owns retries.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import EventReason
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiForbidden,
    ApiInvalid,
    ApiNotFound,
)
from podvisor_common.kube.finalizers import release_finalizer
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    key_of,
)

from podvisor_controller.refusals import explain
from podvisor_controller.vm import plan, status
from podvisor_controller.vm.observed import Observed

_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_log = structlog.get_logger(__name__)


def _retry_backoff() -> Backoff:
    return Backoff(initial_s=2.0, max_s=300.0, jitter=0.1)


@dataclass(slots=True)
class _Notes:
    """What is remembered of one machine."""

    uid: str
    failure: str | None = None
    retry_at: datetime | None = None
    generation: int = 0
    backoff: Backoff = field(default_factory=_retry_backoff)


class VmReconciler:
    """Reconciles VirtualMachines with their instances."""

    def __init__(
        self,
        client: KubeClient,
        *,
        vms: Informer[v1.VirtualMachine],
        vmis: Informer[v1.VirtualMachineInstance],
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._vms = vms
        self._vmis = vmis
        self._recorder = recorder
        self._clock = clock
        self._notes: dict[ObjectKey, _Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one machine a step nearer to its spec. Called again on every change of it or of its instance."""
        vm = self._vms.get(key)
        if vm is None:
            self._notes.pop(key, None)
            return None
        notes = self._notes_of(key, vm)
        now = self._observe(vm, notes)
        actions = plan.plan(now)
        for action in actions:
            await self._carry_out(action, now, notes)
        if any(isinstance(action, plan.DeleteInstance) for action in actions):
            # The deletion brings another pass, which tells of it and of everything else in one write.
            return None
        now = self._observe(self._vms.get(key) or vm, notes)
        await self._write_status(now)
        wait_s = now.look_again_in_s
        return None if wait_s is None else Requeue(wait_s)

    def _notes_of(self, key: ObjectKey, vm: v1.VirtualMachine) -> _Notes:
        notes = self._notes.get(key)
        if notes is None or notes.uid != vm.metadata.uid:
            notes = self._notes[key] = _Notes(vm.metadata.uid)
        if notes.generation != vm.metadata.generation:
            # What was refused may be right now.
            notes.generation = vm.metadata.generation
            notes.retry_at = None
        return notes

    def _observe(self, vm: v1.VirtualMachine, notes: _Notes) -> Observed:
        return Observed(
            vm=vm,
            instance=self._vmis.get(key_of(vm)),
            at=self._clock(),
            failure=notes.failure,
            retry_at=notes.retry_at,
        )

    async def _carry_out(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        match action:
            case plan.CreateInstance(manifest):
                await self._create_instance(manifest, now.vm, notes)
            case plan.DeleteInstance(uid):
                await self._delete_instance(now.vm, uid)
            case plan.ReleaseFinalizer():
                await release_finalizer(
                    self._client, VIRTUAL_MACHINES, now.vm.metadata, names.VM_FINALIZER
                )

    async def _create_instance(
        self, manifest: dict[str, Any], vm: v1.VirtualMachine, notes: _Notes
    ) -> None:
        name = vm.metadata.name
        try:
            answer = await self._client.create(
                VIRTUAL_MACHINE_INSTANCES, vm.metadata.namespace, manifest
            )
        except ApiAlreadyExists:
            # By our own earlier attempt or by somebody else: the next pass sees whose it is.
            answer = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key_of(vm))
            self._vmis.learn(_decode_vmi(answer))
            return
        except (ApiForbidden, ApiInvalid) as error:
            notes.failure = explain("VirtualMachineInstance", error)
            notes.retry_at = self._clock() + timedelta(seconds=notes.backoff.next_s())
            if notes.failure is not None:
                self._tell(vm, events.WARNING, EventReason.FAILED_CREATE, notes.failure)
            return
        notes.failure = notes.retry_at = None
        notes.backoff.reset()
        self._vmis.learn(_decode_vmi(answer))
        message = f"Started the virtual machine by creating the virtual machine instance {name}"
        self._tell(vm, events.NORMAL, EventReason.SUCCESSFUL_CREATE, message)

    async def _delete_instance(self, vm: v1.VirtualMachine, uid: str) -> None:
        name = vm.metadata.name
        try:
            await self._client.delete(VIRTUAL_MACHINE_INSTANCES, key_of(vm), uid=uid)
        except ApiNotFound:
            _log.debug("instance was gone already")
            return
        message = f"Stopped the virtual machine by deleting the virtual machine instance {name}"
        self._tell(vm, events.NORMAL, EventReason.SUCCESSFUL_DELETE, message)

    async def _write_status(self, now: Observed) -> None:
        """Patch the status if a reader would see a difference. ApiConflict when the machine has changed meanwhile."""
        wanted = status.status_of(now)
        if wanted is None:
            return
        patch = status.patch_of(now.vm.status, wanted)
        if not patch:
            return
        version = now.vm.metadata.resource_version
        try:
            answer = await self._client.merge_patch(
                VIRTUAL_MACHINES,
                key_of(now.vm),
                {"metadata": {"resourceVersion": version}, "status": patch},
                subresource="status",
            )
        except ApiNotFound:
            return
        self._vms.learn(_decode_vm(answer))

    def _tell(self, vm: v1.VirtualMachine, type_: str, reason: str, message: str) -> None:
        about = events.reference_to(VIRTUAL_MACHINES, vm)
        self._recorder.record(about, type_, reason, message)
