"""Brings VirtualMachineRestores to their end: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of a restore only saves work, or is for people: every step can be done again, by this
process or another, from what there is in the API server. The queue owns retries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import msgspec
import structlog
from podvisor_common.api import core, meta, v1
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
    names,
)
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.errors import Terminal
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.finalizers import release_finalizer
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    PODS,
    RESTORES,
    SNAPSHOT_CONTENTS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    key_of,
)

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.refusals import refusal
from podvisor_controller.restore import claims, machine, plan, status
from podvisor_controller.restore.claim_writer import ClaimWriter
from podvisor_controller.restore.hindrances import failure_of, hindrance_of
from podvisor_controller.restore.indexes import OVERLAID_INDEX, RESTORE_LOCK_INDEX
from podvisor_controller.restore.observed import Observed
from podvisor_controller.restore.pods import pod_with
from podvisor_controller.restore.target import Target
from podvisor_controller.snapshot.observed import content_name
from podvisor_controller.snapshot.volume_snapshots import VolumeSnapshots
from podvisor_controller.snapshot.volumes import MACHINES_INDEX
from podvisor_controller.status_patch import patch_of
from podvisor_controller.vm.starts import Starts
from podvisor_controller.vmi.claim_users import users_of
from podvisor_controller.vmi.claims import claim_key
from podvisor_controller.webhooks.defaults_instance import owner_reference

# Before what stands in the way, or was refused, is looked at again: no event tells of all that may be waited for.
LOOK_AGAIN_S = 5.0

# Which export serves a claim; None when none does.
Exporting = Callable[[ObjectKey], ObjectKey | None]

_decode_restore = msgspec.json.Decoder(VirtualMachineRestore).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_decode_content = msgspec.json.Decoder(VirtualMachineSnapshotContent).decode
_log = structlog.get_logger(__name__)

# What of an action was refused: the kind of the object, and what was to become of it.
_ATTEMPTS = {
    plan.ProtectRestore: ("VirtualMachineRestore", "changed"),
    plan.StopTarget: ("VirtualMachine", "stopped"),
    plan.LockTarget: ("VirtualMachine", "locked"),
    plan.DeleteClaims: ("PersistentVolumeClaim", "deleted"),
    plan.CreateClaims: ("PersistentVolumeClaim", "created"),
    plan.ReplaceTarget: ("VirtualMachine", "changed"),
    plan.CreateTarget: ("VirtualMachine", "created"),
    plan.OwnClaims: ("PersistentVolumeClaim", "changed"),
    plan.AbandonClaims: ("PersistentVolumeClaim", "deleted"),
    plan.UnlockTarget: ("VirtualMachine", "unlocked"),
}


class _InTheWay(Terminal):
    """A claim is not deleted, for something has come to light that is in the way. Says what, for a person."""


class _PodList(msgspec.Struct, frozen=True):
    items: list[core.Pod]


_decode_pods = msgspec.json.Decoder(_PodList).decode


@dataclass(slots=True)
class _Notes:
    """What is remembered of one restore."""

    uid: str
    refusal: str = ""
    content: VirtualMachineSnapshotContent | None = None
    patch_fault: str | None = (
        None  # of the restore's patches to what `content` kept, once it is known
    )


class RestoreReconciler:
    """Reconciles restores with their targets.

    `vms` has the indexes RESTORE_LOCK_INDEX, MACHINES_INDEX and OVERLAID_INDEX, `vmis` USERS_INDEX.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        restores: Informer[VirtualMachineRestore],
        snapshots: Informer[VirtualMachineSnapshot],
        contents: Informer[VirtualMachineSnapshotContent],
        volume_snapshots: VolumeSnapshots,
        vms: Informer[v1.VirtualMachine],
        vmis: Informer[v1.VirtualMachineInstance],
        volume_claims: Informer[core.PersistentVolumeClaim],
        starts: Starts,
        exports: Exporting,
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._restores = restores
        self._snapshots = snapshots
        self._contents = contents
        self._volume_snapshots = volume_snapshots
        self._vms = vms
        self._vmis = vmis
        self._volume_claims = volume_claims
        self._starts = starts
        self._exports = exports
        self._target = Target(client, vms)
        self._claims = ClaimWriter(client, volume_claims)
        self._recorder = recorder
        self._clock = clock
        self._notes: dict[ObjectKey, _Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one restore a step nearer to its end. Called again on every change of it, its target, its snapshot and its claims."""
        restore = self._restores.get(key)
        if restore is None:
            self._notes.pop(key, None)
            await self._clear_up(key)
            return None
        notes = self._notes.get(key)
        if notes is None or notes.uid != restore.metadata.uid:
            notes = self._notes[key] = _Notes(restore.metadata.uid)
        now = await self._observe(restore, notes)
        for action in plan.plan(now):
            if isinstance(action, plan.ReleaseRestore):
                metadata = restore.metadata
                await release_finalizer(self._client, RESTORES, metadata, names.RESTORE_FINALIZER)
                return None
            if not await self._attempt(action, now, notes):
                break
        now = await self._observe(restore, notes)
        await self._write_status(now)
        return _look_again(now)

    async def _observe(
        self, known: VirtualMachineRestore, notes: _Notes, *, surely: bool = False
    ) -> Observed:
        """The restore and its surroundings. `surely`, where claims go on the strength of it: by the API server's word."""
        now = self._look(known, notes)
        if now.is_over or (now.is_deleting and not now.is_restored):
            notes.content = None
            return now
        pods: list[core.Pod] = []
        if surely:
            notes.content = None
            await self._look_for_instance(now)
            pods = await self._pods_beside(known)
        now = replace(now, content=await self._content(now.snapshot, notes))
        now = self._look(known, notes, now)
        if now.is_restored:
            return now
        late = [c.metadata.name for c in now.made if await self._claims.waits_for_guest(c)]
        found = await self._volume_snapshots_for(now, surely=surely)
        now = replace(now, volume_snapshots=found, late_bound=frozenset(late))
        # What waited may have changed what the caches have.
        return self._look(known, notes, now, pods)

    def _look(
        self,
        known: VirtualMachineRestore,
        notes: _Notes,
        before: Observed | None = None,
        pods: Sequence[core.Pod] = (),
    ) -> Observed:
        """What the caches say; what else there is to know is from `before`. Waits for nothing."""
        cached = self._restores.get(key_of(known))
        is_same = cached is not None and cached.metadata.uid == known.metadata.uid
        restore = cached if cached is not None and is_same else known
        namespace = restore.metadata.namespace
        key = ObjectKey(namespace, restore.spec.target.name)
        now = replace(
            before or Observed(restore, self._clock()),
            restore=restore,
            target=self._vms.get(key),
            instance=self._vmis.get(key),
            is_starting=self._starts.is_under_way(key),
            snapshot=self._snapshots.get(_snapshot_key(restore)),
            refusal=notes.refusal,
        )
        now = replace(
            now,
            source_lives=self._source_lives(now),
            patch_fault=_patch_fault(now, notes),
            volume_claims=self._claims_of(now),
        )
        wanted = {claim.metadata.name: claim for claim in now.replaced}
        others = {
            name: self._other_user(now, claim) or pod_with(name, pods)
            for name, claim in wanted.items()
        }
        return replace(now, other_users={claim: user for claim, user in others.items() if user})

    async def _look_for_instance(self, now: Observed) -> None:
        """Know the target's instance if there is one: after a lost answer it may be there before the cache tells."""
        if now.target is None:
            return
        try:
            answer = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key_of(now.target))
        except ApiNotFound:
            return
        self._vmis.learn(_decode_vmi(answer))

    async def _pods_beside(self, restore: VirtualMachineRestore) -> list[core.Pod]:
        """All pods of its namespace: the cache has those alone that are podvisor's."""
        namespace = restore.metadata.namespace
        answer = await self._client.list_page(PODS, namespace=namespace, limit=0)
        return _decode_pods(answer).items

    async def _volume_snapshots_for(
        self, now: Observed, *, surely: bool
    ) -> dict[str, VolumeSnapshot]:
        """What there is that claims can be made from."""
        if not (now.has_begun or (now.snapshot is not None and now.snapshot.status.ready_to_use)):
            return {}
        find = self._volume_snapshots.ask if surely else self._volume_snapshots.find
        found: dict[str, VolumeSnapshot] = {}
        for volume in now.unmade:
            name = volume.volume_snapshot_name
            if one := await find(ObjectKey(now.restore.metadata.namespace, name)):
                found[name] = one
        return found

    async def _content(
        self, snapshot: VirtualMachineSnapshot | None, notes: _Notes
    ) -> VirtualMachineSnapshotContent | None:
        """The whole content, of which the cache has the outline."""
        if snapshot is None:
            return None
        outline = self._contents.get(ObjectKey(snapshot.metadata.namespace, content_name(snapshot)))
        if outline is None:
            return None
        known = notes.content
        if known is None or known.metadata.resource_version != outline.metadata.resource_version:
            try:
                answer = await self._client.get(SNAPSHOT_CONTENTS, key_of(outline))
            except ApiNotFound:
                return None
            notes.content = _decode_content(answer)
            notes.patch_fault = None
        return notes.content

    def _source_lives(self, now: Observed) -> bool:
        """The machine that was kept is there, and is not the target."""
        name = (now.kept or {}).get("metadata", {}).get("name")
        if not name or name == now.restore.spec.target.name:
            return False
        return self._vms.get(ObjectKey(now.restore.metadata.namespace, str(name))) is not None

    def _claims_of(self, now: Observed) -> dict[str, core.PersistentVolumeClaim]:
        namespace = now.restore.metadata.namespace
        wanted = [volume.persistent_volume_claim for volume in now.volumes]
        found = {name: self._volume_claims.get(ObjectKey(namespace, name)) for name in wanted}
        return {name: claim for name, claim in found.items() if claim is not None}

    def _other_user(self, now: Observed, claim: core.PersistentVolumeClaim) -> str:
        """Who else than the target and its instance, whose end is awaited, has a claim; empty when nobody has."""
        key, target = key_of(claim), now.target
        own = key_of(now.instance) if target is not None and now.instance is not None else None
        for user in users_of(self._vmis, key):
            if user != own:
                return f"VirtualMachineInstance {user}"
        if (export := self._exports(key)) is not None:
            return f"VirtualMachineExport {export}"
        for index in (MACHINES_INDEX, OVERLAID_INDEX):
            for vm in self._vms.by_index(index, claim_key(*key)):
                if target is None or vm.metadata.uid != target.metadata.uid:
                    return f"VirtualMachine {key_of(vm)}"
        return ""

    async def _attempt(self, action: plan.Action, now: Observed, notes: _Notes) -> bool:
        """Do it. False where the API server does not let it happen, which is noted, and tried again later."""
        try:
            await self._carry_out(action, now, notes)
        except (ApiForbidden, ApiInvalid) as error:
            what, done = _ATTEMPTS[type(action)]
            notes.refusal = refusal(what, done, error)
            return False
        except _InTheWay as error:
            notes.refusal = str(error)
            return False
        notes.refusal = ""
        return True

    async def _carry_out(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        restore, target = now.restore, now.target
        match action:
            case plan.ProtectRestore():
                await self._protect(restore, target)
            case plan.CreateClaims(volumes):
                await self._create_claims(now, volumes)
            case plan.DeleteClaims():
                await self._delete_claims(action, restore, notes)
            case plan.AbandonClaims():
                await self._abandon_claims(now)
            case plan.CreateTarget():
                assert now.kept is not None
                manifest = machine.new_machine(
                    restore, now.kept, now.volumes, source_lives=now.source_lives
                )
                await self._target.create(manifest)
            case _:
                assert target is not None
                await self._change_target(action, now, target)

    async def _change_target(
        self, action: plan.Action, now: Observed, target: v1.VirtualMachine
    ) -> None:
        """What is done to a target that is there."""
        match action:
            case plan.StopTarget():
                assert now.instance is not None
                await self._target.stop(target, now.instance)
            case plan.LockTarget():
                await self._target.lock(target, now.restore.metadata.name)
            case plan.UnlockTarget():
                await self._target.unlock(target)
            case plan.ReplaceTarget():
                assert now.kept is not None
                operations = machine.replacement(now.restore, target, now.kept, now.volumes)
                await self._target.replace(target, operations)
            case plan.OwnClaims(owned):
                for name in owned:
                    await self._claims.give(now.volume_claims[name], target)

    async def _protect(
        self, restore: VirtualMachineRestore, target: v1.VirtualMachine | None
    ) -> None:
        old = restore.metadata
        metadata = as_it_was_seen(old)
        finalizers = list(old.finalizers or ())
        if names.RESTORE_FINALIZER not in finalizers:
            metadata["finalizers"] = [*finalizers, names.RESTORE_FINALIZER]
        if target is not None and not old.owner_references:
            owner = owner_reference(target.metadata.name, target.metadata.uid)
            metadata["ownerReferences"] = [owner]
        answer = await self._client.merge_patch(RESTORES, key_of(restore), {"metadata": metadata})
        self._restores.learn(_decode_restore(answer))

    async def _create_claims(self, now: Observed, volumes: tuple[str, ...]) -> None:
        assert now.kept is not None
        source = str(now.kept["metadata"].get("name") or "")
        for volume in now.missing:
            backup = now.backup(volume)
            if volume.volume_name not in volumes or backup is None:
                continue
            snapshot = now.volume_snapshots[volume.volume_snapshot_name]
            manifest = claims.manifest_of(
                now.restore, backup, snapshot, source=source, target=now.target
            )
            await self._claims.create(manifest)

    async def _delete_claims(
        self, action: plan.DeleteClaims, restore: VirtualMachineRestore, notes: _Notes
    ) -> None:
        """Delete claims that new ones take the place of, if that is still right by the API server's word."""
        now = await self._observe(restore, notes, surely=True)
        # Between this and the first request nothing waits.
        if action not in plan.plan(now):
            raise _InTheWay(failure_of(now) or hindrance_of(now))
        for name in action.names:
            await self._claims.delete(now.volume_claims[name])

    async def _abandon_claims(self, now: Observed) -> None:
        """Delete what was made in vain. Whether it was is the API server's word: the target may have been written a moment ago."""
        key = ObjectKey(now.restore.metadata.namespace, now.restore.spec.target.name)
        for claim in replace(now, target=await self._target.find(key)).abandoned:
            await self._claims.delete(claim)

    async def _clear_up(self, key: ObjectKey) -> None:
        """Let go of the machine of a restore that went without our leave."""
        locked = self._vms.by_index(RESTORE_LOCK_INDEX, str(key))
        if not locked:
            return
        try:
            # The cache may be behind: what an earlier leader has begun is not to be undone.
            await self._client.get(RESTORES, key)
        except ApiNotFound:
            for vm in locked:
                await self._target.unlock(vm)

    async def _write_status(self, now: Observed) -> None:
        """Patch the status if a reader would see a difference. ApiConflict when the restore has changed meanwhile."""
        restore, wanted = now.restore, status.status_of(now)
        patch = patch_of(restore.status, wanted)
        if not patch:
            return
        version = restore.metadata.resource_version
        body = {"metadata": {"resourceVersion": version}, "status": patch}
        try:
            answer = await self._client.merge_patch(
                RESTORES, key_of(restore), body, subresource="status"
            )
        except ApiNotFound:
            return
        self._restores.learn(_decode_restore(answer))
        if news := status.news_of(now, wanted):
            reference = events.reference_to(RESTORES, restore)
            self._recorder.record(reference, news.type, news.reason, news.message)


def _snapshot_key(restore: VirtualMachineRestore) -> ObjectKey:
    return ObjectKey(restore.metadata.namespace, restore.spec.virtual_machine_snapshot_name)


def _patch_fault(now: Observed, notes: _Notes) -> str:
    """Why no new target can be made. There may be many patches: they are tried once."""
    if now.target is not None or now.kept is None:
        return ""
    if notes.patch_fault is None:
        notes.patch_fault = machine.patch_fault(now.restore, now.kept, now.volumes)
    return notes.patch_fault


def _look_again(now: Observed) -> Requeue | None:
    """When, where no event may tell that something has changed."""
    if now.is_over or now.is_deleting:
        return Requeue(LOOK_AGAIN_S) if now.refusal else None
    waits = [LOOK_AGAIN_S] if hindrance_of(now) or now.refusal or now.replaced else []
    left = now.grace_left
    if left is not None and not now.may_go_on and not failure_of(now):
        waits.append(max(left, timedelta(0)).total_seconds() + 0.01)
    return Requeue(min(waits)) if waits else None
