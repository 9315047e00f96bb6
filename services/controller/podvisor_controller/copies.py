"""Snapshots, restores and clones of machines: their controllers, and which event wakes which of them.

Invariant: an event wakes whoever may wait for it, and none of them decides by the event: they look for themselves.
"""

from collections.abc import Callable

from podvisor_common.api import core, v1
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.snapshot import (
    VirtualMachineRestore,
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
    names,
)
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.api.v1.names import VIRTUAL_MACHINE
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Controller
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.resources import ObjectKey, key_of

from podvisor_controller.caches import Caches
from podvisor_controller.clone.indexes import (
    CLONE_SOURCE_INDEX,
    CLONE_TARGET_INDEX,
    clone_of,
    source_key,
)
from podvisor_controller.clone.reconciler import CloneReconciler
from podvisor_controller.restore.indexes import RESTORED_SNAPSHOT_INDEX, TARGET_INDEX
from podvisor_controller.restore.observer import Exporting, Observer
from podvisor_controller.restore.reconciler import RestoreReconciler
from podvisor_controller.snapshot.class_reader import ClassReader
from podvisor_controller.snapshot.outline import SOURCE_INDEX, content_key, owner_of
from podvisor_controller.snapshot.reconciler import SnapshotReconciler
from podvisor_controller.vm.starts import Starts
from podvisor_controller.webhooks.defaults import ClusterDefaults

WORKERS = 2

Wake = Callable[[Controller, ObjectKey], None]


