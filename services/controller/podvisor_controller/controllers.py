"""The controllers of this process, the caches they read, and which event wakes which of them.

Invariant: caches are kept warm in every replica; reconciling happens only inside lead(), and ends with it.
"""

import asyncio
from importlib.metadata import version

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
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    DAEMONSETS,
    KUBEVIRTS,
    NODES,
    PODS,
    POOLS,
    REPLICA_SETS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    key_of,
)
from podvisor_common.obs.logging import set_log_level

from podvisor_controller import config
from podvisor_controller.capabilities import ImageVolumes
from podvisor_controller.installation import CONFIG_MAP_NAME, BadSettings, Installation
from podvisor_controller.installation_status import HANDLER
from podvisor_controller.node.attendance import Attendance
from podvisor_controller.node.health import health_of
from podvisor_controller.node.reconciler import NodeReconciler
from podvisor_controller.pool.reconciler import PoolReconciler
from podvisor_controller.replicaset.reconciler import ReplicaSetReconciler
from podvisor_controller.sets.claims import CLAIM_INDEX, claimable
from podvisor_controller.sets.selectors import matches
from podvisor_controller.settings import Settings
from podvisor_controller.vm.reconciler import VmReconciler
from podvisor_controller.vmi.outline import outline
from podvisor_controller.vmi.reconciler import (
    NODE_INDEX,
    OWNER_INDEX,
    VmiReconciler,
    instance_keys,
    instance_of_pod,
    node_names,
)
from podvisor_controller.webhooks.defaults import ClusterDefaults
from podvisor_controller.webhooks.eviction_review import EvictionReviewer

COMPONENT = "virt-controller"
VM_WORKERS = 4
VMI_WORKERS = 8
REPLICA_SET_WORKERS = 2
POOL_WORKERS = 2

_log = structlog.get_logger(__name__)


