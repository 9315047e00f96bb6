"""Brings VirtualMachineInstanceReplicaSets to what they ask for: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. Nothing is made or deleted but by a set as the API server has it at that moment, and not before this
process, since it leads, has seen the set's instances there too; what it has done itself counts from then on whether or not a cache
shows it. The queue owns retries.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from podvisor_common.api import meta, v1
from podvisor_common.api.v1.names import EventReason, Reason
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiError,
    ApiForbidden,
    ApiInvalid,
    ApiNotFound,
)
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    REPLICA_SETS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    key_of,
)

from podvisor_controller.replicaset import plan
from podvisor_controller.replicaset.instance import base_name_of, instance_of, reference_to_set
from podvisor_controller.replicaset.status import status_of
from podvisor_controller.sets.batches import PARALLEL_WRITES, in_batches
from podvisor_controller.sets.claiming import Claiming
from podvisor_controller.sets.claims import CLAIM_INDEX, claim, managed_by
from podvisor_controller.sets.conditions import says_paused
from podvisor_controller.sets.live import read_live
from podvisor_controller.sets.member_names import choose_names, names_of
from podvisor_controller.sets.selectors import text_of
from podvisor_controller.sets.trouble import Trouble, raise_unexpected
from podvisor_controller.sets.unseen import Unseen
from podvisor_controller.status_patch import patch_of
from podvisor_controller.status_writer import write_status

# How long a cache may take to show an instance that was made before the API server is asked what became of it.
LOOK_AGAIN_S = 5.0

_decode_set = msgspec.json.Decoder(v1.VirtualMachineInstanceReplicaSet).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_decode_list = msgspec.json.Decoder(v1.VirtualMachineInstanceList).decode

Set = v1.VirtualMachineInstanceReplicaSet
Instance = v1.VirtualMachineInstance


@dataclass(slots=True)
class _Notes:
    """What is remembered of one set."""

    uid: str
    unseen: Unseen[Instance] = field(default_factory=Unseen)
    looked_s: float | None = None  # when its instances were last listed, in the loop's time
    generation: int = 0
    claims: Trouble = field(default_factory=lambda: Trouble(Reason.FAILED_ADOPT))
    creations: Trouble = field(default_factory=lambda: Trouble(Reason.FAILED_CREATE))
    deletions: Trouble = field(default_factory=lambda: Trouble(Reason.FAILED_DELETE))

    @property
    def troubles(self) -> tuple[Trouble, Trouble, Trouble]:
        """What may have been refused."""
        return (self.claims, self.creations, self.deletions)


class ReplicaSetReconciler:
    """Reconciles sets with their instances. `vmis` has the index CLAIM_INDEX for sets of this kind."""

    def __init__(
        self,
        client: KubeClient,
        *,
        replica_sets: Informer[Set],
        vmis: Informer[Instance],
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._replica_sets = replica_sets
        self._vmis = vmis
        self._claiming = Claiming(client, REPLICA_SETS, vmis, _decode_vmi)
        self._recorder = recorder
        self._clock = clock
        self._notes: dict[ObjectKey, _Notes] = {}

    def begin_term(self) -> None:
        """This process leads from now on: another one may have done what the caches do not show yet."""
        for notes in self._notes.values():
            notes.looked_s = None

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one set a step nearer to its spec. Called again on every change of it and of its instances."""
        replica_set = self._replica_sets.get(key)
        if replica_set is None:
            self._notes.pop(key, None)
            return None
        if replica_set.metadata.is_being_deleted:
            return None
        notes = self._notes_of(key, replica_set)
        if self._is_overdue(notes):
            await self._look(replica_set, notes)
        actions = plan.plan(self._observe(replica_set, notes))
        if actions:
            live = await read_live(self._client, self._replica_sets, _decode_set, replica_set)
            if live is None:
                return None
            replica_set = live
            if notes.looked_s is None:
                await self._look(replica_set, notes)
            actions = plan.plan(self._observe(replica_set, notes))
        await self._carry_out(actions, replica_set, notes)
        seen = self._replica_sets.get(key) or replica_set
        self._forget_what_is_over(self._observe(seen, notes), notes)
        now = self._observe(seen, notes)
        await self._write_status(now)
        return self._look_again(now, notes)

    def _notes_of(self, key: ObjectKey, replica_set: Set) -> _Notes:
        metadata = replica_set.metadata
        notes = self._notes.get(key)
        if notes is None or notes.uid != metadata.uid:
            notes = self._notes[key] = _Notes(metadata.uid)
        if notes.generation != metadata.generation:
            # What was refused may be right now.
            notes.generation = metadata.generation
            for trouble in notes.troubles:
                trouble.try_again()
        return notes

    def _observe(self, replica_set: Set, notes: _Notes) -> plan.Observed:
        metadata, unseen = replica_set.metadata, notes.unseen
        own = self._vmis.by_index(CLAIM_INDEX, managed_by(metadata.namespace, metadata.uid))
        unseen.settle(lambda name: self._cached(replica_set, name), own)
        orphans = self._vmis.by_index(CLAIM_INDEX, managed_by(metadata.namespace, ""))
        objects = [*own, *orphans, *unseen.answered]
        at = self._clock()
        return plan.Observed(
            replica_set=replica_set,
            claims=claim(objects, metadata.uid, replica_set.spec.selector),
            at=at,
            deleted=frozenset(unseen.deleted),
            doubtful=frozenset(unseen.doubtful),
            failure=next((t.failure for t in notes.troubles if t.failure is not None), None),
            claims_wait=notes.claims.left(at),
            creations_wait=notes.creations.left(at),
            deletions_wait=notes.deletions.left(at),
        )

    def _cached(self, replica_set: Set, name: str) -> Instance | None:
        return self._vmis.get(ObjectKey(replica_set.metadata.namespace, name))

    def _is_overdue(self, notes: _Notes) -> bool:
        """Something that was made is not in the cache, though it has had the time."""
        if notes.looked_s is None or not notes.unseen.answered:
            return False
        return asyncio.get_running_loop().time() - notes.looked_s >= LOOK_AGAIN_S

    async def _look(self, replica_set: Set, notes: _Notes) -> None:
        """Learn which instances the set has by what the API server itself has stored."""
        uid, unseen = replica_set.metadata.uid, notes.unseen
        before = {vmi.metadata.uid for vmi in self._observe(replica_set, notes).present}
        answer = await self._client.list_page(
            VIRTUAL_MACHINE_INSTANCES,
            namespace=replica_set.metadata.namespace,
            label_selector=text_of(replica_set.spec.selector),
            limit=0,
        )
        live = claim(_decode_list(answer).items, uid, replica_set.spec.selector).own
        for vmi in live:
            self._vmis.learn(vmi)
        unseen.confirm(live, lambda name: self._cached(replica_set, name))
        unseen.deleted |= before - {vmi.metadata.uid for vmi in live}
        notes.looked_s = asyncio.get_running_loop().time()

    async def _carry_out(
        self, actions: Sequence[plan.Action], replica_set: Set, notes: _Notes
    ) -> None:
        """Do it all. Raises what is no refusal, after the rest."""
        adopted = [action.vmi for action in actions if isinstance(action, plan.AdoptInstance)]
        released = [action.vmi for action in actions if isinstance(action, plan.ReleaseInstance)]
        metadata = replica_set.metadata
        claimed = await self._claiming.adopt(adopted, metadata, reference_to_set(replica_set))
        claimed += await self._claiming.release(released, metadata)
        self._note(claimed, notes.claims, "adopted or released", replica_set)
        deleted = [action.vmi for action in actions if isinstance(action, plan.DeleteInstance)]
        ended = await self._delete(deleted, replica_set, notes)
        self._note(ended, notes.deletions, "deleted", replica_set)
        count = sum(action.count for action in actions if isinstance(action, plan.CreateInstances))
        made = await self._create(count, replica_set, notes)
        self._note(made, notes.creations, "created", replica_set)
        raise_unexpected([*claimed, *ended, *made])

    async def _create(self, count: int, replica_set: Set, notes: _Notes) -> list[ApiError]:
        unseen = notes.unseen
        chosen = choose_names(
            names_of(base_name_of(replica_set), replica_set.metadata.uid),
            count,
            unanswered=unseen.unanswered,
            is_taken=lambda name: (
                name in unseen.made or self._cached(replica_set, name) is not None
            ),
        )

        async def create(name: str) -> None:
            await self._create_one(name, replica_set, unseen)

        return await in_batches(chosen, create)

    async def _create_one(self, name: str, replica_set: Set, unseen: Unseen[Instance]) -> None:
        """Create the instance of that name. ApiAlreadyExists when it is somebody else's: the next pass chooses another."""
        # Before anything can go wrong, this process being told to stop included.
        unseen.made[name] = None
        namespace = replica_set.metadata.namespace
        try:
            answer = await self._client.create(
                VIRTUAL_MACHINE_INSTANCES, namespace, instance_of(replica_set, name)
            )
        except ApiAlreadyExists:
            # By our own earlier attempt or an earlier leader's, or somebody else's: it says whose it is.
            key = ObjectKey(namespace, name)
            answer = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key)
        except (ApiForbidden, ApiInvalid):
            del unseen.made[name]
            raise
        vmi = unseen.made[name] = _decode_vmi(answer)
        self._vmis.learn(vmi)
        owner = vmi.metadata.controller_reference()
        if owner is None or owner.uid != replica_set.metadata.uid:
            raise ApiAlreadyExists(409, "AlreadyExists", f"{name} is not the set's")
        message = f"Started the virtual machine by creating the new virtual machine instance {name}"
        self._tell(replica_set, events.NORMAL, EventReason.SUCCESSFUL_CREATE, message)

    async def _delete(
        self, vmis: Sequence[Instance], replica_set: Set, notes: _Notes
    ) -> list[ApiError]:
        async def delete(vmi: Instance) -> None:
            await self._delete_one(vmi, replica_set, notes.unseen)

        return await in_batches(vmis, delete, first=PARALLEL_WRITES)

    async def _delete_one(self, vmi: Instance, replica_set: Set, unseen: Unseen[Instance]) -> None:
        """Begin the deletion. ApiConflict when there is another instance of that name."""
        uid, name = vmi.metadata.uid, vmi.metadata.name
        unseen.doubtful.add(uid)
        try:
            await self._client.delete(VIRTUAL_MACHINE_INSTANCES, key_of(vmi), uid=uid)
        except ApiNotFound:
            # Gone already, and the cache has not heard of it.
            unseen.deleted.add(uid)
            return
        except (ApiForbidden, ApiInvalid):
            unseen.doubtful.discard(uid)
            raise
        unseen.deleted.add(uid)
        message = f"Stopped the virtual machine by deleting the virtual machine instance {name}"
        self._tell(replica_set, events.NORMAL, EventReason.SUCCESSFUL_DELETE, message)

    def _note(
        self, errors: Sequence[ApiError], trouble: Trouble, done: str, replica_set: Set
    ) -> None:
        """Remember a refusal, and tell the set's owner."""
        failure = trouble.note(errors, "VirtualMachineInstance", done, self._clock())
        if failure is not None:
            self._tell(replica_set, events.WARNING, failure.reason, failure.message)

    def _forget_what_is_over(self, now: plan.Observed, notes: _Notes) -> None:
        """What nobody wants any more, or what has been done, has not failed."""
        for trouble, is_wanted in (
            (notes.claims, now.wants_claims),
            (notes.creations, now.surplus < 0),
            (notes.deletions, now.wants_deletions),
        ):
            if not is_wanted:
                trouble.is_over()

    async def _write_status(self, now: plan.Observed) -> None:
        """Patch the status if a reader would see a difference. ApiConflict when the set has changed meanwhile."""
        replica_set, wanted = now.replica_set, status_of(now)
        patch = patch_of(replica_set.status, wanted)
        if not await write_status(
            self._client, self._replica_sets, _decode_set, replica_set, patch
        ):
            return
        was_paused, is_paused = map(says_paused, (replica_set.status.conditions, wanted.conditions))
        if is_paused and not was_paused:
            self._tell(replica_set, events.NORMAL, EventReason.SUCCESSFUL_PAUSED, "Paused")
        elif was_paused and not is_paused:
            self._tell(replica_set, events.NORMAL, EventReason.SUCCESSFUL_RESUMED, "Resumed")

    def _look_again(self, now: plan.Observed, notes: _Notes) -> Requeue | None:
        waits = [LOOK_AGAIN_S] if notes.unseen.answered else []
        if not now.is_settled:
            pauses = (trouble.left(now.at).total_seconds() for trouble in notes.troubles)
            waits += [pause_s for pause_s in pauses if pause_s > 0]
        return Requeue(min(waits)) if waits else None

    def _tell(self, replica_set: Set, type_: str, reason: str, message: str) -> None:
        about = events.reference_to(REPLICA_SETS, replica_set)
        self._recorder.record(about, type_, reason, message)
