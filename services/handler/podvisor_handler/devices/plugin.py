"""Device plugins: extended resources that stand for a device node.

Invariant: a resource is offered for as long as this process runs, and only if its device works.
When the kubelet restarts it forgets its plugins; its socket's return is the sign to register again.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.inotify import Inotify
from podvisor_common.rpc.client import call, unix_channel
from podvisor_common.rpc.errors import RpcError
from podvisor_common.rpc.server import RpcService, serve_unix

from podvisor_handler.devices.kubelet import deviceplugin_pb2 as api
from podvisor_handler.devices.kubelet import deviceplugin_pb2_grpc as api_grpc

API_VERSION = "v1beta1"
KUBELET_SOCKET = "kubelet.sock"
SERVICE = "v1beta1.DevicePlugin"
# The device can be shared without bound; the kubelet wants a number.
UNITS = 512
_REGISTER_TIMEOUT_S = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceResource:
    """An extended resource and the device node behind it."""

    resource_name: str  # for example `devices.kubevirt.io/kvm`
    device: str  # path on the node and in containers

    @property
    def socket_name(self) -> str:
        """Name of the plugin's socket in the kubelet's directory."""
        return f"podvisor-{self.resource_name.rpartition('/')[2]}.sock"


class DevicePluginServicer(api_grpc.DevicePluginServicer):
    """Offers one resource."""

    def __init__(self, resource: DeviceResource) -> None:
        self._resource = resource

    async def GetDevicePluginOptions(
        self, request: api.Empty, context: grpc.aio.ServicerContext[api.Empty, object]
    ) -> api.DevicePluginOptions:
        """No optional call is wanted."""
        return api.DevicePluginOptions()

    async def ListAndWatch(
        self, request: api.Empty, context: grpc.aio.ServicerContext[api.Empty, object]
    ) -> AsyncIterator[api.ListAndWatchResponse]:
        """All units, healthy; nothing changes until the kubelet hangs up."""
        yield api.ListAndWatchResponse(
            devices=[api.Device(ID=str(number), health="Healthy") for number in range(UNITS)]
        )
        await asyncio.Event().wait()

    async def Allocate(
        self, request: api.AllocateRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> api.AllocateResponse:
        """The device node for every container."""
        path = self._resource.device
        node = api.DeviceSpec(container_path=path, host_path=path, permissions="rw")
        return api.AllocateResponse(
            container_responses=[
                api.ContainerAllocateResponse(devices=[node]) for _ in request.container_requests
            ]
        )


async def run_device_plugin(resource: DeviceResource, directory: str, inotify: Inotify) -> None:
    """Serves the resource and keeps it registered, until it is cancelled."""
    socket = Path(directory, resource.socket_name)
    service = RpcService(
        SERVICE, DevicePluginServicer(resource), api_grpc.add_DevicePluginServicer_to_server
    )
    while True:
        # A kubelet that starts removes every socket in its directory, so ours is made anew as well.
        async with serve_unix(socket, [service]):
            await _stay_registered(resource, directory, inotify)


async def _stay_registered(resource: DeviceResource, directory: str, inotify: Inotify) -> None:
    """Registers, and returns when the kubelet must be told again by a new socket."""
    changed = asyncio.Event()
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        watch = inotify.watch_directory(descriptor, changed.set)
    finally:
        os.close(descriptor)
    try:
        own = _inode(Path(directory, resource.socket_name))
        registered: tuple[int, int] | None = None
        backoff = Backoff(initial_s=0.5)
        while _inode(Path(directory, resource.socket_name)) == own:
            changed.clear()
            kubelet = _inode(Path(directory, KUBELET_SOCKET))
            if kubelet is None or kubelet == registered:
                await changed.wait()
            elif await _register(resource, directory):
                registered = kubelet
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next_s())
    finally:
        watch.close()


async def _register(resource: DeviceResource, directory: str) -> bool:
    request = api.RegisterRequest(
        version=API_VERSION,
        endpoint=resource.socket_name,
        resource_name=resource.resource_name,
        options=api.DevicePluginOptions(),
    )
    async with unix_channel(f"{directory}/{KUBELET_SOCKET}") as channel:
        stub: api_grpc.RegistrationAsyncStub = api_grpc.RegistrationStub(channel)
        try:
            await call(stub.Register, request, timeout_s=_REGISTER_TIMEOUT_S)
        except RpcError as error:
            _log.warning(
                "kubelet does not register the device plugin",
                resource=resource.resource_name,
                error=error.message,
            )
            return False
    _log.info("device plugin registered", resource=resource.resource_name)
    return True


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