class Controllers:
    """Everything that reconciles, wired together."""

    def __init__(self, client: KubeClient, settings: Settings) -> None:
        self._settings = settings
        namespace = settings.pod_namespace
        self.vms = Informer(
            client,
            VIRTUAL_MACHINES,
            v1.VirtualMachine,
            indexers={CLAIM_INDEX: claimable(names.POOL)},
        )
        self.vmis = Informer(
            client,
            VIRTUAL_MACHINE_INSTANCES,
            v1.VirtualMachineInstance,
            indexers={NODE_INDEX: node_names, CLAIM_INDEX: claimable(names.REPLICA_SET)},
        )
        self.replica_sets = Informer(client, REPLICA_SETS, v1.VirtualMachineInstanceReplicaSet)
        self.pools = Informer(client, POOLS, VirtualMachinePool)
        self.pods = Informer(
            client,
            PODS,
            core.Pod,
            label_selector=f"{names.APP_LABEL}={names.LAUNCHER_APP}",
            indexers={OWNER_INDEX: instance_keys},
            keep=outline,
        )
        self.nodes = Informer(client, NODES, core.Node)
        self.kubevirts = Informer(client, KUBEVIRTS, v1.KubeVirt, namespace=namespace)
        self.config_maps = Informer(
            client,
            CONFIGMAPS,
            core.ConfigMap,
            namespace=namespace,
            field_selector=f"metadata.name={CONFIG_MAP_NAME}",
        )
        self.daemon_sets = Informer(
            client,
            DAEMONSETS,
            core.DaemonSet,
            namespace=namespace,
            field_selector=f"metadata.name={HANDLER}",
        )
        self.image_volumes = ImageVolumes(client, namespace)
        self.recorder = EventRecorder(client, COMPONENT, settings.pod_name)
        self.installation = Installation(
            client,
            settings,
            version=version("podvisor-controller"),
            config_maps=self.config_maps,
            kubevirts=self.kubevirts,
            handlers=lambda: self.daemon_sets.get(ObjectKey(namespace, HANDLER)),
            image_volumes=lambda: self.image_volumes.supported,
        )
        self.evictions = EvictionReviewer(
            client,
            pods=self.pods,
            vmis=self.vmis,
            cluster_strategy=lambda: self.config().eviction_strategy,
        )
        self._attendance = Attendance()
        nodes = NodeReconciler(
            client,
            nodes=self.nodes,
            attendance=self._attendance,
            fallen_silent=self._wake_instances_on,
        )
        machines = VmReconciler(client, vms=self.vms, vmis=self.vmis, recorder=self.recorder)
        instances = VmiReconciler(
            client,
            vms=self.vms,
            vmis=self.vmis,
            pods=self.pods,
            nodes=self.nodes,
            attendance=self._attendance,
            config=self.config,
            recorder=self.recorder,
        )
        self._replica_set_reconciler = ReplicaSetReconciler(
            client, replica_sets=self.replica_sets, vmis=self.vmis, recorder=self.recorder
        )
        self._replica_set = Controller(
            "replicaset", self._replica_set_reconciler.reconcile, workers=REPLICA_SET_WORKERS
        )
        pools = PoolReconciler(
            client, pools=self.pools, vms=self.vms, vmis=self.vmis, recorder=self.recorder
        )
        self._pool = Controller("pool", pools.reconcile, workers=POOL_WORKERS)
        self._vm = Controller("vm", machines.reconcile, workers=VM_WORKERS)
        self._vmi = Controller("vmi", instances.reconcile, workers=VMI_WORKERS)
        self._node = Controller("node", nodes.reconcile, workers=1)
        self._installation = Controller("installation", self.installation.reconcile, workers=1)
        self._is_leading = False
        self._log_level = settings.log_level
        self._subscribe()

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
        missing = [i.resource.plural for i in self._informers() if not i.synced]
        return f"waiting for the first list of {', '.join(missing)}" if missing else None

    async def watch(self) -> None:
        """Keep the caches in step and send events, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers():
                spawn(group, informer.run(), name=f"informer-{informer.resource.plural}")
            spawn(group, self.recorder.run(), name="event-recorder")

    async def lead(self) -> None:
        """Reconcile until cancelled."""
        for informer in self._informers():
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
            self._node,
            self._installation,
        )

    def _informers(
        self,
    ) -> tuple[
        Informer[v1.VirtualMachine],
        Informer[v1.VirtualMachineInstance],
        Informer[v1.VirtualMachineInstanceReplicaSet],
        Informer[VirtualMachinePool],
        Informer[core.Pod],
        Informer[core.Node],
        Informer[v1.KubeVirt],
        Informer[core.ConfigMap],
        Informer[core.DaemonSet],
    ]:
        return (
            self.vms,
            self.vmis,
            self.replica_sets,
            self.pools,
            self.pods,
            self.nodes,
            self.kubevirts,
            self.config_maps,
            self.daemon_sets,
        )

    def _subscribe(self) -> None:
        self.vms.subscribe(self._on_machine)
        self.vmis.subscribe(self._on_instance)
        self.pools.subscribe(lambda key, _, __: self._wake(self._pool, key))
        self.replica_sets.subscribe(lambda key, _, __: self._wake(self._replica_set, key))
        self.pods.subscribe(self._on_pod)
        self.nodes.subscribe(self._on_node)
        self.kubevirts.subscribe(lambda _, __, ___: self._on_settings())
        for settled in (self.config_maps, self.daemon_sets):
            settled.subscribe(
                lambda _, __, ___: self._wake(self._installation, self.installation.key)
            )
        self.image_volumes.subscribe(self._on_settings)

    def _wake(self, controller: Controller, key: ObjectKey) -> None:
        if self._is_leading:
            controller.enqueue(key)

    def _on_machine(
        self, key: ObjectKey, old: v1.VirtualMachine | None, new: v1.VirtualMachine | None
    ) -> None:
        self._wake(self._vm, key)
        for vm in (old, new):
            if vm is not None:
                self._wake_pools_of(vm)

    def _wake_pools_of(self, vm: v1.VirtualMachine) -> None:
        """The pool that manages the machine, or those that would have it."""
        namespace, owner = vm.metadata.namespace, vm.metadata.controller_reference()
        if owner is not None:
            if owner.kind == names.POOL:
                self._wake(self._pool, ObjectKey(namespace, owner.name))
            return
        for pool in self.pools.list():
            is_near = pool.metadata.namespace == namespace
            if is_near and matches(pool.spec.selector, vm.metadata.labels):
                self._wake(self._pool, key_of(pool))

    def _on_instance(
        self,
        key: ObjectKey,
        old: v1.VirtualMachineInstance | None,
        new: v1.VirtualMachineInstance | None,
    ) -> None:
        self._wake(self._vmi, key)
        # A machine's instance has its name, and one that has it without being its own matters to it as well.
        vm = self.vms.get(key)
        if vm is not None:
            self._wake(self._vm, key)
            owner = vm.metadata.controller_reference()
            if owner is not None and owner.kind == names.POOL:
                self._wake(self._pool, ObjectKey(key.namespace, owner.name))
        for vmi in (old, new):
            if vmi is not None:
                self._wake_replica_sets_of(vmi)

    def _wake_replica_sets_of(self, vmi: v1.VirtualMachineInstance) -> None:
        """The set that manages the instance, or those that would have it."""
        namespace, owner = vmi.metadata.namespace, vmi.metadata.controller_reference()
        if owner is not None:
            if owner.kind == names.REPLICA_SET:
                self._wake(self._replica_set, ObjectKey(namespace, owner.name))
            return
        for replica_set in self.replica_sets.list():
            selector = replica_set.spec.selector
            if replica_set.metadata.namespace == namespace and matches(
                selector, vmi.metadata.labels
            ):
                self._wake(self._replica_set, key_of(replica_set))

    def _on_pod(self, _: ObjectKey, old: core.Pod | None, new: core.Pod | None) -> None:
        for pod in (old, new):
            owner = instance_of_pod(pod) if pod is not None else None
            if owner is not None:
                self._wake(self._vmi, owner)

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
        for vmi in self.vmis.by_index(NODE_INDEX, node):
            self._wake(self._vmi, key_of(vmi))

    def _on_settings(self) -> None:
        level = "DEBUG" if self.config().debug_controller else self._settings.log_level
        if level != self._log_level:
            self._log_level = level
            set_log_level(level)
        self._wake(self._installation, self.installation.key)
        for vmi in self.vmis.list():
            if not vmi.status.node_name:
                self._wake(self._vmi, key_of(vmi))

    def _enqueue_everything(self) -> None:
        for vm in self.vms.list():
            self._vm.enqueue(key_of(vm))
        for vmi in self.vmis.list():
            self._vmi.enqueue(key_of(vmi))
        for replica_set in self.replica_sets.list():
            self._replica_set.enqueue(key_of(replica_set))
        for pool in self.pools.list():
            self._pool.enqueue(key_of(pool))
        for node in self.nodes.list():
            self._node.enqueue(key_of(node))
        self._installation.enqueue(self.installation.key)
