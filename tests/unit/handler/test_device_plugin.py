"""Device plugins against a kubelet's registration server on a real socket."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from podvisor_common.inotify import Inotify
from podvisor_common.rpc.client import call, stream, unix_channel
from podvisor_common.rpc.server import RpcService, serve_unix
from podvisor_handler.devices.kubelet import deviceplugin_pb2 as api
from podvisor_handler.devices.kubelet import deviceplugin_pb2_grpc as api_grpc
from podvisor_handler.devices.kvm import has_virtualization_flag, probe_kvm
from podvisor_handler.devices.plugin import DeviceResource, run_device_plugin

KVM = DeviceResource("devices.kubevirt.io/kvm", "/dev/kvm")


class FakeKubelet(api_grpc.RegistrationServicer):
    """Remembers who registered."""

    def __init__(self) -> None:
        self.requests: list[api.RegisterRequest] = []
        self._changed = asyncio.Condition()

    async def Register(
        self, request: api.RegisterRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> api.Empty:
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        return api.Empty()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(condition)

    @contextlib.asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[None]:
        """Serves as a kubelet that has just started: it first clears its directory."""
        _clear(directory)
        service = RpcService(
            "v1beta1.Registration", self, api_grpc.add_RegistrationServicer_to_server
        )
        async with serve_unix(directory / "kubelet.sock", [service], grace_s=0.0):
            yield


def _clear(directory: Path) -> None:
    for socket in directory.glob("*.sock"):
        socket.unlink()


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pv") as short:
        yield Path(short)


@contextlib.asynccontextmanager
async def plugin(directory: Path) -> AsyncIterator[None]:
    with Inotify() as inotify:
        task = asyncio.create_task(run_device_plugin(KVM, str(directory), inotify), name="plugin")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_a_plugin_registers_and_serves(directory: Path) -> None:
    kubelet = FakeKubelet()
    async with kubelet.serving(directory), plugin(directory):
        await kubelet.until(lambda: len(kubelet.requests) == 1)
        (request,) = kubelet.requests
        assert (request.version, request.resource_name) == ("v1beta1", "devices.kubevirt.io/kvm")
        async with unix_channel(str(directory / request.endpoint)) as channel:
            stub = api_grpc.DevicePluginStub(channel)
            options = await call(stub.GetDevicePluginOptions, api.Empty(), timeout_s=5)
            assert options == api.DevicePluginOptions()
            replies = stream(stub.ListAndWatch, api.Empty(), first_reply_timeout_s=5)
            async with contextlib.aclosing(replies):
                devices = (await anext(replies)).devices
            assert len({device.ID for device in devices}) == len(devices) > 100
            assert {device.health for device in devices} == {"Healthy"}
            wanted = api.AllocateRequest(
                container_requests=[api.ContainerAllocateRequest(devicesIDs=["3"])]
            )
            allocated = await call(stub.Allocate, wanted, timeout_s=5)
            (container,) = allocated.container_responses
            (node,) = container.devices
            assert (node.host_path, node.container_path, node.permissions) == (
                "/dev/kvm",
                "/dev/kvm",
                "rw",
            )


async def test_a_plugin_waits_for_the_kubelet(directory: Path) -> None:
    kubelet = FakeKubelet()
    async with plugin(directory):
        await asyncio.sleep(0)
        async with kubelet.serving(directory):
            await kubelet.until(lambda: len(kubelet.requests) == 1)


async def test_a_restarted_kubelet_is_told_again(directory: Path) -> None:
    first, second = FakeKubelet(), FakeKubelet()
    async with plugin(directory):
        async with first.serving(directory):
            await first.until(lambda: len(first.requests) == 1)
        async with second.serving(directory):
            await second.until(lambda: len(second.requests) >= 1)
            async with unix_channel(str(directory / second.requests[-1].endpoint)) as channel:
                stub = api_grpc.DevicePluginStub(channel)
                await call(
                    stub.GetDevicePluginOptions, api.Empty(), timeout_s=5, wait_for_ready=True
                )


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags\t\t: fpu vmx sse\n", True),
        ("flags\t\t: fpu svm\n", True),
        ("flags\t\t: fpu vmx_not sse\n", False),
        ("vmx flags\t: ept\nflags\t\t: fpu\n", False),
        ("", False),
    ],
)
def test_the_processors_flag(cpuinfo: str, expected: bool) -> None:
    assert has_virtualization_flag(cpuinfo) is expected


def test_a_device_that_cannot_be_opened_is_no_kvm(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : vmx\n")
    verdict = probe_kvm(str(tmp_path / "kvm"), str(cpuinfo))
    assert not verdict.works
    assert "No such file" in verdict.message


def test_without_the_flag_the_device_is_not_even_tried(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu\n")
    assert not probe_kvm(str(tmp_path / "kvm"), str(cpuinfo)).works
