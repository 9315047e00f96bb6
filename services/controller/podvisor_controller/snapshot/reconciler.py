"""Brings VirtualMachineSnapshots to their end: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of a snapshot is why the API server refused something, for people: every step can be
done again, by this process or another, from what there is in the API server. The queue owns retries.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec
import structlog
from podvisor_common.api import core, meta, v1
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
    VolumeBackup,
    names,
)
from podvisor_common.api.snapshot.names import EventReason
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.api.v1.names import VIRTUAL_MACHINE
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
    PERSISTENT_VOLUME_CLAIMS,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    KubeObject,
    ObjectKey,
    Resource,
    key_of,
)

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.refusals import refusal
from podvisor_controller.restore.indexes import RESTORED_SNAPSHOT_INDEX
from podvisor_controller.sets.batches import PARALLEL_WRITES, in_batches
from podvisor_controller.snapshot import plan, status, volumes
from podvisor_controller.snapshot.class_reader import ClassReader
from podvisor_controller.snapshot.classes import NO_CLASSES, SnapshotClasses
from podvisor_controller.snapshot.manifests import Json, content_manifest, volume_snapshot_manifest
from podvisor_controller.snapshot.observed import Observed, content_name
from podvisor_controller.snapshot.outline import LOCK_INDEX, SNAPSHOT_INDEX, claim_of
from podvisor_controller.snapshot.source import Source
from podvisor_controller.snapshot.volume_snapshots import VolumeSnapshots
from podvisor_controller.status_patch import changes, patch_of
from podvisor_controller.status_writer import write_status
from podvisor_controller.vm.observed import owns
from podvisor_controller.vmi.claim_users import users_of

# Before a machine that cannot be locked, or something that was refused, is looked at again: no event tells of all that it may wait for.
LOOK_AGAIN_S = 5.0
# How old what is known of classes may be where something is decided by it for good.
CLASSES_AGE_S = 5.0

_decode_snapshot = msgspec.json.Decoder(VirtualMachineSnapshot).decode
_decode_content = msgspec.json.Decoder(VirtualMachineSnapshotContent).decode
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Notes:
    """What is remembered of one snapshot."""

    uid: str
    refusal: str = ""


class SnapshotReconciler:
    """Reconciles snapshots with their contents.

    `contents` has the index SNAPSHOT_INDEX, `restores` RESTORED_SNAPSHOT_INDEX, `vms` LOCK_INDEX, `vmis` USERS_INDEX.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        snapshots: Informer[VirtualMachineSnapshot],
        contents: Informer[VirtualMachineSnapshotContent],
        volume_snapshots: VolumeSnapshots,
        restores: Informer[VirtualMachineRestore],
        vms: Informer[v1.VirtualMachine],
        vmis: Informer[v1.VirtualMachineInstance],
        volume_claims: Informer[core.PersistentVolumeClaim],
        classes: ClassReader,
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._snapshots = snapshots
        self._contents = contents
        self._volume_snapshots = volume_snapshots
        self._restores = restores
        self._vms = vms
        self._vmis = vmis
        self._volume_claims = volume_claims
        self._classes = classes
        self._source = Source(client, vms)
        self._recorder = recorder
        self._clock = clock
        self._notes: dict[ObjectKey, _Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one snapshot a step nearer to its end. Called again on every change of it, its machine and what is made for it."""
        snapshot = self._snapshots.get(key)
        if snapshot is None:
            self._notes.pop(key, None)
            await self._clear_up(key)
            return None
        notes = self._notes.get(key)
        if notes is None or notes.uid != snapshot.metadata.uid:
            notes = self._notes[key] = _Notes(snapshot.metadata.uid)
        now = await self._observe(snapshot, notes)
        for action in plan.plan(now):
            if isinstance(action, plan.ReleaseSnapshot):
                metadata = snapshot.metadata
                await release_finalizer(self._client, SNAPSHOTS, metadata, names.SNAPSHOT_FINALIZER)
                return None
            await self._carry_out(action, now, notes)
        now = await self._observe(self._snapshots.get(key) or snapshot, notes)
        await self._write_content_status(now)
        now = replace(now, content=self._content_of(now.snapshot))
        await self._write_snapshot_status(now)
        return _look_again(now)

    async def _observe(self, snapshot: VirtualMachineSnapshot, notes: _Notes) -> Observed:
        vm = self._machine_of(snapshot)
        vmi = self._vmis.get(key_of(vm)) if vm is not None else None
        content = self._content_of(snapshot)
        now = Observed(
            snapshot=snapshot,
            at=self._clock(),
            vm=vm,
            vmi=vmi if vm is not None and owns(vm, vmi) else None,
            content=content,
            refusal=notes.refusal,
        )
        if now.is_ending:
            return replace(now, restore=self._restore_of(snapshot))
        found = await self._found(now)
        return replace(now, volume_snapshots=found, hindrance=await self._hindrance(now))

    def _machine_of(self, snapshot: VirtualMachineSnapshot) -> v1.VirtualMachine | None:
        source = snapshot.spec.source
        if source.kind != VIRTUAL_MACHINE:
            return None
        return self._vms.get(ObjectKey(snapshot.metadata.namespace, source.name))

    def _content_of(self, snapshot: VirtualMachineSnapshot) -> VirtualMachineSnapshotContent | None:
        return self._contents.get(ObjectKey(snapshot.metadata.namespace, content_name(snapshot)))

    def _restore_of(self, snapshot: VirtualMachineSnapshot) -> str:
        """A restore of the snapshot that has told of the claims it makes and is not over; empty when there is none."""
        restores = self._restores.by_index(RESTORED_SNAPSHOT_INDEX, str(key_of(snapshot)))
        begun = (one.metadata.name for one in restores if one.status.restores is not None)
        return next(begun, "")

    async def _found(self, now: Observed) -> dict[str, VolumeSnapshot]:
        """The VolumeSnapshots that there are. One that was there once is not gone before the API server says so."""
        found = {}
        for name in now.wanted:
            key = ObjectKey(now.snapshot.metadata.namespace, name)
            find = self._volume_snapshots.find
            one = await find(key) if now.is_taken else self._volume_snapshots.cached(key)
            if one is not None:
                found[name] = one
        return found

    async def _hindrance(self, now: Observed) -> str:
        """Why the machine cannot be locked yet."""
        vm, name = now.vm, now.snapshot.metadata.name
        if vm is None or now.is_over or now.is_taken or now.is_locked:
            return ""
        if vm.metadata.is_being_deleted:
            return f'VirtualMachine "{vm.metadata.name}" is being deleted.'
        other = vm.status.snapshot_in_progress
        if other and other != name:
            return f'VirtualMachineSnapshot "{other}" of the same machine is in progress.'
        if vm.status.restore_in_progress:
            return f'VirtualMachineRestore "{vm.status.restore_in_progress}" of the machine is in progress.'
        classes = await self._classes_for(vm)
        namespace = vm.metadata.namespace
        why = volumes.hindrance(vm, lambda claim: self._claim(namespace, claim), classes)
        if why or (now.vmi is not None and not now.vmi.is_final):
            return why
        return volumes.contention(
            vm, lambda claim: users_of(self._vmis, ObjectKey(namespace, claim))
        )

    async def _classes_for(self, vm: v1.VirtualMachine) -> SnapshotClasses:
        if not volumes.volumes_of(vm):
            return NO_CLASSES
        return await self._classes.read(at_most_s=CLASSES_AGE_S)

    def _claim(self, namespace: str, name: str) -> core.PersistentVolumeClaim | None:
        return self._volume_claims.get(ObjectKey(namespace, name))

    async def _carry_out(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        match action:
            case plan.ProtectSnapshot():
                await self._protect(now.snapshot)
            case plan.LockSource():
                assert now.vm is not None
                await self._source.lock(now.vm, now.snapshot.metadata.name)
            case plan.CreateContent():
                await self._create_content(now, notes)
            case plan.CreateVolumeSnapshots(wanted):
                await self._create_volume_snapshots(now, wanted, notes)
            case plan.DeleteContent():
                await self._delete_content(now)
            case plan.ReleaseContent():
                await self._release_content(now.content)
            case plan.UnlockSource():
                assert now.vm is not None
                await self._source.unlock(now.vm)

    async def _protect(self, snapshot: VirtualMachineSnapshot) -> None:
        finalizers = [*(snapshot.metadata.finalizers or ()), names.SNAPSHOT_FINALIZER]
        metadata = as_it_was_seen(snapshot.metadata) | {"finalizers": finalizers}
        answer = await self._client.merge_patch(SNAPSHOTS, key_of(snapshot), {"metadata": metadata})
        self._snapshots.learn(_decode_snapshot(answer))

    async def _create_content(self, now: Observed, notes: _Notes) -> None:
        """Write down the machine with its claims, as they are at this moment."""
        snapshot = now.snapshot
        assert now.vm is not None
        vm, machine = await self._source.read(now.vm, now.vmi, snapshot.metadata.name)
        classes, namespace = await self._classes_for(vm), vm.metadata.namespace
        kept = volumes.to_keep(vm, lambda claim: self._claim(namespace, claim), classes)
        claims: dict[str, Json] = {}
        for volume in kept:
            key = ObjectKey(namespace, volume.claim_name)
            answer = await self._client.get(PERSISTENT_VOLUME_CLAIMS, key)
            claims[volume.name] = msgspec.json.decode(answer)
        manifest = content_manifest(snapshot, machine, claims)
        name = manifest["metadata"]["name"]
        try:
            answer = await self._client.create(SNAPSHOT_CONTENTS, namespace, manifest)
        except ApiAlreadyExists:
            answer = await self._client.get(SNAPSHOT_CONTENTS, ObjectKey(namespace, name))
        except (ApiForbidden, ApiInvalid) as error:
            notes.refusal = refusal(SNAPSHOT_CONTENTS.kind, "created", error)
            return
        notes.refusal = ""
        self._contents.learn(_decode_content(answer))
        message = f"Successfully created VirtualMachineSnapshotContent {name}"
        self._tell(SNAPSHOTS, snapshot, events.NORMAL, EventReason.CONTENT_CREATED, message)

    async def _create_volume_snapshots(
        self, now: Observed, wanted: tuple[str, ...], notes: _Notes
    ) -> None:
        """Make them all at once: the less time there is between them, the better they fit each other."""
        content = now.content
        assert content is not None
        classes = await self._classes.read(at_most_s=CLASSES_AGE_S)
        backups = [b for b in content.spec.volume_backups or () if b.volume_snapshot_name in wanted]
        refusals: list[str] = []

        async def make(backup: VolumeBackup) -> None:
            claim, storage_class = claim_of(backup)
            snapshot_class = classes.find(storage_class)
            if snapshot_class is None:
                refusals.append(
                    f'There is no VolumeSnapshotClass any more for StorageClass "{storage_class}" of PersistentVolumeClaim "{claim}".'
                )
                return
            manifest = volume_snapshot_manifest(content, backup, snapshot_class)
            try:
                is_new = await self._volume_snapshots.create(content.metadata.namespace, manifest)
            except (ApiForbidden, ApiInvalid) as error:
                refusals.append(refusal("VolumeSnapshot", "created", error))
                return
            if is_new:
                message = f"Successfully created VolumeSnapshot {backup.volume_snapshot_name}"
                reason = EventReason.VOLUME_SNAPSHOT_CREATED
                self._tell(SNAPSHOT_CONTENTS, content, events.NORMAL, reason, message)

        errors = await in_batches(backups, make, first=PARALLEL_WRITES, goes_on=True)
        notes.refusal = refusals[0] if refusals else ""
        if errors:
            raise errors[0]

    async def _delete_content(self, now: Observed) -> None:
        content = now.content
        assert content is not None
        try:
            await self._client.delete(SNAPSHOT_CONTENTS, key_of(content), uid=content.metadata.uid)
        except ApiNotFound:
            _log.debug("content was gone already")

    async def _release_content(self, content: VirtualMachineSnapshotContent | None) -> None:
        assert content is not None
        metadata = content.metadata
        await release_finalizer(self._client, SNAPSHOT_CONTENTS, metadata, names.CONTENT_FINALIZER)

    async def _clear_up(self, key: ObjectKey) -> None:
        """Let go of what a snapshot left behind that went without our leave."""
        contents = [
            content
            for content in self._contents.by_index(SNAPSHOT_INDEX, str(key))
            if names.CONTENT_FINALIZER in (content.metadata.finalizers or ())
        ]
        machines = self._vms.by_index(LOCK_INDEX, str(key))
        if not (contents or machines):
            return
        try:
            # The cache may be behind: what an earlier leader has begun is not to be undone.
            await self._client.get(SNAPSHOTS, key)
        except ApiNotFound:
            for content in contents:
                await self._release_content(content)
            for vm in machines:
                await self._source.unlock(vm)

    async def _write_content_status(self, now: Observed) -> None:
        """Patch the content's status if a reader would see a difference. ApiConflict when it has changed meanwhile."""
        content, wanted = now.content, status.content_status(now)
        if content is None or wanted is None:
            return
        patch = changes(content.status, wanted)
        if not await write_status(self._client, self._contents, _decode_content, content, patch):
            return
        for name in status.missing(wanted, now):
            message = f"VolumeSnapshot {name} no longer exists"
            reason = EventReason.VOLUME_SNAPSHOT_MISSING
            self._tell(SNAPSHOT_CONTENTS, content, events.WARNING, reason, message)

    async def _write_snapshot_status(self, now: Observed) -> None:
        snapshot = now.snapshot
        patch = patch_of(snapshot.status, status.snapshot_status(now))
        await write_status(self._client, self._snapshots, _decode_snapshot, snapshot, patch)

    def _tell(
        self, resource: Resource, obj: KubeObject, type_: str, reason: str, message: str
    ) -> None:
        self._recorder.record(events.reference_to(resource, obj), type_, reason, message)


def _look_again(now: Observed) -> Requeue | None:
    waits = [LOOK_AGAIN_S] if now.hindrance or now.refusal else []
    left = now.deadline_left
    if left is not None and not now.is_taken:
        waits.append(max(left, timedelta(0)).total_seconds() + 0.01)
    return Requeue(min(waits)) if waits else None
