"""Observes VirtualMachineRestores: from the caches and, for what these do not have or may not have heard of yet, the API server.

Invariant: decides nothing, and writes nothing to the cluster. What has to be asked for is read first, the caches last, in one go.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
from podvisor_common.api import core, meta, v1
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
)
from podvisor_common.api.snapshot.names import LAST_RESTORE_ANNOTATION
from podvisor_common.api.storage import StorageClass, VolumeSnapshot
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    SNAPSHOT_CONTENTS,
    STORAGE_CLASSES,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    key_of,
)

from podvisor_controller.restore import machine
from podvisor_controller.restore.indexes import MARK_INDEX, OVERLAID_INDEX
from podvisor_controller.restore.observed import Observed
from podvisor_controller.snapshot.observed import content_name
from podvisor_controller.snapshot.volume_snapshots import VolumeSnapshots
from podvisor_controller.snapshot.volumes import MACHINES_INDEX
from podvisor_controller.user_pods import UserPod, pages_of_pods
from podvisor_controller.vm.starts import Starts
from podvisor_controller.vmi.claim_users import users_of
from podvisor_controller.vmi.claims import claim_key

# Which export serves a claim; None when none does.
Exporting = Callable[[ObjectKey], ObjectKey | None]

_WAITS = "WaitForFirstConsumer"

_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_decode_content = msgspec.json.Decoder(VirtualMachineSnapshotContent).decode
_decode_class = msgspec.json.Decoder(StorageClass).decode


@dataclass(slots=True)
class Notes:
    """What is remembered of one restore from pass to pass, for a person: what was refused last, and what was for good."""

    uid: str
    refusal: str = ""
    verdict: str = ""
    content: VirtualMachineSnapshotContent | None = None
    # Of the restore's patches to what `content` kept, once it is known.
    patch_fault: str | None = None


class Observer:
    """Observes restores with what they depend on. `restores` has the index MARK_INDEX, `vms` the indexes MACHINES_INDEX and OVERLAID_INDEX, `vmis` USERS_INDEX."""

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
        self._clock = clock

    async def observe(
        self, known: VirtualMachineRestore, notes: Notes, *, surely: bool = False
    ) -> Observed:
        """The restore and its surroundings. `surely`, where claims go on the strength of it: by the API server's word."""
        now = self._look(known, notes)
        if now.is_over or (now.is_deleting and not now.is_restored):
            notes.content = None
            return now
        pods: list[UserPod] = []
        if surely:
            notes.content = None
            await self._look_for_instance(now)
            pods = await self._pods_beside(known)
        now = replace(now, content=await self._content(now.snapshot, notes))
        now = self._look(known, notes, now)
        if now.is_restored:
            return now
        late = [c.metadata.name for c in now.made if await self._waits_for_guest(c)]
        found = await self._volume_snapshots_for(now, surely=surely)
        now = replace(now, volume_snapshots=found, late_bound=frozenset(late))
        # What waited may have changed what the caches have.
        return self._look(known, notes, now, pods)

    def _look(
        self,
        known: VirtualMachineRestore,
        notes: Notes,
        before: Observed | None = None,
        pods: Sequence[UserPod] = (),
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
            last_restore=self._last_restore(key),
            is_starting=self._starts.is_under_way(key),
            snapshot=self._snapshots.get(_snapshot_key(restore)),
            refusal=notes.refusal,
            verdict=notes.verdict,
        )
        now = replace(
            now,
            source_lives=self._source_lives(now),
            patch_fault=_patch_fault(now, notes),
            volume_claims=self._claims_of(now),
        )
        wanted = {claim.metadata.name: claim for claim in now.replaced}
        others = {
            name: self._other_user(now, claim) or _pod_with(name, pods, namespace)
            for name, claim in wanted.items()
        }
        return replace(now, other_users={claim: user for claim, user in others.items() if user})

    def _last_restore(self, target: ObjectKey) -> VirtualMachineRestore | None:
        """The restore that the target is the work of."""
        vm = self._vms.get(target)
        mark = vm.metadata.annotation(LAST_RESTORE_ANNOTATION) if vm is not None else None
        found = self._restores.by_index(MARK_INDEX, mark) if mark else ()
        return next((one for one in found if one.metadata.namespace == target.namespace), None)

    async def _look_for_instance(self, now: Observed) -> None:
        """Know the target's instance if there is one: after a lost answer it may be there before the cache tells."""
        if now.target is None:
            return
        try:
            answer = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key_of(now.target))
        except ApiNotFound:
            return
        self._vmis.learn(_decode_vmi(answer))

    async def _pods_beside(self, restore: VirtualMachineRestore) -> list[UserPod]:
        """The pods of its namespace that have claims."""
        pages = pages_of_pods(self._client, restore.metadata.namespace)
        return [pod async for page in pages for pod in page if pod.claims()]

    async def _waits_for_guest(self, claim: core.PersistentVolumeClaim) -> bool:
        """The claim gets its volume when a pod has it, and not before."""
        name = claim.spec.storage_class_name
        if claim.is_bound or not name:
            return False
        try:
            answer = await self._client.get(STORAGE_CLASSES, ObjectKey("", name))
        except ApiNotFound:
            return False
        return _decode_class(answer).volume_binding_mode == _WAITS

    async def _volume_snapshots_for(
        self, now: Observed, *, surely: bool
    ) -> dict[str, VolumeSnapshot]:
        """What there is that claims can be made from."""
        if not (now.has_begun or now.is_kept):
            return {}
        find = self._volume_snapshots.ask if surely else self._volume_snapshots.find
        found: dict[str, VolumeSnapshot] = {}
        for volume in now.unmade:
            name = volume.volume_snapshot_name
            if one := await find(ObjectKey(now.restore.metadata.namespace, name)):
                found[name] = one
        return found

    async def _content(
        self, snapshot: VirtualMachineSnapshot | None, notes: Notes
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


def _pod_with(claim: str, pods: Iterable[UserPod], namespace: str) -> str:
    """Which pod has the claim, for a person: who only reads it counts as well, for what it reads would be gone."""
    user = next((pod for pod in pods if claim in pod.claims()), None)
    return "" if user is None else f"Pod {namespace}/{user.metadata.name}"


def _snapshot_key(restore: VirtualMachineRestore) -> ObjectKey:
    return ObjectKey(restore.metadata.namespace, restore.spec.virtual_machine_snapshot_name)


def _patch_fault(now: Observed, notes: Notes) -> str:
    """Why no new target can be made. There may be many patches: they are tried once."""
    if now.target is not None or now.kept is None:
        return ""
    if notes.patch_fault is None:
        notes.patch_fault = machine.patch_fault(now.restore, now.kept, now.volumes)
    return notes.patch_fault
