"""Brings VirtualMachineExports to what they ask for: reads the caches, asks plan and status, does what they say.

Invariant: decides nothing. What it remembers of an export (Notes) only saves work or tells why something was refused: when it is lost,
the next pass finds the same state again. The queue owns retries.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import msgspec
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import core, meta
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.export.names import EventReason, SourceKind
from podvisor_common.api.snapshot import VirtualMachineSnapshotContent
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiForbidden,
    ApiInvalid,
    ApiNotFound,
)
from podvisor_common.kube.resources import (
    EXPORTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VOLUME_SNAPSHOTS,
    ObjectKey,
    key_of,
)

from podvisor_controller.caches import Caches
from podvisor_controller.config import ClusterConfig
from podvisor_controller.export import plan, sources, users
from podvisor_controller.export.authority import Authority
from podvisor_controller.export.holders import ExportedClaims
from podvisor_controller.export.identity import (
    expires_at,
    identity_secret_name,
    pod_name,
    token_secret_name,
)
from podvisor_controller.export.makers import InTheWay, Makers, check_owner
from podvisor_controller.export.manifests import restored_claim
from podvisor_controller.export.observed import LOOK_AGAIN, Observed
from podvisor_controller.export.pod import render_pod
from podvisor_controller.export.sources import Source
from podvisor_controller.export.status import status_of
from podvisor_controller.pauses import retry_backoff
from podvisor_controller.refusals import refusal
from podvisor_controller.snapshot.outline import claim_of
from podvisor_controller.snapshot.volumes import MACHINES_INDEX
from podvisor_controller.status_patch import patch_of
from podvisor_controller.status_writer import write_status
from podvisor_controller.user_pods import pages_of_pods
from podvisor_controller.vmi.claim_users import USERS_INDEX
from podvisor_controller.vmi.claims import claim_key

# After the end of an export, with which its pod is deleted, it ends by itself even if nobody does that.
_BACKSTOP = timedelta(seconds=30)


_decode_export = msgspec.json.Decoder(VirtualMachineExport).decode
_decode_pod = msgspec.json.Decoder(core.Pod).decode
_decode_claim = msgspec.json.Decoder(core.PersistentVolumeClaim).decode


@dataclass(slots=True)
class _Notes:
    """What is remembered of one export."""

    uid: str
    trouble: str = ""
    retry_at: datetime | None = None
    furnished_pod: str = ""
    is_token_begun: bool = False
    token_seen_at: datetime | None = None
    backoff: Backoff = field(default_factory=retry_backoff)

    def refused(self, why: str, at: datetime) -> None:
        """Something cannot be done as things are: it is tried again later, each time after a longer pause."""
        self.trouble = why
        self.retry_at = at + timedelta(seconds=self.backoff.next_s())


class ExportReconciler:
    """Reconciles exports with the pods that serve them, which run in `image`."""

    def __init__(
        self,
        client: KubeClient,
        caches: Caches,
        *,
        authority: Authority,
        claims: ExportedClaims,
        config: Callable[[], ClusterConfig],
        image: str,
        recorder: events.EventRecorder,
        clock: Callable[[], datetime] = meta.now,
    ) -> None:
        self._client = client
        self._caches = caches
        self._authority = authority
        self._makers = Makers(client, authority)
        self._claims = claims
        self._config = config
        self._image = image
        self._recorder = recorder
        self._clock = clock
        self._notes: dict[ObjectKey, _Notes] = {}

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Bring one export a step nearer to what it asks for. Called again on every change of it, its pod and its source."""
        export = self._caches.exports.get(key)
        if export is None or export.metadata.is_being_deleted:
            self._notes.pop(key, None)
            return None
        notes = self._notes.get(key)
        if notes is None or notes.uid != export.metadata.uid:
            notes = self._notes[key] = _Notes(export.metadata.uid)
        now = await self._observe(export, notes)
        for action in plan.plan(now):
            if isinstance(action, plan.DeleteExport):
                await self._delete_export(export)
                return None
            if not await self._attempt(action, now, notes):
                break
        now = self._look(self._caches.exports.get(key) or export, notes, now)
        await self._write_status(now)
        return Requeue(now.look_again_in.total_seconds())

    async def _observe(self, export: VirtualMachineExport, notes: _Notes) -> Observed:
        """The export and its surroundings, users of its claims included."""
        now = self._look(export, notes)
        if now.is_over:
            return now
        if now.own_pod is not None:
            now = replace(now, authority=await self._authority.bundle())
        if not now.needs_users:
            return now
        in_the_way = await self._pod_in_the_way(now)
        # What waited may have changed what the caches have.
        now = self._look(export, notes, now)
        if not in_the_way and now.own_pod is None:
            in_the_way = self._machine_in_the_way(now)
        return replace(now, users=in_the_way)

    async def _pod_in_the_way(self, now: Observed) -> str:
        claims = {volume.claim.metadata.name for volume in now.source.volumes}
        async for page in pages_of_pods(self._client, now.export.metadata.namespace):
            if told := users.pod_in_the_way(page, claims, now.export):
                return told
        return ""

    def _look(
        self, export: VirtualMachineExport, notes: _Notes, before: Observed | None = None
    ) -> Observed:
        """What caches and notes say; what else is known from `before`. Waits for nothing."""
        pod = self._caches.pods.get(ObjectKey(export.metadata.namespace, pod_name(export)))
        now = Observed(
            export=export,
            at=self._clock(),
            source=sources.UNKNOWN,
            pod=pod,
            users=before.users if before is not None else "",
            authority=before.authority if before is not None else b"",
            trouble=notes.trouble,
            retry_at=notes.retry_at,
            is_furnished=pod is not None and notes.furnished_pod == pod.metadata.uid,
            is_token_begun=notes.is_token_begun,
        )
        return replace(now, source=self._source(export, has_pod=now.own_pod is not None))

    def _source(self, export: VirtualMachineExport, *, has_pod: bool) -> Source:
        caches, source = self._caches, export.spec.source
        key = ObjectKey(export.metadata.namespace, source.name)

        def find(name: str) -> core.PersistentVolumeClaim | None:
            return caches.volume_claims.get(ObjectKey(key.namespace, name))

        match source.kind:
            case SourceKind.CLAIM:
                return sources.of_claim(export, find)
            case SourceKind.MACHINE:
                # An instance that comes later waits for the end of the export.
                vmi = None if has_pod else caches.vmis.get(key)
                return sources.of_machine(export, caches.vms.get(key), vmi, find)
            case SourceKind.SNAPSHOT:
                return sources.of_snapshot(
                    export, caches.snapshots.get(key), self._content_of(export), find
                )
        return sources.UNKNOWN

    def _content_of(self, export: VirtualMachineExport) -> VirtualMachineSnapshotContent | None:
        """What the snapshot has kept that is exported, in outline; None where no snapshot is."""
        source, namespace = export.spec.source, export.metadata.namespace
        if source.kind != SourceKind.SNAPSHOT:
            return None
        snapshot = self._caches.snapshots.get(ObjectKey(namespace, source.name))
        name = snapshot.status.virtual_machine_snapshot_content_name if snapshot else None
        return self._caches.snapshot_contents.get(ObjectKey(namespace, name)) if name else None

    def _machine_in_the_way(self, now: Observed) -> str:
        """Which machine has one of the claims, or is about to. Waits for nothing."""
        export, namespace = now.export, now.export.metadata.namespace
        for volume in now.source.volumes:
            claim = volume.claim.metadata.name
            key = claim_key(namespace, claim)
            instances = self._caches.vmis.by_index(USERS_INDEX, key)
            machines = [
                vm
                for vm in self._caches.vms.by_index(MACHINES_INDEX, key)
                if (vmi := self._caches.vmis.get(key_of(vm))) is None or vmi.is_final
            ]
            why = users.instance_in_the_way(claim, instances, export)
            if why := why or users.machine_in_the_way(claim, machines, export):
                return why
        return ""

    async def _attempt(self, action: plan.Action, now: Observed, notes: _Notes) -> bool:
        """Carry it out; whether that was possible. What is refused is told of, and tried again later."""
        try:
            await self._carry_out(action, now, notes)
        except InTheWay as error:
            notes.refused(str(error), self._clock())
        except (ApiForbidden, ApiInvalid) as error:
            what = type(action).__name__.removeprefix("Create").removeprefix("Ensure")
            notes.refused(refusal(f"{what.lower()} of the export", "made", error), self._clock())
        else:
            return True
        return False

    async def _carry_out(self, action: plan.Action, now: Observed, notes: _Notes) -> None:
        export, name = now.export, pod_name(now.export)
        match action:
            case plan.EnsureService():
                if await self._makers.service(export):
                    key = ObjectKey(export.metadata.namespace, name)
                    self._tell(export, EventReason.SERVICE_CREATED, f"Created service {key}")
            case plan.EnsureToken():
                await self._ensure_token(now, notes)
            case plan.RestoreClaims(claims):
                await self._restore(export, claims)
            case plan.CreatePod():
                await self._create_pod(now, notes)
            case plan.FurnishPod():
                await self._furnish(now, notes)
            case plan.DeletePod():
                await self._delete_pod(action, now, notes)

    async def _ensure_token(self, now: Observed, notes: _Notes) -> None:
        """Nobody tells when it is deleted. Where a predecessor's is about to go, it is made by a later pass."""
        export = now.export
        if export.spec.token_secret_ref is not None:
            return
        # Passes that follow one another at once do not ask again, those that time alone brings about do.
        if notes.token_seen_at is not None and now.at < notes.token_seen_at + LOOK_AGAIN / 2:
            return
        if await self._is_token_there(export, is_own=now.has_token):
            notes.token_seen_at = now.at
            return
        begun_before, notes.is_token_begun = notes.is_token_begun, True
        try:
            is_made = await self._makers.token(export)
        except (ApiForbidden, ApiInvalid):
            notes.is_token_begun = begun_before
            raise
        if not is_made and not now.has_token:
            notes.is_token_begun = False
            raise _token_in_the_way(export)
        notes.token_seen_at = now.at
        if is_made:
            self._tell(export, EventReason.SECRET_CREATED, "Created default secret")

    async def _is_token_there(self, export: VirtualMachineExport, *, is_own: bool) -> bool:
        """Raises InTheWay where there is one before any was made: it would be served with a token that somebody else knows."""
        try:
            is_there = await self._makers.is_token_name_taken(export)
        except ApiForbidden:
            # A quota that is used up says nothing of what was made before.
            if is_own:
                return True
            raise
        if is_there and not is_own:
            raise _token_in_the_way(export)
        return is_there

    async def _create_pod(self, now: Observed, notes: _Notes) -> None:
        export = now.export
        deadline = min(expires_at(export) + _BACKSTOP, await self._authority.lasts_until())
        manifest = render_pod(
            export,
            now.source.volumes,
            image=self._image,
            pull_policy=self._config().image_pull_policy,
            deadline=deadline,
            identity=identity_secret_name(export, now.at),
        )
        # Between this and the request nothing waits: no machine gets a claim meanwhile.
        if self._machine_in_the_way(now):
            return
        claims = [volume.claim.metadata.name for volume in now.source.volumes]
        with self._claims.asking_for(key_of(export), claims):
            try:
                answer = await self._client.create(PODS, export.metadata.namespace, manifest)
            except ApiAlreadyExists:
                # By our own earlier attempt or an earlier leader's, or somebody else's: it says whose it is.
                key = ObjectKey(export.metadata.namespace, pod_name(export))
                answer = await self._client.get(PODS, key)
                name = f"A Pod named {key.name}"
                check_owner(_decode_pod(answer).metadata, export, name)
            self._caches.pods.learn(_decode_pod(answer))
        notes.trouble, notes.retry_at = "", None
        message = f"Created exporter pod {export.metadata.namespace}/{pod_name(export)}"
        self._tell(export, EventReason.POD_CREATED, message)
        await self._furnish(self._look(export, notes, now), notes)

    async def _furnish(self, now: Observed, notes: _Notes) -> None:
        pod = now.own_pod
        if pod is None:
            return
        content = self._content_of(now.export)
        name = content.metadata.name if content is not None else None
        if await self._makers.identity(now.export, pod, name):
            message = "Created exporter pod secret"
            self._tell(now.export, EventReason.SECRET_CREATED, message)
        notes.furnished_pod = pod.metadata.uid
        notes.trouble, notes.retry_at = "", None

    async def _delete_pod(self, action: plan.DeletePod, now: Observed, notes: _Notes) -> None:
        key = ObjectKey(now.export.metadata.namespace, pod_name(now.export))
        try:
            answer = await self._client.delete(PODS, key, uid=action.uid)
        except ApiNotFound:
            return
        deleted = msgspec.json.decode(answer, type=meta.TypeMeta)
        if deleted.kind == PODS.kind:
            self._caches.pods.learn(_decode_pod(answer))
        if action.is_failure:
            notes.refused(now.ended_because, self._clock())
        about = events.reference_to(EXPORTS, now.export)
        self._recorder.record(about, events.WARNING, action.reason, action.message)

    async def _restore(self, export: VirtualMachineExport, claims: tuple[str, ...]) -> None:
        """Make claims from what there is of them in the snapshot."""
        outline = self._content_of(export)
        if outline is None:
            return
        namespace = export.metadata.namespace
        content = await self._makers.content(namespace, outline.metadata.name)
        for backup in content.spec.volume_backups or ():
            name = backup.volume_snapshot_name
            if claim_of(backup)[0] not in claims or name is None:
                continue
            kept = await self._caches.volume_snapshots.find(ObjectKey(namespace, name))
            if kept is None:
                raise InTheWay(f"{VOLUME_SNAPSHOTS.kind} {name} does not exist any more.")
            manifest = restored_claim(export, backup, kept.status.restore_size)
            key = ObjectKey(namespace, manifest["metadata"]["name"])
            try:
                answer = await self._client.create(PERSISTENT_VOLUME_CLAIMS, namespace, manifest)
            except ApiAlreadyExists:
                answer = await self._client.get(PERSISTENT_VOLUME_CLAIMS, key)
            self._caches.volume_claims.learn(_decode_claim(answer))

    async def _delete_export(self, export: VirtualMachineExport) -> None:
        try:
            await self._client.delete(EXPORTS, key_of(export), uid=export.metadata.uid)
        except ApiNotFound:
            return

    async def _write_status(self, now: Observed) -> None:
        """Patch the status if a reader would see a difference. ApiConflict when the export has changed meanwhile."""
        export = now.export
        patch = patch_of(export.status, status_of(now))
        await write_status(self._client, self._caches.exports, _decode_export, export, patch)

    def _tell(self, export: VirtualMachineExport, reason: str, message: str) -> None:
        about = events.reference_to(EXPORTS, export)
        self._recorder.record(about, events.NORMAL, reason, message)


def _token_in_the_way(export: VirtualMachineExport) -> InTheWay:
    name = token_secret_name(export)
    return InTheWay(f"A Secret named {name} exists and was not made for this export.")