class Copies:
    """The controllers of what is made of machines, and what wakes them. `wake` enqueues in the process that leads."""

    def __init__(
        self,
        client: KubeClient,
        caches: Caches,
        *,
        classes: ClassReader,
        starts: Starts,
        exports: Exporting,
        defaults: Callable[[], ClusterDefaults],
        recorder: EventRecorder,
        wake: Wake,
    ) -> None:
        self._caches = caches
        self._wake = wake
        snapshots = SnapshotReconciler(
            client,
            snapshots=caches.snapshots,
            contents=caches.snapshot_contents,
            volume_snapshots=caches.volume_snapshots,
            restores=caches.restores,
            vms=caches.vms,
            vmis=caches.vmis,
            volume_claims=caches.volume_claims,
            classes=classes,
            recorder=recorder,
        )
        observer = Observer(
            client,
            restores=caches.restores,
            snapshots=caches.snapshots,
            contents=caches.snapshot_contents,
            volume_snapshots=caches.volume_snapshots,
            vms=caches.vms,
            vmis=caches.vmis,
            volume_claims=caches.volume_claims,
            starts=starts,
            exports=exports,
        )
        restores = RestoreReconciler(
            client,
            observer,
            restores=caches.restores,
            vms=caches.vms,
            volume_claims=caches.volume_claims,
            recorder=recorder,
        )
        clones = CloneReconciler(
            client,
            clones=caches.clones,
            snapshots=caches.snapshots,
            contents=caches.snapshot_contents,
            restores=caches.restores,
            vms=caches.vms,
            volume_claims=caches.volume_claims,
            defaults=defaults,
            recorder=recorder,
        )
        self._snapshot = Controller("snapshot", snapshots.reconcile, workers=WORKERS)
        self._restore = Controller("restore", restores.reconcile, workers=WORKERS)
        self._clone = Controller("clone", clones.reconcile, workers=WORKERS)

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """All of them."""
        return (self._snapshot, self._restore, self._clone)

    def subscribe(self) -> None:
        """From now on, be woken by what is made of machines; of machines, instances and claims the caller tells."""
        caches = self._caches
        caches.snapshots.subscribe(self._on_snapshot)
        caches.snapshot_contents.subscribe(self._on_content)
        caches.volume_snapshots.subscribe(self._on_volume_snapshot)
        caches.restores.subscribe(self._on_restore)
        caches.clones.subscribe(lambda key, _, __: self._wake(self._clone, key))

    def enqueue_everything(self) -> None:
        """Look at all there is, as who begins to lead does."""
        caches = self._caches
        for snapshot in caches.snapshots.list():
            self._snapshot.enqueue(key_of(snapshot))
        for restore in caches.restores.list():
            self._restore.enqueue(key_of(restore))
        for clone in caches.clones.list():
            self._clone.enqueue(key_of(clone))
        # Of these, some may be of snapshots and restores that went without our leave.
        for content in caches.snapshot_contents.list():
            self._snapshot.enqueue(content_key(content))
        for vm in caches.vms.list():
            for controller, key in self._lock_holders(vm):
                controller.enqueue(key)

    def on_machine(self, key: ObjectKey, vm: v1.VirtualMachine | None) -> None:
        """A machine has changed, or is gone."""
        caches = self._caches
        for snapshot in caches.snapshots.by_index(SOURCE_INDEX, str(key)):
            self._wake(self._snapshot, key_of(snapshot))
        for controller, holder in self._lock_holders(vm):
            self._wake(controller, holder)
        self.on_target(key)
        self._wake_clones_of(VIRTUAL_MACHINE, key)
        for clone in caches.clones.by_index(CLONE_TARGET_INDEX, str(key)):
            self._wake(self._clone, key_of(clone))

    def on_target(self, key: ObjectKey) -> None:
        """A machine, its instance or one of its claims has changed, which restores of it may wait for."""
        for restore in self._caches.restores.by_index(TARGET_INDEX, str(key)):
            self._wake(self._restore, key_of(restore))

    def on_claim(self, claim: core.PersistentVolumeClaim) -> None:
        """A claim has changed, or is gone."""
        name = claim.metadata.annotation(names.RESTORE_NAME_ANNOTATION)
        if name is None:
            return
        key = ObjectKey(claim.metadata.namespace, name)
        self._wake(self._restore, key)
        restore = self._caches.restores.get(key)
        if restore is not None:
            self._wake_maker_of(restore.metadata)

    def _lock_holders(self, vm: v1.VirtualMachine | None) -> list[tuple[Controller, ObjectKey]]:
        """Who has locked a machine."""
        if vm is None:
            return []
        status = vm.status
        holders = (
            (self._snapshot, status.snapshot_in_progress),
            (self._restore, status.restore_in_progress),
        )
        return [(one, ObjectKey(vm.metadata.namespace, name)) for one, name in holders if name]

    def _on_snapshot(
        self, key: ObjectKey, old: VirtualMachineSnapshot | None, new: VirtualMachineSnapshot | None
    ) -> None:
        self._wake(self._snapshot, key)
        self._wake_users_of(key)
        if (snapshot := new or old) is not None:
            self._wake_maker_of(snapshot.metadata)

    def _on_restore(
        self, key: ObjectKey, old: VirtualMachineRestore | None, new: VirtualMachineRestore | None
    ) -> None:
        self._wake(self._restore, key)
        if (restore := new or old) is not None:
            self._wake_maker_of(restore.metadata)
            # One that is to go waits for the end of the restore.
            name = restore.spec.virtual_machine_snapshot_name
            self._wake(self._snapshot, ObjectKey(key.namespace, name))

    def _on_content(
        self,
        _: ObjectKey,
        old: VirtualMachineSnapshotContent | None,
        new: VirtualMachineSnapshotContent | None,
    ) -> None:
        content = new or old
        assert content is not None
        if content.spec.volume_backups:
            self._caches.volume_snapshots.want()
        key = content_key(content)
        self._wake(self._snapshot, key)
        self._wake_users_of(key)
        snapshot = self._caches.snapshots.get(key)
        if snapshot is not None:
            self._wake_maker_of(snapshot.metadata)

    def _on_volume_snapshot(
        self, _: ObjectKey, old: VolumeSnapshot | None, new: VolumeSnapshot | None
    ) -> None:
        snapshot = new or old
        owner = owner_of(snapshot) if snapshot is not None else None
        content = self._caches.snapshot_contents.get(owner) if owner is not None else None
        if content is not None:
            self._wake(self._snapshot, content_key(content))

    def _wake_users_of(self, snapshot: ObjectKey) -> None:
        """Who makes something of a snapshot."""
        for restore in self._caches.restores.by_index(RESTORED_SNAPSHOT_INDEX, str(snapshot)):
            self._wake(self._restore, key_of(restore))
        self._wake_clones_of(names.SNAPSHOT, snapshot)

    def _wake_clones_of(self, kind: str, key: ObjectKey) -> None:
        for clone in self._caches.clones.by_index(CLONE_SOURCE_INDEX, source_key(kind, key)):
            self._wake(self._clone, key_of(clone))

    def _wake_maker_of(self, metadata: ObjectMeta) -> None:
        """The clone that a snapshot or a restore was made for."""
        clone = clone_of(metadata)
        if clone is not None:
            self._wake(self._clone, clone)
