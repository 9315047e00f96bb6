"""Brings VirtualMachineClones to their end: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of a clone is why it does not get on, for people: every step can be done again,
by this process or another, from what there is in the API server. The queue owns retries.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import structlog
from podvisor_common.api import core, meta, v1
from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.clone.names import ClonePhase, EventReason
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
)
from podvisor_common.api.v1.names import VIRTUAL_MACHINE
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiAlreadyExists, ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    CLONES,
    RESTORES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    VIRTUAL_MACHINES,
    KubeObject,
    ObjectKey,
    Resource,
    key_of,
)

from podvisor_controller.clone import manifests, plan, status
from podvisor_controller.clone.observed import Observed
from podvisor_controller.clone.patches import patches_of, unknown_interfaces
from podvisor_controller.news import News
from podvisor_controller.refusals import refusal
from podvisor_controller.snapshot.observed import content_name
from podvisor_controller.status_patch import patch_of
from podvisor_controller.status_writer import write_status
from podvisor_controller.webhooks.defaults import ClusterDefaults

# Before what was refused is tried again.
LOOK_AGAIN_S = 5.0

_decode_clone = msgspec.json.Decoder(VirtualMachineClone).decode
_decode_snapshot = msgspec.json.Decoder(VirtualMachineSnapshot).decode
_decode_restore = msgspec.json.Decoder(VirtualMachineRestore).decode
_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_log = structlog.get_logger(__name__)

# What of an action was refused: the kind of the object, and what was to become of it.
_ATTEMPTS = {
    plan.CreateSnapshot: ("VirtualMachineSnapshot", "created"),
    plan.CreateRestore: ("VirtualMachineRestore", "created"),
    plan.DeleteRestore: ("VirtualMachineRestore", "deleted"),
    plan.DeleteSnapshot: ("VirtualMachineSnapshot", "deleted"),
    plan.DeleteClone: ("VirtualMachineClone", "deleted"),
}


@dataclass(slots=True)
class _Notes:
    """What is remembered of one clone."""

    uid: str
    refusal: str = ""
    unknown_interfaces: list[str] = field(default_factory=list)


class CloneReconciler:
    """Reconciles clones with what they are made by."""

    def __init__(
        self,
        client: KubeClient,
        *,
        clones: Informer[VirtualMachineClone],
        snapshots: Informer[VirtualMachineSnapshot],
        contents: Informer[VirtualMachineSnapshotContent],
        restores: Informer[VirtualMachineRestore],
        vms: Informer[v1.VirtualMachine],
        volume_claims: Informer[core.PersistentVolumeClaim],
        defaults: Callable[[], ClusterDefaults],
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._clones = clones
        self._snapshots = snapshots
        self._contents = contents
        self._restores = restores
        self._vms = vms
        self._volume_claims = volume_claims
        self._defaults = defaults
        self._recorder = recorder
        self._clock = clock
        self._notes: dict[ObjectKey, _Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one clone a step nearer to its end. Called again on every change of it, its source, its target and what is made for it."""
        clone = self._clones.get(key)
        if clone is None or clone.metadata.is_being_deleted:
            self._notes.pop(key, None)
            return None
        notes = self._notes.get(key)
        if notes is None or notes.uid != clone.metadata.uid:
            notes = self._notes[key] = _Notes(clone.metadata.uid)
        now = self._observe(clone, notes)
        for action in plan.plan(now):
            await self._attempt(action, now, notes)
            if isinstance(action, plan.DeleteClone):
                return None
        await self._write_status(self._observe(self._clones.get(key) or clone, notes))
        return Requeue(LOOK_AGAIN_S) if notes.refusal else None

    def _observe(self, clone: VirtualMachineClone, notes: _Notes) -> Observed:
        namespace, source = clone.metadata.namespace, clone.spec.source
        is_machine = source.kind == VIRTUAL_MACHINE
        snapshot = self._snapshots.get(ObjectKey(namespace, manifests.snapshot_name(clone)))
        restore = self._restores.get(ObjectKey(namespace, manifests.restore_name(clone)))
        made = (restore.status.restores if restore is not None else None) or ()
        claims = {
            one.persistent_volume_claim: self._volume_claims.get(
                ObjectKey(namespace, one.persistent_volume_claim)
            )
            for one in made
        }
        return Observed(
            clone=clone,
            at=self._clock(),
            source=self._vms.get(ObjectKey(namespace, source.name)) if is_machine else None,
            snapshot=snapshot,
            content=self._content_of(snapshot) if snapshot is not None else None,
            restore=restore,
            target=self._vms.get(ObjectKey(namespace, manifests.target_name(clone))),
            volume_claims={name: claim for name, claim in claims.items() if claim is not None},
            refusal=notes.refusal,
            unknown_interfaces=notes.unknown_interfaces,
        )

    def _content_of(self, snapshot: VirtualMachineSnapshot) -> VirtualMachineSnapshotContent | None:
        return self._contents.get(ObjectKey(snapshot.metadata.namespace, content_name(snapshot)))

    async def _attempt(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        """Do it. Where the API server does not let it happen, that is noted, and it is tried again later."""
        try:
            await self._carry_out(action, now, notes)
        except (ApiForbidden, ApiInvalid) as error:
            what, done = _ATTEMPTS[type(action)]
            why = refusal(what, done, error)
            if isinstance(action, plan.CreateRestore) and why != notes.refusal:
                reason = EventReason.RESTORE_CREATION_FAILED
                self._tell(now.clone, News(events.WARNING, reason, why))
            notes.refusal = why
            return
        notes.refusal = ""

    async def _carry_out(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        clone = now.clone
        match action:
            case plan.CreateSnapshot():
                manifest = manifests.snapshot_manifest(clone)
                answer = await self._create(
                    SNAPSHOTS, manifest, clone, EventReason.SNAPSHOT_CREATED
                )
                self._snapshots.learn(_decode_snapshot(answer))
            case plan.CreateRestore():
                await self._create_restore(now, notes)
            case plan.DeleteRestore():
                if now.phase == ClonePhase.SUCCEEDED:
                    message = f"all PVC for clone {clone.metadata.name} are bound"
                    self._tell(clone, News(events.NORMAL, EventReason.PVC_BOUND, message))
                await self._delete(RESTORES, now.restore)
            case plan.DeleteSnapshot():
                await self._delete(SNAPSHOTS, now.snapshot)
            case plan.DeleteClone():
                await self._delete_clone(now)

    async def _create_restore(self, now: Observed, notes: _Notes) -> None:
        """Have the target made. The whole content, of which the cache has the outline, says what is to be left out."""
        clone, content = now.clone, now.content
        if content is None:
            return
        answer = await self._client.get(SNAPSHOT_CONTENTS, key_of(content))
        kept = msgspec.json.decode(answer)["spec"]["source"].get("virtualMachine") or {}
        notes.unknown_interfaces = unknown_interfaces(clone, kept)
        if notes.unknown_interfaces:
            return
        manifest = manifests.restore_manifest(clone, patches_of(clone, kept, self._defaults()))
        answer = await self._create(RESTORES, manifest, clone, EventReason.RESTORE_CREATED)
        self._restores.learn(_decode_restore(answer))

    async def _create(
        self,
        resource: Resource,
        manifest: dict[str, Any],
        clone: VirtualMachineClone,
        reason: EventReason,
    ) -> bytes:
        """Make it, or take what has its name: the next pass sees whose it is."""
        key = ObjectKey(clone.metadata.namespace, manifest["metadata"]["name"])
        try:
            answer = await self._client.create(resource, key.namespace, manifest)
        except ApiAlreadyExists:
            return await self._client.get(resource, key)
        what = "snapshot" if resource is SNAPSHOTS else "restore"
        message = f"created {what} {key.name} for clone {clone.metadata.name}"
        self._tell(clone, News(events.NORMAL, reason, message))
        return answer

    async def _delete(self, resource: Resource, obj: KubeObject | None) -> None:
        """Begin the deletion of an object. ApiConflict when it is another by now."""
        assert obj is not None
        try:
            await self._client.delete(resource, key_of(obj), uid=obj.metadata.uid)
        except ApiNotFound:
            _log.debug("object was gone already", resource=resource.plural)

    async def _delete_clone(self, now: Observed) -> None:
        """Delete the clone of a target that is gone, by the API server's word: the cache may be behind."""
        key = ObjectKey(now.clone.metadata.namespace, manifests.target_name(now.clone))
        try:
            answer = await self._client.get(VIRTUAL_MACHINES, key)
        except ApiNotFound:
            await self._delete(CLONES, now.clone)
            return
        self._vms.learn(_decode_vm(answer))

    async def _write_status(self, now: Observed) -> None:
        """Patch the status if a reader would see a difference. ApiConflict when the clone has changed meanwhile."""
        clone, wanted = now.clone, status.status_of(now)
        patch = patch_of(clone.status, wanted)
        if not await write_status(self._client, self._clones, _decode_clone, clone, patch):
            return
        for news in status.news_of(now, wanted):
            self._tell(clone, news)

    def _tell(self, clone: VirtualMachineClone, news: News) -> None:
        reference = events.reference_to(CLONES, clone)
        self._recorder.record(reference, news.type, news.reason, news.message)
