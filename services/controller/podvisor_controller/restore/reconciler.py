"""Brings VirtualMachineRestores to their end: has them observed, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of a restore only saves work, or is for people: every step can be done again, by this
process or another, from what there is in the API server. The queue owns retries.
"""

from dataclasses import replace
from datetime import timedelta

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.api.snapshot import VirtualMachineRestore, names
from podvisor_common.errors import Terminal
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.finalizers import release_finalizer
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import RESTORES, ObjectKey, key_of

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.refusals import refusal
from podvisor_controller.restore import claims, machine, plan, status
from podvisor_controller.restore.claim_writer import ClaimWriter
from podvisor_controller.restore.hindrances import failure_of, hindrance_of
from podvisor_controller.restore.indexes import RESTORE_LOCK_INDEX
from podvisor_controller.restore.observed import Observed
from podvisor_controller.restore.observer import Notes, Observer
from podvisor_controller.restore.target import Target
from podvisor_controller.status_patch import patch_of
from podvisor_controller.status_writer import write_status
from podvisor_controller.webhooks.defaults_instance import owner_reference

# Before what stands in the way, or was refused, is looked at again: no event tells of all that may be waited for.
LOOK_AGAIN_S = 5.0

_decode_restore = msgspec.json.Decoder(VirtualMachineRestore).decode

# Of these nothing changes from one attempt to the next: what is made is what the restore and the snapshot say.
_MAKES = (plan.CreateClaims, plan.CreateTarget)
# What validation answers. Quotas and most policies, which come and go, answer with other codes.
_UNPROCESSABLE = 422

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


class RestoreReconciler:
    """Reconciles restores with their targets. `vms` has the index RESTORE_LOCK_INDEX."""

    def __init__(
        self,
        client: KubeClient,
        observer: Observer,
        *,
        restores: Informer[VirtualMachineRestore],
        vms: Informer[v1.VirtualMachine],
        volume_claims: Informer[core.PersistentVolumeClaim],
        recorder: events.EventRecorder,
    ) -> None:
        self._client = client
        self._observer = observer
        self._restores = restores
        self._vms = vms
        self._target = Target(client, vms)
        self._claims = ClaimWriter(client, volume_claims)
        self._recorder = recorder
        self._notes: dict[ObjectKey, Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one restore a step nearer to its end. Called again on every change of it, its target, its snapshot and its claims."""
        restore = self._restores.get(key)
        if restore is None:
            self._notes.pop(key, None)
            await self._clear_up(key)
            return None
        notes = self._notes.get(key)
        if notes is None or notes.uid != restore.metadata.uid:
            notes = self._notes[key] = Notes(restore.metadata.uid)
        now = await self._observer.observe(restore, notes)
        for action in plan.plan(now):
            if isinstance(action, plan.ReleaseRestore):
                metadata = restore.metadata
                await release_finalizer(self._client, RESTORES, metadata, names.RESTORE_FINALIZER)
                return None
            if not await self._attempt(action, now, notes):
                break
        now = await self._observer.observe(restore, notes)
        await self._write_status(now)
        return _look_again(now)

    async def _attempt(self, action: plan.Action, now: Observed, notes: Notes) -> bool:
        """Do it. False where the API server does not let it happen, which is noted, and tried again later."""
        try:
            await self._carry_out(action, now, notes)
        except (ApiForbidden, ApiInvalid) as error:
            what, done = _ATTEMPTS[type(action)]
            notes.refusal = refusal(what, done, error)
            if isinstance(action, _MAKES) and error.status == _UNPROCESSABLE:
                notes.verdict = notes.refusal
            return False
        except _InTheWay as error:
            notes.refusal = str(error)
            return False
        notes.refusal = ""
        return True

    async def _carry_out(self, action: plan.Action, now: Observed, notes: Notes) -> None:
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
        self, action: plan.DeleteClaims, restore: VirtualMachineRestore, notes: Notes
    ) -> None:
        """Delete claims that new ones take the place of, if that is still right by the API server's word."""
        now = await self._observer.observe(restore, notes, surely=True)
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
        if not await write_status(self._client, self._restores, _decode_restore, restore, patch):
            return
        if news := status.news_of(now, wanted):
            reference = events.reference_to(RESTORES, restore)
            self._recorder.record(reference, news.type, news.reason, news.message)


def _look_again(now: Observed) -> Requeue | None:
    """When, where no event may tell that something has changed."""
    if now.is_over or now.is_deleting:
        return Requeue(LOOK_AGAIN_S) if now.refusal else None
    waits = [LOOK_AGAIN_S] if hindrance_of(now) or now.refusal or now.replaced else []
    left = now.grace_left
    if left is not None and not now.may_go_on and not failure_of(now):
        waits.append(max(left, timedelta(0)).total_seconds() + 0.01)
    return Requeue(min(waits)) if waits else None
