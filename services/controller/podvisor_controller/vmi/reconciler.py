"""Brings VirtualMachineInstances to what they ask for: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of an instance (Notes) only saves work: when it is lost, the next pass finds
the same state again. The queue owns retries.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import EventReason
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
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    key_of,
)

from podvisor_controller.config import ClusterConfig
from podvisor_controller.node.attendance import Attendance
from podvisor_controller.node.health_lookup import HealthLookup
from podvisor_controller.pauses import retry_backoff
from podvisor_controller.refusals import explain, refusal
from podvisor_controller.refused_deletion import RefusedDeletion
from podvisor_controller.vm.observed import wants_new
from podvisor_controller.vmi import plan, status
from podvisor_controller.vmi.attacher import Attacher, FindExports
from podvisor_controller.vmi.claim_lookup import ClaimLookup
from podvisor_controller.vmi.claim_users import rivals_of
from podvisor_controller.vmi.claims import Rival, claimed
from podvisor_controller.vmi.definition_lookup import DefinitionLookup
from podvisor_controller.vmi.gatekeeper import Gatekeeper
from podvisor_controller.vmi.networker import Networker
from podvisor_controller.vmi.observed import Observed, has_ended
from podvisor_controller.vmi.pod_index import (
    OWNER_INDEX,
    instance_of_pod,
    owned_key,
    owner_keys,
)
from podvisor_controller.vmi.trouble import Trouble

FIELD_MANAGER = "virt-controller"
NODE_INDEX = "node"
# How long the pod of an instance before may take up what a new one needs, without a word about it.
_PREDECESSOR_LEAVES_WITHIN = timedelta(seconds=10)

_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_decode_pod = msgspec.json.Decoder(core.Pod).decode
_decode_kind = msgspec.json.Decoder(meta.TypeMeta).decode
_log = structlog.get_logger(__name__)


def node_names(vmi: v1.VirtualMachineInstance) -> list[str]:
    """The index of instances by the node that runs them."""
    return [vmi.status.node_name] if vmi.status.node_name else []


def _undeletable(refused: RefusedDeletion | None) -> Trouble | None:
    return Trouble(names.Reason.FAILED_DELETE, refused.why) if refused is not None else None


@dataclass(slots=True)
class _Notes:
    """What is remembered of one instance."""

    uid: str
    attempt: int = 0
    retry_at: datetime | None = None
    failure: Trouble | None = None
    refused_deletion: RefusedDeletion | None = None
    pod_created_at: datetime | None = None
    is_getting_pod: bool = False  # one was asked for, and the answer is not known
    ended_pod: str = ""
    pod_end_seen_at: datetime | None = None
    released_at: str | None = None  # the version whose finalizer was taken away
    backoff: Backoff = field(default_factory=retry_backoff)


class VmiReconciler:
    """Reconciles VirtualMachineInstances with their launcher pods."""

    def __init__(
        self,
        client: KubeClient,
        *,
        vms: Informer[v1.VirtualMachine],
        vmis: Informer[v1.VirtualMachineInstance],
        pods: Informer[core.Pod],
        volume_claims: Informer[core.PersistentVolumeClaim],
        nodes: Informer[core.Node],
        attendance: Attendance,
        exports: FindExports,
        config: Callable[[], ClusterConfig],
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._vms = vms
        self._vmis = vmis
        self._pods = pods
        self._claims = ClaimLookup(client, volume_claims)
        self._definitions = DefinitionLookup(client, clock)
        self._attacher = Attacher(client, pods, recorder, self._rivals_of, exports, clock)
        self._networker = Networker(client, pods, recorder)
        self._gatekeeper = Gatekeeper(client, pods, recorder)
        self._exports = exports
        self._health = HealthLookup(client, nodes, attendance)
        self._attendance = attendance
        self._config = config
        self._recorder = recorder
        self._clock = clock
        self._notes: dict[ObjectKey, _Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one instance a step nearer to its spec. Called again on every change of it, its pod or its node."""
        vmi = self._vmis.get(key)
        if vmi is None:
            self._forget(key)
            return None
        notes = self._notes_of(key, vmi)
        now = await self._observe(vmi, notes)
        for action in plan.plan(now):
            await self._carry_out(action, now, notes)
        networks_s = await self._networker.bring_about(now)
        await self._attacher.bring_about(now)
        now = await self._observe(self._vmis.get(key) or vmi, notes)
        if not plan.pods_to_go(now):
            notes.refused_deletion = None
            now = replace(now, undeletable=None, delete_retry_at=None)
        gate_s = await self._gatekeeper.bring_about(now)
        await self._write_status(now)
        waits_s = [s for s in (now.look_again_in_s, networks_s, gate_s) if s is not None]
        return Requeue(min(waits_s)) if waits_s else None

    def _notes_of(self, key: ObjectKey, vmi: v1.VirtualMachineInstance) -> _Notes:
        notes = self._notes.get(key)
        if notes is None or notes.uid != vmi.metadata.uid:
            self._forget(key)
            notes = self._notes[key] = _Notes(vmi.metadata.uid)
        return notes

    def _forget(self, key: ObjectKey) -> None:
        if (notes := self._notes.pop(key, None)) is not None:
            self._attacher.forget(notes.uid)
            self._definitions.forget(notes.uid)

    async def _observe(self, vmi: v1.VirtualMachineInstance, notes: _Notes) -> Observed:
        node, refused = vmi.status.node_name, notes.refused_deletion
        claims, health = await self._claims.of(vmi), await self._health.of(node)
        has_pod = any(self._pods.by_index(OWNER_INDEX, owned_key(vmi)))
        definitions = await self._definitions.of(vmi, has_pod=has_pod)
        # From here on nothing waits: between this and the request for a pod, no other instance is looked at.
        pods = tuple(self._pods.by_index(OWNER_INDEX, owned_key(vmi)))
        now = Observed(
            vmi=vmi,
            pods=pods,
            config=self._config(),
            node=health,
            at=self._clock(),
            has_successor=self._has_successor(vmi),
            attempt=notes.attempt,
            retry_at=notes.retry_at,
            failure=notes.failure,
            undeletable=_undeletable(refused),
            delete_retry_at=refused.retry_at if refused is not None else None,
            pod_created_at=notes.pod_created_at,
            node_patience_left=timedelta(seconds=self._attendance.patience_left_s(node)),
            claims=claims,
            definitions=definitions,
            rivals=() if pods or node else self._rivals_of(vmi, claimed(vmi)),
            exports={} if pods or node else self._exports(vmi),
        )
        now = replace(now, attached=self._attacher.see(now))
        if now.pod is None or not has_ended(now.pod):
            return now
        if notes.ended_pod != now.pod.metadata.uid:
            notes.ended_pod, notes.pod_end_seen_at = now.pod.metadata.uid, now.at
        return replace(now, pod_end_seen_at=notes.pod_end_seen_at)

    def _rivals_of(
        self, vmi: v1.VirtualMachineInstance, volumes: Iterable[v1.Volume]
    ) -> tuple[Rival, ...]:
        """The instances that have a claim of these volumes of this one's, and what there is of their pods."""
        rivals = []
        for other in rivals_of(self._vmis, vmi, volumes):
            pods = self._pods.by_index(OWNER_INDEX, owned_key(other))
            notes = self._notes.get(key_of(other))
            is_its = notes is not None and notes.uid == other.metadata.uid
            is_getting_pod = notes is not None and is_its and notes.is_getting_pod
            held = self._attacher.held_by(other, pods)
            rivals.append(Rival(other, bool(pods), is_getting_pod, held))
        return tuple(rivals)

    def _has_successor(self, vmi: v1.VirtualMachineInstance) -> bool:
        """Whether the machine that the instance belongs to gets another one when it is gone."""
        owner, vm = vmi.metadata.controller_reference(), self._vms.get(key_of(vmi))
        if owner is None or vm is None or owner.uid != vm.metadata.uid:
            return False
        return not vm.metadata.is_being_deleted and wants_new(vm)

    async def _carry_out(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        match action:
            case plan.CreatePod(manifest):
                await self._create_pod(manifest, now, notes)
            case plan.DeletePod(name, uid, grace_period_s):
                await self._end_pod(now.vmi, name, uid, grace_period_s, notes)
            case plan.DiscardPod(name, uid, trouble):
                await self._delete_pod(now.vmi, name, uid, 0)
                notes.attempt += 1
                self._put_off(notes, trouble)
            case plan.Finish():
                await self._finish(now, action)
            case plan.ReleaseFinalizer():
                await self._release_finalizer(now.vmi, notes)

    async def _create_pod(self, manifest: dict[str, Any], now: Observed, notes: _Notes) -> None:
        namespace, name = now.vmi.metadata.namespace, manifest["metadata"]["name"]
        notes.is_getting_pod = True
        try:
            pod = _decode_pod(await self._client.create(PODS, namespace, manifest))
        except ApiAlreadyExists:
            await self._take_over_pod(ObjectKey(namespace, name), now.vmi, notes)
            return
        except (ApiForbidden, ApiInvalid) as error:
            notes.is_getting_pod = False
            if isinstance(error, ApiForbidden) and self._follows_closely(now):
                raise  # a quota counts both pods for a moment
            text = explain("launcher pod", error)
            self._put_off(notes, Trouble(names.Reason.FAILED_CREATE, text) if text else None)
            return
        notes.pod_created_at = self._clock()
        notes.failure = notes.retry_at = None
        self._pods.learn(pod)
        notes.is_getting_pod = False
        message = f"Created virtual machine pod {name}"
        self._tell(now.vmi, events.NORMAL, EventReason.SUCCESSFUL_CREATE, message)

    def _follows_closely(self, now: Observed) -> bool:
        """The instance is new, and a pod of the one before is still on its way out."""
        created = now.vmi.metadata.creation_timestamp
        age = now.at - meta.parse_time(created) if created else timedelta(0)
        return age < _PREDECESSOR_LEAVES_WITHIN and any(
            pod.metadata.is_being_deleted and instance_of_pod(pod) == key_of(now.vmi)
            for pod in self._pods.list()
        )

    async def _take_over_pod(
        self, key: ObjectKey, vmi: v1.VirtualMachineInstance, notes: _Notes
    ) -> None:
        """The name is taken: by our own earlier attempt, unless the owner says otherwise."""
        pod = _decode_pod(await self._client.get(PODS, key))
        notes.is_getting_pod = False
        if owned_key(vmi) in owner_keys(pod):
            self._pods.learn(pod)
            return
        message = f"A pod named {key.name} exists and does not belong to this instance."
        self._put_off(notes, Trouble(names.Reason.FAILED_CREATE, message))

    def _put_off(self, notes: _Notes, trouble: Trouble | None) -> None:
        notes.failure = trouble
        notes.retry_at = self._clock() + timedelta(seconds=notes.backoff.next_s())

    async def _end_pod(
        self,
        vmi: v1.VirtualMachineInstance,
        name: str,
        uid: str,
        grace_period_s: int,
        notes: _Notes,
    ) -> None:
        """Begin the deletion of a pod that is to go with its instance. Where that is refused, it is tried again."""
        try:
            await self._delete_pod(vmi, name, uid, grace_period_s)
        except (ApiForbidden, ApiInvalid) as error:
            text = refusal("launcher pod", "deleted", error)
            refused = notes.refused_deletion = notes.refused_deletion or RefusedDeletion()
            refused.note(text, self._clock())
            return
        message = f"Deleted virtual machine pod {name}"
        self._tell(vmi, events.NORMAL, EventReason.SUCCESSFUL_DELETE, message)

    async def _delete_pod(
        self, vmi: v1.VirtualMachineInstance, name: str, uid: str, grace_period_s: int
    ) -> None:
        key = ObjectKey(vmi.metadata.namespace, name)
        try:
            answer = await self._client.delete(PODS, key, uid=uid, grace_period_s=grace_period_s)
        except ApiNotFound:
            _log.debug("pod was gone already", pod=name)
            return
        if _decode_kind(answer).kind == PODS.kind:
            # A pass that comes before the watch tells of it must not delete the pod a second time.
            self._pods.learn(_decode_pod(answer))

    async def _release_finalizer(self, vmi: v1.VirtualMachineInstance, notes: _Notes) -> None:
        if notes.released_at == vmi.metadata.resource_version:
            return  # the watch has not told of it yet, and the answer had no newer version to learn
        await release_finalizer(
            self._client, VIRTUAL_MACHINE_INSTANCES, vmi.metadata, names.VMI_FINALIZER
        )
        notes.released_at = vmi.metadata.resource_version

    async def _finish(self, now: Observed, finish: plan.Finish) -> None:
        """End the instance in its handler's place, unless the object has changed since it was decided."""
        body = status.finished(now, finish)
        try:
            await self._apply(now.vmi, body, force=True, version=now.vmi.metadata.resource_version)
        except ApiConflict:
            # The cache may stay behind for as long as its watch is down: what is there now decides the next pass.
            answer = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key_of(now.vmi))
            self._vmis.learn(_decode_vmi(answer))
            raise
        type_ = events.WARNING if finish.phase == names.Phase.FAILED else events.NORMAL
        self._tell(now.vmi, type_, EventReason.STOPPED, finish.message)

    async def _write_status(self, now: Observed) -> None:
        """Apply what the controller has to say, if a reader would see a difference."""
        body = status.status_of(now)
        if body is None or not status.has_changed(now.vmi, body):
            return
        vmi, force = now.vmi, now.node.is_silent and "phase" not in body
        try:
            await self._apply(vmi, body, force=force)
        except ApiConflict as conflict:
            fields = [cause.field for cause in conflict.causes]
            vmi, body = await self._apply_unowned(now, fields)
        # Of what was not written, every pass would tell again.
        trouble = status.new_trouble(vmi, body) if body is not None else None
        if trouble is not None:
            self._tell(now.vmi, events.WARNING, trouble["reason"], trouble["message"])

    async def _apply_unowned(
        self, now: Observed, owned_fields: list[str]
    ) -> tuple[v1.VirtualMachineInstance, status.Body | None]:
        """The handler was faster: read again, and say only what is not its to say. What was read, and what was said, if anything."""
        answer = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key_of(now.vmi))
        now = replace(now, vmi=_decode_vmi(answer))
        body = status.status_of(now)
        if body is None:
            return now.vmi, None
        body = status.without(body, [".status.phase", *owned_fields])
        if not status.has_changed(now.vmi, body):
            return now.vmi, None
        await self._apply(now.vmi, body, force=False)
        return now.vmi, body

    async def _apply(
        self, vmi: v1.VirtualMachineInstance, body: status.Body, *, force: bool, version: str = ""
    ) -> None:
        key = key_of(vmi)
        metadata = {"name": key.name, "namespace": key.namespace, "uid": vmi.metadata.uid}
        if version:
            metadata["resourceVersion"] = version
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.VIRTUAL_MACHINE_INSTANCE,
            "metadata": metadata,
            "status": body,
        }
        answer = await self._client.apply(
            VIRTUAL_MACHINE_INSTANCES,
            key,
            manifest,
            field_manager=FIELD_MANAGER,
            force=force,
            subresource="status",
        )
        self._vmis.learn(_decode_vmi(answer))

    def _tell(self, vmi: v1.VirtualMachineInstance, type_: str, reason: str, message: str) -> None:
        about = events.reference_to(VIRTUAL_MACHINE_INSTANCES, vmi)
        self._recorder.record(about, type_, reason, message)
