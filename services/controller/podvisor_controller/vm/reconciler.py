"""Brings VirtualMachines to what they ask for: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of a machine (Notes) only saves work. The queue owns retries.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import EventReason, RunStrategy
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiConflict,
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

from podvisor_controller.pauses import retry_backoff
from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.refusals import explain, refusal
from podvisor_controller.refused_deletion import RefusedDeletion
from podvisor_controller.snapshot.volume_statuses import VolumeStatuses
from podvisor_controller.status_patch import patch_of
from podvisor_controller.status_writer import write_status
from podvisor_controller.vm import plan, requests, status
from podvisor_controller.vm.observed import Observed, revision_in_question
from podvisor_controller.vm.plugger import Plugger, RefusedPlug
from podvisor_controller.vm.revision import revision_name_of
from podvisor_controller.vm.revisions import Revisions
from podvisor_controller.vm.starts import Starts
from podvisor_controller.webhooks.defaults_instance import owner_reference

_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Notes:
    """What is remembered of one machine."""

    uid: str
    failure: str | None = None
    retry_at: datetime | None = None
    refused_deletion: RefusedDeletion | None = None
    generation: int = 0
    revision: str = ""  # the one that `made_from` was read from
    made_from: v1.VirtualMachineInstanceTemplateSpec | None = None
    backoff: Backoff = field(default_factory=retry_backoff)
    volumes: RefusedPlug = field(default_factory=RefusedPlug)
    interfaces: RefusedPlug = field(default_factory=RefusedPlug)
    refused_requests: list[v1.VirtualMachineVolumeRequest] | None = None
    requests_refusal: str = ""
    requests_one_by_one: bool = False


class VmReconciler:
    """Reconciles VirtualMachines with their instances."""

    def __init__(
        self,
        client: KubeClient,
        *,
        vms: Informer[v1.VirtualMachine],
        vmis: Informer[v1.VirtualMachineInstance],
        volume_statuses: VolumeStatuses,
        starts: Starts,
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._vms = vms
        self._vmis = vmis
        self._revisions = Revisions(client)
        self._plugger = Plugger(client, vms, vmis)
        self._volume_statuses = volume_statuses
        self._starts = starts
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
        if requests.stops_any(vm) and self._vmis.get(key) is None:
            await self._look_for_instance(key)
        now = await self._observe(vm, notes)
        actions = plan.plan(now)
        were_one_by_one = now.requests_one_by_one
        if not plan.is_to_go(now):
            notes.refused_deletion = None
        if now.to_plug is None:
            notes.volumes.why = ""
        if now.to_wire is None:
            notes.interfaces.why = ""
        for action in actions:
            await self._carry_out(action, now, notes)
        is_refused = notes.failure is not None or notes.refused_deletion is not None
        if any(isinstance(action, _BRING_A_PASS) for action in actions) and not is_refused:
            # That one tells of what was done and of everything else in one write.
            return None
        now = await self._observe(self._vms.get(key) or vm, notes)
        statuses = await self._volume_statuses.of(now.vm)
        await self._write_status(replace(now, volume_snapshot_statuses=statuses))
        if now.requests_one_by_one and not were_one_by_one:
            # Nothing was written that would bring the next pass.
            return Requeue(0)
        wait_s = now.look_again_in_s
        return None if wait_s is None else Requeue(wait_s)

    def _notes_of(self, key: ObjectKey, vm: v1.VirtualMachine) -> _Notes:
        notes = self._notes.get(key)
        if notes is None or notes.uid != vm.metadata.uid:
            notes = self._notes[key] = _Notes(vm.metadata.uid)
        if notes.generation != vm.metadata.generation:
            # What was refused may be right now.
            notes.generation = vm.metadata.generation
            notes.refused_requests = None
            notes.retry_at = notes.volumes.retry_at = notes.interfaces.retry_at = None
            if notes.refused_deletion is not None:
                notes.refused_deletion.retry_at = None
        if not vm.status.volume_requests:
            notes.refused_requests = None  # whoever asks for the same again asks anew
            notes.requests_one_by_one = False
        return notes

    async def _observe(self, vm: v1.VirtualMachine, notes: _Notes) -> Observed:
        instance, refused = self._vmis.get(key_of(vm)), notes.refused_deletion
        asked = vm.status.volume_requests
        is_refused = bool(asked) and notes.refused_requests == asked
        return Observed(
            vm=vm,
            instance=instance,
            at=self._clock(),
            made_from=await self._made_from(vm, instance, notes),
            failure=notes.failure,
            undeletable=refused.why if refused is not None else None,
            retry_at=notes.retry_at,
            delete_retry_at=refused.retry_at if refused is not None else None,
            unplugged=notes.volumes.why,
            plug_retry_at=notes.volumes.retry_at,
            unwired=notes.interfaces.why,
            wire_retry_at=notes.interfaces.retry_at,
            requests_refusal=notes.requests_refusal if is_refused else "",
            requests_one_by_one=notes.requests_one_by_one,
        )

    async def _made_from(
        self, vm: v1.VirtualMachine, instance: v1.VirtualMachineInstance | None, notes: _Notes
    ) -> v1.VirtualMachineInstanceTemplateSpec | None:
        """The template that a running instance was made from, where the machine has been edited since."""
        revision = revision_in_question(vm, instance)
        if revision and revision != notes.revision:
            notes.made_from = await self._revisions.template(vm.metadata.namespace, revision)
        elif not revision:
            notes.made_from = None
        notes.revision = revision
        return notes.made_from

    async def _carry_out(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        match action:
            case plan.CreateInstance(manifest):
                await self._create_instance(manifest, now.vm, notes)
            case plan.DeleteInstance(uid, resource_version):
                await self._delete_instance(now.vm, uid, resource_version, notes)
            case plan.AdoptInstance():
                await self._adopt_instance(now)
            case plan.FollowGeneration(generation):
                await self._follow_generation(now, generation)
            case plan.PlugVolumes() | plan.PlugInterfaces():
                await self._plug(action, now, notes)
            case plan.ChangeTemplate():
                await self._change_template(action, now, notes)
            case plan.BeginAlways():
                await self._begin_always(now.vm, notes)
            case plan.ReleaseFinalizer():
                await release_finalizer(
                    self._client, VIRTUAL_MACHINES, now.vm.metadata, names.VM_FINALIZER
                )

    async def _change_template(
        self, action: plan.ChangeTemplate, now: Observed, notes: _Notes
    ) -> None:
        """Give the template what is requested. Where that is refused of several requests, each is tried by itself."""
        asked = now.vm.status.volume_requests or []
        why = await self._plugger.change_template(now.vm, action)
        if why and len(asked) > 1 and not notes.requests_one_by_one:
            notes.requests_one_by_one = True
            return
        notes.refused_requests, notes.requests_refusal = asked, why

    async def _plug(
        self, action: plan.PlugVolumes | plan.PlugInterfaces, now: Observed, notes: _Notes
    ) -> None:
        """Give the instance what the template has for it. Where that is refused, it is tried again."""
        assert now.vmi is not None
        if isinstance(action, plan.PlugVolumes):
            refused, why = notes.volumes, await self._plugger.plug(now.vmi, action)
        else:
            refused, why = notes.interfaces, await self._plugger.wire(now.vmi, action)
        if why and why != refused.why:
            self._tell(now.vm, events.WARNING, EventReason.HOTPLUG_FAILED, why)
        refused.note(why, self._clock())

    async def _create_instance(
        self, manifest: dict[str, Any], vm: v1.VirtualMachine, notes: _Notes
    ) -> None:
        name = vm.metadata.name
        # Between this and the note that an instance is asked for nothing waits.
        if self._is_locked(key_of(vm)):
            return
        try:
            with self._starts.asking_for(key_of(vm)):
                older = await self._ask_for_instance(manifest, vm)
        except (ApiForbidden, ApiInvalid) as error:
            self._note_refusal(vm, notes, error)
            return
        if older is None:
            return
        notes.failure = notes.retry_at = None
        notes.backoff.reset()
        message = f"Started the virtual machine by creating the virtual machine instance {name}"
        self._tell(vm, events.NORMAL, EventReason.SUCCESSFUL_CREATE, message)
        await self._revisions.remove(vm.metadata.namespace, older)

    def _is_locked(self, key: ObjectKey) -> bool:
        """A restore is in progress, whatever was known when the start was decided upon."""
        vm = self._vms.get(key)
        return vm is not None and bool(vm.status.restore_in_progress)

    async def _ask_for_instance(
        self, manifest: dict[str, Any], vm: v1.VirtualMachine
    ) -> list[str] | None:
        """Make the instance, and know it; the revisions that nobody needs any more. None where there is one already."""
        try:
            older = await self._revisions.record(vm)
            answer = await self._client.create(
                VIRTUAL_MACHINE_INSTANCES, vm.metadata.namespace, manifest
            )
        except ApiAlreadyExists:
            # By our own earlier attempt or by somebody else: the next pass sees whose it is.
            answer = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key_of(vm))
            self._vmis.learn(_decode_vmi(answer))
            return None
        self._vmis.learn(_decode_vmi(answer))
        return older

    def _note_refusal(
        self, vm: v1.VirtualMachine, notes: _Notes, error: ApiForbidden | ApiInvalid
    ) -> None:
        """Remember why no instance can be made, tell the machine's owner, and try again later."""
        notes.failure = explain("VirtualMachineInstance", error)
        notes.retry_at = self._clock() + timedelta(seconds=notes.backoff.next_s())
        if notes.failure is not None:
            self._tell(vm, events.WARNING, EventReason.FAILED_CREATE, notes.failure)

    async def _begin_always(self, vm: v1.VirtualMachine, notes: _Notes) -> None:
        """Have a halted machine run always, in the words its specification uses. ApiConflict when it has changed."""
        by_flag = vm.spec.running is not None and not vm.spec.run_strategy
        spec = {"running": True} if by_flag else {"runStrategy": RunStrategy.ALWAYS}
        version = vm.metadata.resource_version
        patch = {"metadata": {"resourceVersion": version}, "spec": spec}
        try:
            answer = await self._client.merge_patch(VIRTUAL_MACHINES, key_of(vm), patch)
        except ApiNotFound:
            return
        except (ApiForbidden, ApiInvalid) as error:
            self._note_refusal(vm, notes, error)
            return
        notes.failure = notes.retry_at = None
        begun = _decode_vm(answer)
        self._vms.learn(begun)
        # Else whoever halts the machine now would not be known to have done it after this.
        await write_status(
            self._client, self._vms, _decode_vm, begun, {"runStrategy": RunStrategy.ALWAYS}
        )

    async def _look_for_instance(self, key: ObjectKey) -> None:
        """Learn of an instance that was made a moment ago, perhaps without an answer, and which the watch has not told of yet."""
        with suppress(ApiNotFound):
            self._vmis.learn(_decode_vmi(await self._client.get(VIRTUAL_MACHINE_INSTANCES, key)))

    async def _adopt_instance(self, now: Observed) -> None:
        """Make an orphan the machine's own, unless the machine is on its way out by now. ApiConflict when it has changed."""
        vm, instance = now.vm, now.instance
        assert instance is not None
        live = _decode_vm(await self._client.get(VIRTUAL_MACHINES, key_of(vm)))
        if live.metadata.uid != vm.metadata.uid or live.metadata.is_being_deleted:
            raise ApiConflict(409, "Conflict", "the machine is another, or being deleted")
        others = [msgspec.to_builtins(owner) for owner in instance.metadata.owner_references or ()]
        owners = [*others, owner_reference(vm.metadata.name, vm.metadata.uid)]
        metadata = as_it_was_seen(instance.metadata) | {"ownerReferences": owners}
        answer = await self._client.merge_patch(
            VIRTUAL_MACHINE_INSTANCES, key_of(instance), {"metadata": metadata}
        )
        self._vmis.learn(_decode_vmi(answer))
        if revision := revision_name_of(instance):
            await self._revisions.adopt(vm, revision)

    async def _follow_generation(self, now: Observed, generation: int) -> None:
        """Note on the instance which generation of its machine it follows. ApiConflict when it has changed."""
        vmi = now.vmi
        assert vmi is not None
        annotations = {names.VM_GENERATION_ANNOTATION: str(generation)}
        metadata = as_it_was_seen(vmi.metadata) | {"annotations": annotations}
        try:
            answer = await self._client.merge_patch(
                VIRTUAL_MACHINE_INSTANCES, key_of(vmi), {"metadata": metadata}
            )
        except ApiNotFound:
            return
        self._vmis.learn(_decode_vmi(answer))

    async def _delete_instance(
        self, vm: v1.VirtualMachine, uid: str, resource_version: str | None, notes: _Notes
    ) -> None:
        """Begin the deletion. ApiConflict when the instance is another, or not as it was seen."""
        name = vm.metadata.name
        try:
            await self._client.delete(
                VIRTUAL_MACHINE_INSTANCES, key_of(vm), uid=uid, resource_version=resource_version
            )
        except ApiNotFound:
            notes.refused_deletion = None
            _log.debug("instance was gone already")
            return
        except (ApiForbidden, ApiInvalid) as error:
            self._note_undeletable(vm, notes, refusal("VirtualMachineInstance", "deleted", error))
            return
        notes.refused_deletion = None
        message = f"Stopped the virtual machine by deleting the virtual machine instance {name}"
        self._tell(vm, events.NORMAL, EventReason.SUCCESSFUL_DELETE, message)

    def _note_undeletable(self, vm: v1.VirtualMachine, notes: _Notes, why: str) -> None:
        """Remember why the instance stays, tell the machine's owner once, and try again later."""
        refused = notes.refused_deletion or RefusedDeletion()
        if why != refused.why:
            self._tell(vm, events.WARNING, EventReason.FAILED_DELETE, why)
        refused.note(why, self._clock())
        notes.refused_deletion = refused

    async def _write_status(self, now: Observed) -> None:
        """Patch the status if a reader would see a difference. ApiConflict when the machine has changed meanwhile."""
        wanted = status.status_of(now)
        if wanted is None:
            return
        patch = patch_of(now.vm.status, wanted)
        if not await write_status(self._client, self._vms, _decode_vm, now.vm, patch):
            return
        for why in now.requested.refusals:
            self._tell(now.vm, events.WARNING, EventReason.HOT_PLUG_VOLUME_ERROR, why)

    def _tell(self, vm: v1.VirtualMachine, type_: str, reason: str, message: str) -> None:
        about = events.reference_to(VIRTUAL_MACHINES, vm)
        self._recorder.record(about, type_, reason, message)


# What these change comes back as an event.
_BRING_A_PASS = (plan.DeleteInstance, plan.AdoptInstance, plan.BeginAlways)
