"""The controllers of this process, the caches they read, and which event wakes which of them.

Invariant: caches are kept warm in every replica; reconciling happens only inside lead(), and ends with it.
"""

import asyncio
from importlib.metadata import version
from typing import Any, TypeVar

import structlog
from podvisor_common.aio.tasks import spawn
from podvisor_common.api import core, v1
from podvisor_common.api.pool import VirtualMachinePool
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Controller
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import ObjectKey, key_of
from podvisor_common.obs.logging import set_log_level

from podvisor_controller import config
from podvisor_controller.caches import NAMESPACE_INDEX, Caches
from podvisor_controller.capabilities import ImageVolumes
from podvisor_controller.copies import Copies
from podvisor_controller.export.controller import Exports
from podvisor_controller.installation import BadSettings, Installation
from podvisor_controller.installation_status import HANDLER
from podvisor_controller.node.attendance import Attendance
from podvisor_controller.node.health import health_of
from podvisor_controller.node.reconciler import NodeReconciler
from podvisor_controller.pool.reconciler import PoolReconciler
from podvisor_controller.replicaset.reconciler import ReplicaSetReconciler
from podvisor_controller.sets.claims import Member
from podvisor_controller.sets.selectors import matches
from podvisor_controller.settings import Settings
from podvisor_controller.snapshot.class_reader import ClassReader
from podvisor_controller.snapshot.volume_statuses import VolumeStatuses
from podvisor_controller.snapshot.volumes import MACHINES_INDEX
from podvisor_controller.vm.reconciler import VmReconciler
from podvisor_controller.vm.starts import Starts
from podvisor_controller.vmi.claim_users import freed_for, users_of
from podvisor_controller.vmi.claims import claim_key
from podvisor_controller.vmi.pod_index import instance_of_pod, launcher_of_pod
from podvisor_controller.vmi.reconciler import NODE_INDEX, VmiReconciler
from podvisor_controller.webhooks.defaults import ClusterDefaults
from podvisor_controller.webhooks.eviction_review import EvictionReviewer

COMPONENT = "virt-controller"
VM_WORKERS = 4
VMI_WORKERS = 8
SET_WORKERS = 2

S = TypeVar("S", v1.VirtualMachineInstanceReplicaSet, VirtualMachinePool)

_log = structlog.get_logger(__name__)


