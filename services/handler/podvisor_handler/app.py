"""Puts the handler together: caches, launchers, reconcilers, sockets, device plugins, heartbeat.

Invariant: it lists and watches only its own node's instances, their launcher pods and the pods that hold volumes for them,
selected by the API server, and reads no Secret.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import structlog
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor_common.aio.backoff import Backoff
from podvisor_common.aio.tasks import spawn
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.http.server import serve_http
from podvisor_common.inotify import Inotify
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Controller
from podvisor_common.kube.events import WARNING, EventRecorder, ObjectReference
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    NODES,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
    key_of,
)
from podvisor_common.obs.metrics import Health, observability_app
from podvisor_common.rpc.server import RpcService, serve_unix
from podvisor_common.tls.identities import TRUST_CONFIG_MAP
from prometheus_client import REGISTRY

from podvisor_handler import __version__
from podvisor_handler.devices.kvm import DEVICE as KVM_DEVICE
from podvisor_handler.devices.kvm import KvmVerdict, probe_kvm
from podvisor_handler.devices.plugin import DeviceResource, run_device_plugin
from podvisor_handler.holders.reconciler import HolderReconciler, Sources
from podvisor_handler.identity.certificate import HandlerCertificate
from podvisor_handler.identity.port import serve_controllers
from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.node.heartbeat import Heartbeat
from podvisor_handler.rpc.links import LauncherLinks
from podvisor_handler.rpc.service import SERVICE, HandlerServicer, NodeInfo
from podvisor_handler.settings import Settings
from podvisor_handler.vmi.outline import outline
from podvisor_handler.vmi.reconciler import Caches, VmiReconciler
from podvisor_handler.vmi.vanished import VanishedPods

WORKERS = 8
INOTIFY_LIMIT = "InotifyLimitReached"
VHOST_NET_DEVICE = "/dev/vhost-net"
HOLDER_WORKERS = 4
# Of the controllers' Service.
IDENTITY_PORT = 8445
_BY_CREATOR = "created-by"
_BY_UID = "uid"
# Pods that hold volumes and are being deleted, by the instance.
_BY_INSTANCE = "instance"
_BY_HOLDER = "holder"

_log = structlog.get_logger(__name__)


class App:
    """One handler process."""

    def __init__(self, settings: Settings, client: KubeClient, kvm: KvmVerdict) -> None:
        self._settings = settings
        self._kvm = kvm
        self._vhost_net = Path(VHOST_NET_DEVICE).exists()
        node = settings.node_name
        self._pods: Informer[core.Pod] = Informer(
            client,
            PODS,
            core.Pod,
            label_selector=f"{names.APP_LABEL} in ({names.LAUNCHER_APP},{names.HOTPLUG_DISK_APP})",
            keep=outline,
            field_selector=f"spec.nodeName={node}",
            indexers={
                _BY_CREATOR: _creator_of,
                _BY_UID: lambda pod: [pod.metadata.uid],
                _BY_INSTANCE: _left_instance,
            },
        )
        self._vmis: Informer[v1.VirtualMachineInstance] = Informer(
            client,
            VIRTUAL_MACHINE_INSTANCES,
            v1.VirtualMachineInstance,
            field_selector=f"status.nodeName={node}",
            indexers={_BY_HOLDER: _holders_of},
        )
        self._registry = LauncherRegistry(settings.pods_directory, self._inotify_limited)
        self._events = EventRecorder(client, "virt-handler", settings.pod_name)
        caches = Caches(
            self._vmis.get, lambda uid: self._pods.by_index(_BY_CREATOR, uid), self._pods.get
        )
        vanished = VanishedPods(client, node, settings.pods_directory)
        self._reconciler = VmiReconciler(
            client, self._events, self._registry, caches, vanished, self._look_at
        )
        self._controller = Controller("vmi", self._reconciler.reconcile, workers=WORKERS)
        sources = Sources(
            pod=self._pods.get,
            launcher=self._pod_of_uid,
            has_lost_container=self._has_lost_container,
            vmis_naming=lambda uid: self._vmis.by_index(_BY_HOLDER, uid),
            machine=self._reconciler.observed,
        )
        holders = HolderReconciler(settings.pods_directory, sources)
        self._holders = Controller("holder", holders.reconcile, workers=HOLDER_WORKERS)
        self._heartbeat = Heartbeat(client, node)
        self._links = LauncherLinks(settings.run_directory / "launchers", self._registry)
        servicer = HandlerServicer(NodeInfo(node, kvm.works, kvm.message), self._registry, client)
        self._service = RpcService(
            SERVICE, servicer, handler_pb2_grpc.add_HandlerServiceServicer_to_server
        )
        controllers = f"virt-controller.{settings.pod_namespace}.svc"
        self._certificate = HandlerCertificate(
            settings.identity_token,
            settings.identity_address or f"{controllers}:{IDENTITY_PORT}",
            controllers,
            node=node,
        )
        self._trust: Informer[core.ConfigMap] = Informer(
            client,
            CONFIGMAPS,
            core.ConfigMap,
            namespace=settings.pod_namespace,
            field_selector=f"metadata.name={TRUST_CONFIG_MAP}",
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until `stop` is set. Guests are left as they are."""
        self._connect()
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._metrics())
            stack.callback(self._reconciler.close)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = [
                spawn(group, self._pods.run(), name="pods"),
                spawn(group, self._vmis.run(), name="vmis"),
                spawn(group, self._events.run(), name="events"),
                spawn(group, self._registry.run(), name="launchers"),
                spawn(group, self._work(self._controller), name="work"),
                spawn(group, self._work(self._holders), name="holders"),
                spawn(group, self._link(), name="links"),
                spawn(group, self._serve(), name="socket"),
                spawn(group, self._trust.run(), name="trust"),
                spawn(group, self._certificate.run(), name="certificate"),
                spawn(group, self._serve_controllers(), name="port"),
                spawn(group, self._heartbeat.run(self._synced), name="heartbeat"),
                spawn(group, self._offer_devices(), name="devices"),
            ]
            await stop.wait()
            await self._heartbeat.stop()
            for task in tasks:
                task.cancel()

    def _connect(self) -> None:
        """Lets every change lead to the key of the instance it concerns."""
        self._registry.subscribe(self._launcher_changed)
        self._registry.subscribe_directory(self._directory_changed)
        self._vmis.subscribe(lambda key, old, new: self._look_at(key))
        self._pods.subscribe(self._pod_changed)
        self._trust.subscribe(self._certificate.learn)

    def _pod_changed(self, key: ObjectKey, old: core.Pod | None, new: core.Pod | None) -> None:
        self._registry.pod_changed(old, new)
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._reconciler.forget(old.metadata.uid)
        if new is not None and new.is_terminal:
            self._reconciler.pod_ended(new.metadata.uid)
        pod = new or old
        name = _instance_of(pod) if pod is not None else None
        if name:
            self._look_at(ObjectKey(key.namespace, name))

    def _launcher_changed(self, connection: LauncherConnection, gone: bool) -> None:
        self._look_at(ObjectKey(connection.pod.namespace, connection.pod.vmi_name))

    def _look_at(self, key: ObjectKey) -> None:
        """At an instance, and at the pods of its volumes that are on their way out."""
        self._controller.enqueue(key)
        for pod in self._pods.by_index(_BY_INSTANCE, str(key)):
            self._holders.enqueue(key_of(pod))

    def _pod_of_uid(self, uid: str) -> core.Pod | None:
        return next(iter(self._pods.by_index(_BY_UID, uid)), None)

    def _has_lost_container(self, pod_uid: str) -> bool:
        connection = self._registry.of_pod(pod_uid)
        return connection is not None and connection.is_over

    def _directory_changed(self) -> None:
        for key in self._reconciler.without_pod:
            self._controller.enqueue(key)

    def _inotify_limited(self, limit: str) -> None:
        node = self._settings.node_name
        message = (
            f"The limit {limit} is reached on node {node}: virt-handler looks for launchers once a second instead of being"
            " told of them. Raise the limit, or see what uses it up."
        )
        # The kubelet's events name a node's name as its uid as well, and `kubectl describe node` looks for that.
        about = ObjectReference(NODES.api_version, NODES.kind, node, uid=node)
        self._events.record(about, WARNING, INOTIFY_LIMIT, message)

    async def _synced(self) -> None:
        await self._pods.wait_synced()
        await self._vmis.wait_synced()

    async def _work(self, controller: Controller) -> None:
        await self._synced()
        await controller.run()

    async def _link(self) -> None:
        await self._synced()
        await self._links.run()

    async def _serve(self) -> None:
        """The node's socket. Machines are looked after whether or not there is room for it."""
        await self._synced()
        backoff = Backoff(max_s=5.0)
        while True:
            try:
                await self._serve_once()
            except OSError as error:
                _log.warning("the node's socket is not served", error=str(error))
                await asyncio.sleep(backoff.next_s())

    async def _serve_once(self) -> None:
        directory = self._settings.run_directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        async with serve_unix(directory / "handler.sock", [self._service]):
            kvm = self._kvm
            _log.info(
                "serving", node=self._settings.node_name, kvm=kvm.works, kvm_message=kvm.message
            )
            await asyncio.Event().wait()

    async def _serve_controllers(self) -> None:
        """The same on TCP."""
        await self._synced()
        await serve_controllers(self._settings.rpc_port, self._service, self._certificate)

    async def _offer_devices(self) -> None:
        resources = []
        if self._kvm.works:
            resources.append(DeviceResource(names.KVM_RESOURCE, KVM_DEVICE))
        if self._vhost_net:
            resources.append(DeviceResource(names.VHOST_NET_RESOURCE, VHOST_NET_DEVICE))
        directory = self._settings.device_plugin_directory
        with Inotify() as inotify:
            async with asyncio.TaskGroup() as group:
                for resource in resources:
                    spawn(
                        group,
                        run_device_plugin(resource, directory, inotify),
                        name=f"device-{resource.resource_name}",
                    )

    @asynccontextmanager
    async def _metrics(self) -> AsyncIterator[None]:
        health = Health()
        health.add_readiness("caches", self._not_synced)
        app = observability_app(REGISTRY, health)
        async with serve_http(app, port=self._settings.metrics_port):
            yield

    def _not_synced(self) -> str | None:
        if self._pods.synced and self._vmis.synced:
            return None
        return "the caches are not complete yet"


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Runs the handler until `stop` is set."""
    _log.info("starting", version=__version__, node=settings.node_name)
    kvm = await asyncio.to_thread(probe_kvm)
    user_agent = f"virt-handler/{__version__}"
    async with await KubeClient.from_environment(user_agent=user_agent) as client:
        await App(settings, client, kvm).run(stop)


def _is_launcher(pod: core.Pod) -> bool:
    return pod.metadata.label(names.APP_LABEL) == names.LAUNCHER_APP


def _creator_of(pod: core.Pod) -> list[str]:
    """Launcher pods only: what holds a volume carries no instance."""
    creator = pod.metadata.label(names.CREATED_BY_LABEL)
    return [creator] if creator and _is_launcher(pod) else []


def _instance_of(pod: core.Pod) -> str | None:
    """The name of the instance that is worth a look when the pod changes."""
    return pod.metadata.annotation(
        names.DOMAIN_ANNOTATION if _is_launcher(pod) else names.OWNER_VMI_NAME_ANNOTATION
    )


def _left_instance(pod: core.Pod) -> list[str]:
    """The instance that a pod which is being deleted held a volume for, as it says."""
    if _is_launcher(pod) or not pod.metadata.is_being_deleted:
        return []
    name = _instance_of(pod)
    return [str(ObjectKey(pod.metadata.namespace, name))] if name else []


def _holders_of(vmi: v1.VirtualMachineInstance) -> list[str]:
    """The pods that hold volumes for an instance, as the controller says."""
    volumes = vmi.status.volume_status or ()
    told = (volume.hotplug_volume for volume in volumes)
    return [holder.attach_pod_uid for holder in told if holder is not None]
