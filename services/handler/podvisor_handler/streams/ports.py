"""Connections to ports of guests, by the addresses of their pods.

Invariant: only an address that the kubelet says is the pod's is dialled, and none that a guest may have made up.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress

import msgspec
from podvisor_common.api.base import ApiStruct
from podvisor_common.errors import Terminal
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import PODS

from podvisor_handler.launchers.state import LauncherPod
from podvisor_handler.streams.relay import BUFFER_BYTES
from podvisor_handler.streams.sockets import Streams

DIAL_TIMEOUT_S = 10.0
# Datagrams that wait for a reader; what comes beyond is lost, as with any network.
DATAGRAMS = 64


class NoAddress(Terminal):
    """The pod has no address."""

    reason = "NoAddress"


class PortUnreachable(Terminal):
    """Nobody in the guest takes the connection."""

    reason = "PortUnreachable"


class _Metadata(ApiStruct, frozen=True):
    uid: str = ""


class _PodIp(ApiStruct, frozen=True):
    ip: str = ""


class _Status(ApiStruct, frozen=True):
    pod_ips: tuple[_PodIp, ...] | None = msgspec.field(name="podIPs", default=None)


class _Pod(ApiStruct, frozen=True):
    metadata: _Metadata = _Metadata()
    status: _Status = _Status()


class _Pods(msgspec.Struct, frozen=True):
    items: list[_Pod]


_decode = msgspec.json.Decoder(_Pods).decode


async def address_of(client: KubeClient, pod: LauncherPod) -> str:
    """The first address of a pod, asked of the API server. Raises NoAddress and ApiError."""
    page = await client.list_page(
        PODS, namespace=pod.namespace, field_selector=f"metadata.name={pod.name}", limit=1
    )
    for found in _decode(page).items:
        if found.metadata.uid == pod.uid and found.status.pod_ips:
            return found.status.pod_ips[0].ip
    raise NoAddress("The machine's pod has no address.")


async def dial_tcp(address: str, port: int) -> Streams:
    """A connection to that port. Raises PortUnreachable."""
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            return await asyncio.open_connection(address, port, limit=BUFFER_BYTES // 2)
    except TimeoutError as error:
        raise PortUnreachable(f"port {port} does not answer") from error
    except OSError as error:
        raise PortUnreachable(f"port {port}: {error.strerror or error}") from error


class Datagrams(asyncio.DatagramProtocol):
    """What comes from one port by UDP."""

    def __init__(self) -> None:
        self._received: asyncio.Queue[bytes] = asyncio.Queue(DATAGRAMS)
        self.is_full = False  # what is sent now would wait, and is lost instead

    def datagram_received(self, data: bytes, _address: object) -> None:
        """Keep one for the reader if there is room."""
        with suppress(asyncio.QueueFull):
            self._received.put_nowait(data)

    def pause_writing(self) -> None:
        """Too many wait to be sent."""
        self.is_full = True

    def resume_writing(self) -> None:
        """There is room again."""
        self.is_full = False

    def error_received(self, _error: Exception) -> None:
        """Nobody listens at the moment, which with datagrams ends nothing."""

    async def next(self) -> bytes:
        """The next one."""
        return await self._received.get()


async def relay_udp(
    incoming: AsyncIterator[bytes], address: str, port: int
) -> AsyncGenerator[bytes, None]:
    """First an empty one, then the guest's datagrams, while those of `incoming` are sent to it; to its end. Raises PortUnreachable."""
    loop = asyncio.get_running_loop()
    try:
        transport, datagrams = await loop.create_datagram_endpoint(
            Datagrams, remote_addr=(address, port)
        )
    except OSError as error:
        raise PortUnreachable(f"port {port}: {error.strerror or error}") from error
    sending = asyncio.create_task(_send(incoming, transport, datagrams), name="stream datagrams")
    try:
        yield b""
        while not sending.done():
            receiving = asyncio.create_task(datagrams.next(), name="stream datagram")
            try:
                await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
                if receiving.done():
                    yield receiving.result()
            finally:
                receiving.cancel()
    finally:
        sending.cancel()
        await asyncio.wait({sending})
        transport.close()


async def _send(
    incoming: AsyncIterator[bytes], transport: asyncio.DatagramTransport, datagrams: Datagrams
) -> None:
    async for datagram in incoming:
        if not datagrams.is_full:
            transport.sendto(datagram)
