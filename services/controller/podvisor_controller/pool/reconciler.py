"""Brings VirtualMachinePools to what they ask for: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of a pool (Notes) only saves work: a machine's name and the order in which machines are
deleted follow from the pool alone. Nothing is done but by a pool as the API server has it at that moment, and no guest is stopped but
by what it has of machines and instances as well.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec
from podvisor_common.api import meta, v1
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import EventReason, Reason, StateChange
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiAlreadyExists, ApiError, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    POOLS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    key_of,
)

from podvisor_controller.pool import healing, machine, plan
from podvisor_controller.pool.observed import Matter, Observed
from podvisor_controller.pool.status import status_of
from podvisor_controller.sets.batches import PARALLEL_WRITES, in_batches
from podvisor_controller.sets.claiming import Claiming
from podvisor_controller.sets.claims import CLAIM_INDEX, claim, managed_by
from podvisor_controller.sets.conditions import Failure, says_paused
from podvisor_controller.sets.live import read_live
from podvisor_controller.sets.selectors import text_of
from podvisor_controller.sets.trouble import Trouble, raise_unexpected
from podvisor_controller.status_patch import patch_of
from podvisor_controller.status_writer import write_status

_decode_pool = msgspec.json.Decoder(VirtualMachinePool).decode
_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_decode_vms = msgspec.json.Decoder(v1.VirtualMachineList).decode
_decode_vmis = msgspec.json.Decoder(v1.VirtualMachineInstanceList).decode

A = TypeVar("A", bound=plan.Action)
_ADOPT, _SCALE_OUT, _SCALE_IN, _UPDATE = (
    Reason.FAILED_ADOPT,
    Reason.FAILED_SCALE_OUT,
    Reason.FAILED_SCALE_IN,
    Reason.FAILED_UPDATE,
)
# In the order in which failures are told of.
_DONE = {
    _ADOPT: "adopted or released",
    _SCALE_OUT: "created",
    _SCALE_IN: "deleted",
    _UPDATE: "updated",
}
_Write = plan.CreateMachine | plan.DeleteMachine | plan.UpdateMachine | plan.RestartMachine

# These take a guest from somebody.
_DISRUPTIVE = (plan.DeleteMachine, plan.RestartMachine)


@dataclass(slots=True)
class _Notes:
    """What is remembered of one pool."""

    uid: str
    generation: int = 0
    # What was refused and has not been accepted since: one machine's is none of the others'.
    troubles: dict[Matter, Trouble] = field(default_factory=dict)

    @property
    def failure(self) -> Failure | None:
        """The first thing that was refused and has not been accepted since."""
        failures = [t.failure for t in self.troubles.values() if t.failure is not None]
        order = tuple(_DONE)
        return min(failures, key=lambda failure: order.index(failure.reason), default=None)


class PoolReconciler:
    """Reconciles pools with their machines. `vms` has the index CLAIM_INDEX for sets of this kind."""

    def __init__(
        self,
        client: KubeClient,
        *,
        pools: Informer[VirtualMachinePool],
        vms: Informer[v1.VirtualMachine],
        vmis: Informer[v1.VirtualMachineInstance],
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._pools = pools
        self._vms = vms
        self._vmis = vmis
        self._recorder = recorder
        self._clock = clock
        self._claiming = Claiming(client, POOLS, vms, _decode_vm)
        self._notes: dict[ObjectKey, _Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one pool a step nearer to its spec. Called again on every change of it, its machines and their instances."""
        pool = self._pools.get(key)
        if pool is None:
            self._notes.pop(key, None)
            return None
        if pool.metadata.is_being_deleted:
            return None
        notes = self._notes_of(key, pool)
        actions = plan.plan(self._observe(pool, notes))
        if actions:
            live = await read_live(self._client, self._pools, _decode_pool, pool)
            if live is None:
                return None
            pool = live
            now = self._observe(pool, notes)
            actions = plan.plan(now)
            if any(isinstance(action, _DISRUPTIVE) for action in actions):
                actions = plan.plan(await self._observe_live(now))
        await self._carry_out(actions, pool, notes)
        now = self._observe(self._pools.get(key) or pool, notes)
        await self._write_status(now, notes)
        return self._look_again(now, notes)

    def _notes_of(self, key: ObjectKey, pool: VirtualMachinePool) -> _Notes:
        notes = self._notes.get(key)
        if notes is None or notes.uid != pool.metadata.uid:
            notes = self._notes[key] = _Notes(pool.metadata.uid)
        if notes.generation != pool.metadata.generation:
            notes.generation = pool.metadata.generation
            for trouble in notes.troubles.values():
                trouble.try_again()
        return notes

    def _observe(self, pool: VirtualMachinePool, notes: _Notes) -> Observed:
        namespace, uid = pool.metadata.namespace, pool.metadata.uid
        own = self._vms.by_index(CLAIM_INDEX, managed_by(namespace, uid))
        orphans = self._vms.by_index(CLAIM_INDEX, managed_by(namespace, ""))
        instances = (self._vmis.get(key_of(vm)) for vm in own)
        at = self._clock()
        return Observed(
            pool=pool,
            claims=claim([*own, *orphans], uid, pool.spec.selector),
            instances={vmi.metadata.name: vmi for vmi in instances if vmi is not None},
            is_taken=lambda name: self._vms.get(ObjectKey(namespace, name)) is not None,
            at=at,
            waiting=frozenset(m for m, t in notes.troubles.items() if t.left(at) > timedelta(0)),
        )

    async def _observe_live(self, now: Observed) -> Observed:
        """The same pool by what the API server has stored: an earlier leader may have stopped what the caches have running."""
        namespace, selector = now.pool.metadata.namespace, now.pool.spec.selector
        vms = await self._client.list_page(
            VIRTUAL_MACHINES, namespace=namespace, label_selector=text_of(selector), limit=0
        )
        vmis = await self._client.list_page(
            VIRTUAL_MACHINE_INSTANCES,
            namespace=namespace,
            label_selector=names.POOL_REVISION_LABEL,
            limit=0,
        )
        # An instance without the label is none that the pool's machines have made since they are the pool's.
        instances = {
            name: vmi
            for name, vmi in now.instances.items()
            if vmi.metadata.label(names.POOL_REVISION_LABEL) is None
        }
        instances |= {vmi.metadata.name: vmi for vmi in _decode_vmis(vmis).items}
        claims = claim(_decode_vms(vms).items, now.pool.metadata.uid, selector)
        return replace(now, claims=claims, instances=instances)

    async def _carry_out(
        self, actions: Sequence[plan.Action], pool: VirtualMachinePool, notes: _Notes
    ) -> None:
        """Do it all. Raises what is no refusal, after the rest."""
        metadata = pool.metadata
        adopted = [action.vm for action in _of(plan.AdoptMachine, actions)]
        claimed = await self._claiming.adopt(adopted, metadata, machine.owner_reference(pool))
        released = [action.vm for action in _of(plan.ReleaseMachine, actions)]
        claimed += await self._claiming.release(released, metadata)
        failed: dict[Matter, list[ApiError]] = {(_ADOPT, ""): claimed} if claimed else {}

        async def attempt(action: _Write) -> None:
            try:
                await self._do(pool, action)
            except ApiError as error:
                failed.setdefault(_matter_of(action), []).append(error)
                raise

        errors = await in_batches(_of(plan.CreateMachine, actions), attempt)
        others: list[_Write] = [
            *_of(plan.DeleteMachine, actions),
            *_of(plan.UpdateMachine, actions),
            *_of(plan.RestartMachine, actions),
        ]
        errors += await in_batches(others, attempt, first=PARALLEL_WRITES, goes_on=True)
        self._note(failed, pool, notes)
        raise_unexpected([*claimed, *errors])

    def _note(
        self, failed: Mapping[Matter, Sequence[ApiError]], pool: VirtualMachinePool, notes: _Notes
    ) -> None:
        """Remember what was refused, and forget what was not. Tells the owner what he has not been told yet."""
        at, troubles = self._clock(), notes.troubles
        told = {trouble.failure for trouble in troubles.values()}
        for matter, errors in failed.items():
            reason, _ = matter
            trouble = troubles.get(matter) or Trouble(reason)
            failure = trouble.note(errors, names.VIRTUAL_MACHINE, _DONE[reason], at)
            if trouble.retry_at is not None:
                troubles[matter] = trouble
            if failure is not None and failure not in told:
                told.add(failure)
                self._tell(pool, events.WARNING, failure.reason, failure.message)
        now = self._observe(pool, notes)
        if not (now.claims.orphans or now.claims.strays):
            troubles.pop((_ADOPT, ""), None)
        there = {"", *(vm.metadata.uid for vm in now.own)}
        for matter, trouble in list(troubles.items()):
            is_due = matter not in failed and trouble.left(at) <= timedelta(0)
            if is_due or matter[1] not in there:
                del troubles[matter]

    async def _do(self, pool: VirtualMachinePool, action: _Write) -> None:
        match action:
            case plan.CreateMachine():
                await self._create(pool, action)
            case plan.DeleteMachine():
                await self._delete(pool, action)
            case _:
                await self._change(pool, action)

    async def _create(self, pool: VirtualMachinePool, action: plan.CreateMachine) -> None:
        """Create the machine of that index. ApiAlreadyExists when it is somebody else's: the next pass chooses another."""
        manifest = machine.manifest_of(pool, action.index)
        key = ObjectKey(pool.metadata.namespace, manifest["metadata"]["name"])
        try:
            answer = await self._client.create(VIRTUAL_MACHINES, key.namespace, manifest)
        except ApiAlreadyExists:
            # By our own earlier attempt or an earlier leader's, or somebody else's: it says whose it is.
            answer = await self._client.get(VIRTUAL_MACHINES, key)
        vm = _decode_vm(answer)
        self._vms.learn(vm)
        owner = vm.metadata.controller_reference()
        if owner is None or owner.uid != pool.metadata.uid:
            raise ApiAlreadyExists(409, "AlreadyExists", f"{key} is not the pool's")
        self._tell(pool, events.NORMAL, EventReason.SUCCESSFUL_CREATE, f"Created VM {key}")

    async def _delete(self, pool: VirtualMachinePool, action: plan.DeleteMachine) -> None:
        """Begin the deletion. ApiConflict when the machine is another, or not as it was seen where that matters."""
        metadata = action.vm.metadata
        version = metadata.resource_version if action.only_as_seen else None
        try:
            await self._client.delete(
                VIRTUAL_MACHINES, key_of(action.vm), uid=metadata.uid, resource_version=version
            )
        except ApiNotFound:
            return
        message = f"Deleted VM {key_of(action.vm)} with uid {metadata.uid} from pool"
        self._tell(pool, events.NORMAL, EventReason.SUCCESSFUL_DELETE, message)

    async def _change(
        self, pool: VirtualMachinePool, action: plan.UpdateMachine | plan.RestartMachine
    ) -> None:
        """Write to a machine as it was seen. ApiConflict when it has changed."""
        key = key_of(action.vm)
        try:
            match action:
                case plan.UpdateMachine(vm, index):
                    patch = machine.update_of(pool, vm, index)
                    answer = await self._client.json_patch(VIRTUAL_MACHINES, key, patch)
                    message = f"Updated VM {key}"
                case plan.RestartMachine(vm, instance):
                    answer = await self._client.merge_patch(
                        VIRTUAL_MACHINES, key, _restart_of(vm, instance), subresource="status"
                    )
                    message = f"Restarted VM {key}, for it has been updated"
        except ApiNotFound:
            return
        self._vms.learn(_decode_vm(answer))
        self._tell(pool, events.NORMAL, EventReason.SUCCESSFUL_UPDATE, message)

    async def _write_status(self, now: Observed, notes: _Notes) -> None:
        """Patch the status if a reader would see a difference. ApiConflict when the pool has changed meanwhile."""
        pool, wanted = now.pool, status_of(now, notes.failure)
        patch = patch_of(pool.status, wanted)
        if not await write_status(self._client, self._pools, _decode_pool, pool, patch):
            return
        was_paused, is_paused = map(says_paused, (pool.status.conditions, wanted.conditions))
        if is_paused and not was_paused:
            self._tell(pool, events.NORMAL, EventReason.SUCCESSFUL_PAUSED, "Pool is paused")
        elif was_paused and not is_paused:
            self._tell(pool, events.NORMAL, EventReason.SUCCESSFUL_RESUME, "Pool is unpaused")

    def _look_again(self, now: Observed, notes: _Notes) -> Requeue | None:
        waits = [trouble.left(now.at) for trouble in notes.troubles.values()]
        autohealing = now.pool.spec.autohealing
        if autohealing is not None:
            lefts = (healing.time_left(vm, autohealing, now.at) for vm in now.lasting)
            waits += [left for left in lefts if left is not None]
        after_s = min((w.total_seconds() for w in waits if w > timedelta(0)), default=None)
        return None if after_s is None else Requeue(after_s)

    def _tell(self, pool: VirtualMachinePool, type_: str, reason: str, message: str) -> None:
        self._recorder.record(events.reference_to(POOLS, pool), type_, reason, message)


def _matter_of(action: _Write) -> Matter:
    match action:
        case plan.CreateMachine():
            return _SCALE_OUT, ""
        case plan.DeleteMachine(vm):
            return _SCALE_IN, vm.metadata.uid
        case plan.UpdateMachine(vm) | plan.RestartMachine(vm):
            return _UPDATE, vm.metadata.uid


def _of(type_: type[A], actions: Sequence[plan.Action]) -> list[A]:
    return [action for action in actions if isinstance(action, type_)]


def _restart_of(vm: v1.VirtualMachine, instance: v1.VirtualMachineInstance) -> dict[str, object]:
    """The patch that asks for another instance in the place of that one."""
    requests = [
        {"action": StateChange.STOP, "uid": instance.metadata.uid},
        {"action": StateChange.START},
    ]
    return {
        "metadata": {"resourceVersion": vm.metadata.resource_version},
        "status": {"stateChangeRequests": requests},
    }