class Controllers:
    """Everything that reconciles, wired together."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._settings = settings
        namespace = settings.pod_namespace
        self.caches = caches = Caches(client, namespace)
        self.image_volumes = ImageVolumes(client, namespace)
        self.recorder = EventRecorder(client, COMPONENT, settings.pod_name)
        self.installation = Installation(
            client,
            settings,
            version=version("podvisor-controller"),
            config_maps=caches.config_maps,
            kubevirts=caches.kubevirts,
            handlers=lambda: caches.daemon_sets.get(ObjectKey(namespace, HANDLER)),
        )
        self.evictions = EvictionReviewer(
            client,
            pods=caches.pods,
            vmis=caches.vmis,
            cluster_strategy=lambda: self.config().eviction_strategy,
        )
        self._attendance = Attendance()
        self._classes = ClassReader(client)
        self._replica_set_reconciler = ReplicaSetReconciler(
            client, replica_sets=caches.replica_sets, vmis=caches.vmis, recorder=self.recorder
        )
        self._exports = self._exports_of(client)
        self._starts = Starts(lambda key: self._copies.on_target(key))
        self._vm = Controller("vm", self._machines(client).reconcile, workers=VM_WORKERS)
        self._vmi = Controller("vmi", self._instances(client).reconcile, workers=VMI_WORKERS)
        self._replica_set = Controller(
            "replicaset", self._replica_set_reconciler.reconcile, workers=SET_WORKERS
        )
        self._pool = Controller("pool", self._pools(client).reconcile, workers=SET_WORKERS)
        self._copies = Copies(
            client,
            caches,
            classes=self._classes,
            starts=self._starts,
            exports=self._exports.claims.exporting,
            defaults=self.admission_defaults,
            recorder=self.recorder,
            wake=self._wake,
        )
        self._node = Controller("node", self._nodes(client).reconcile, workers=1)
        self._installation = Controller("installation", self.installation.reconcile, workers=1)
        self._is_leading = False
        self._log_level = settings.log_level
        self._subscribe()

    def _machines(self, client: KubeClient) -> VmReconciler:
        caches = self.caches
        return VmReconciler(
            client,
            vms=caches.vms,
            vmis=caches.vmis,
            volume_statuses=VolumeStatuses(caches.volume_claims, self._classes),
            starts=self._starts,
            recorder=self.recorder,
        )

    def _instances(self, client: KubeClient) -> VmiReconciler:
        caches = self.caches
        return VmiReconciler(
            client,
            vms=caches.vms,
            vmis=caches.vmis,
            pods=caches.pods,
            volume_claims=caches.volume_claims,
            nodes=caches.nodes,
            attendance=self._attendance,
            exports=self._exports.claims.of,
            config=self.config,
            recorder=self.recorder,
        )

    def _pools(self, client: KubeClient) -> PoolReconciler:
        caches = self.caches
        return PoolReconciler(
            client, pools=caches.pools, vms=caches.vms, vmis=caches.vmis, recorder=self.recorder
        )

    def _exports_of(self, client: KubeClient) -> Exports:
        return Exports(
            client,
            self.caches,
            self._settings,
            config=self.config,
            recorder=self.recorder,
            wake=self._wake,
            wake_instance=lambda key: self._wake(self._vmi, key),
        )

    def _nodes(self, client: KubeClient) -> NodeReconciler:
        return NodeReconciler(
            client,
            nodes=self.caches.nodes,
            attendance=self._attendance,
            fallen_silent=self._wake_instances_on,
        )

    def config(self) -> config.ClusterConfig:
        """The cluster's settings as they are now."""
        return config.of(
            self.installation.kubevirt,
            launcher_image=self._settings.launcher_image,
            architecture=self._settings.architecture,
            image_volumes=self.image_volumes.supported,
        )

    def admission_defaults(self) -> ClusterDefaults:
        """What admission fills in, from the settings as they are now."""
        kubevirt = self.installation.kubevirt
        configuration = kubevirt.configuration if kubevirt else v1.KubeVirtConfiguration()
        return ClusterDefaults.of(configuration, self._settings.architecture)

    def not_synced(self) -> str | None:
        """A readiness check: which caches are not complete yet, or None."""
        missing = [i.resource.plural for i in self.caches if not i.synced]
        return f"waiting for the first list of {', '.join(missing)}" if missing else None

    async def watch(self) -> None:
        """Keep the caches in step and send events, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self.caches:
                spawn(group, informer.run(), name=f"informer-{informer.resource.plural}")
            spawn(group, self.caches.volume_snapshots.run(), name="informer-volumesnapshots")
            spawn(group, self.recorder.run(), name="event-recorder")

    async def lead(self) -> None:
        """Reconcile until cancelled."""
        for informer in self.caches:
            await informer.wait_synced()
        await self._settle()
        self._replica_set_reconciler.begin_term()
        self._is_leading = True
        self._enqueue_everything()
        try:
            async with asyncio.TaskGroup() as group:
                for controller in self._controllers():
                    spawn(group, controller.run(), name=f"controller-{controller.name}")
                spawn(group, self.image_volumes.run(), name="image-volume-probe")
        finally:
            self._is_leading = False

    async def _settle(self) -> None:
        """Learn and make what the first pod depends on; what fails is tried again while machines are looked after."""
        await self.image_volumes.probe()
        try:
            await self.installation.reconcile(self.installation.key)
        except (ApiError, BadSettings) as error:
            _log.warning("settings not settled yet", error=str(error))

    def _controllers(self) -> tuple[Controller, ...]:
        return (
            self._vm,
            self._vmi,
            self._replica_set,
            self._pool,
            self._exports.controller,
            *self._copies.controllers,
            self._node,
            self._installation,
        )

    def _subscribe(self) -> None:
        self.caches.vms.subscribe(self._on_machine)
        self.caches.vmis.subscribe(self._on_instance)
        self.caches.pools.subscribe(lambda key, _, __: self._wake(self._pool, key))
        self.caches.replica_sets.subscribe(lambda key, _, __: self._wake(self._replica_set, key))
        self.caches.pods.subscribe(self._on_pod)
        self._copies.subscribe()
        self.caches.volume_claims.subscribe(self._on_claim)
        self._exports.subscribe()
        self.caches.nodes.subscribe(self._on_node)
        self.caches.kubevirts.subscribe(lambda _, __, ___: self._on_settings())
        for settled in (self.caches.config_maps, self.caches.daemon_sets):
            settled.subscribe(
                lambda _, __, ___: self._wake(self._installation, self.installation.key)
            )

    def _wake(self, controller: Controller, key: ObjectKey) -> None:
        if self._is_leading:
            controller.enqueue(key)

    def _on_machine(
        self, key: ObjectKey, old: v1.VirtualMachine | None, new: v1.VirtualMachine | None
    ) -> None:
        self._wake(self._vm, key)
        self._copies.on_machine(key, new)
        for vm in (old, new):
            if vm is not None:
                self._wake_claimants(names.POOL, self.caches.pools, self._pool, vm)

    def _on_instance(
        self,
        key: ObjectKey,
        old: v1.VirtualMachineInstance | None,
        new: v1.VirtualMachineInstance | None,
    ) -> None:
        self._wake(self._vmi, key)
        for waiting in freed_for(self.caches.vmis, old, new):
            self._wake(self._vmi, waiting)
        self._copies.on_target(key)
        # A machine's instance has its name, and one that has it without being its own matters to it as well.
        vm = self.caches.vms.get(key)
        if vm is not None:
            self._wake(self._vm, key)
            owner = vm.metadata.controller_reference()
            if owner is not None and owner.kind == names.POOL:
                self._wake(self._pool, ObjectKey(key.namespace, owner.name))
        for vmi in (old, new):
            if vmi is not None:
                self._wake_claimants(
                    names.REPLICA_SET, self.caches.replica_sets, self._replica_set, vmi
                )

    def _wake_claimants(
        self, kind: str, sets: Informer[S], controller: Controller, member: Member
    ) -> None:
        """The set of that kind that manages the object or, where nobody does, those that would have it."""
        namespace, owner = member.metadata.namespace, member.metadata.controller_reference()
        if owner is not None:
            if owner.kind == kind:
                self._wake(controller, ObjectKey(namespace, owner.name))
            return
        for claimant in sets.by_index(NAMESPACE_INDEX, namespace):
            if matches(claimant.spec.selector, member.metadata.labels):
                self._wake(controller, key_of(claimant))

    def _on_pod(self, _: ObjectKey, old: core.Pod | None, new: core.Pod | None) -> None:
        for pod in (old, new):
            key = launcher_of_pod(pod) if pod is not None else None
            launcher = self.caches.pods.get(key) if key is not None else pod
            owner = instance_of_pod(launcher) if launcher is not None else None
            if owner is not None:
                self._wake(self._vmi, owner)

    def _on_claim(
        self,
        key: ObjectKey,
        old: core.PersistentVolumeClaim | None,
        new: core.PersistentVolumeClaim | None,
    ) -> None:
        for user in users_of(self.caches.vmis, key):
            self._wake(self._vmi, user)
        if old is None or new is None:
            for vm in self.caches.vms.by_index(MACHINES_INDEX, claim_key(*key)):
                self._wake(self._vm, key_of(vm))
                self._copies.on_target(key_of(vm))
        for claim in (old, new):
            if claim is not None:
                self._copies.on_claim(claim)

    def _on_node(self, key: ObjectKey, old: core.Node | None, new: core.Node | None) -> None:
        attendance = self._attendance
        was_attended, was_due = (
            attendance.is_attended(key.name),
            attendance.look_again_in_s(key.name),
        )
        if new is None:
            attendance.forget(key.name)
        else:
            attendance.saw(new)
        if was_due is None:
            self._wake(self._node, key)
        is_back = attendance.is_attended(key.name) and not was_attended
        if old is None or new is None or is_back or health_of(old) is not health_of(new):
            self._wake_instances_on(key.name)

    def _wake_instances_on(self, node: str) -> None:
        for vmi in self.caches.vmis.by_index(NODE_INDEX, node):
            self._wake(self._vmi, key_of(vmi))

    def _on_settings(self) -> None:
        level = "DEBUG" if self.config().debug_controller else self._settings.log_level
        if level != self._log_level:
            self._log_level = level
            set_log_level(level)
        self._wake(self._installation, self.installation.key)
        for vmi in self.caches.vmis.list():
            if not vmi.status.node_name:
                self._wake(self._vmi, key_of(vmi))

    def _enqueue_everything(self) -> None:
        caches = self.caches
        every: tuple[tuple[Controller, Informer[Any]], ...] = (
            (self._vm, caches.vms),
            (self._vmi, caches.vmis),
            (self._replica_set, caches.replica_sets),
            (self._pool, caches.pools),
            (self._exports.controller, caches.exports),
            (self._node, caches.nodes),
        )
        for controller, informer in every:
            for obj in informer.list():
                controller.enqueue(key_of(obj))
        self._copies.enqueue_everything()
        self._installation.enqueue(self.installation.key)
