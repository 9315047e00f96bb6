"""Answers the guest's DHCP requests on the bridges of the pod.

Needs no capability: the handler lets any user bind port 67 in the pod's network namespace, and binding to a device is free for
a socket that is not bound to one. Knows no state but the specification, so a restart loses nothing.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import structlog
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.aio.backoff import Backoff

from podvisor_launcher.dhcp.packet import Lease, MessageType, Reply, answer, parse_request

_log = structlog.stdlib.get_logger(__name__)

_SERVER_PORT, _CLIENT_PORT = 67, 68
_MAX_PACKET_BYTES = 2048
# At most 320 requests a second: a guest that floods loses requests, and nobody a processor.
_BATCH, _PAUSE_S = 16, 0.05


@dataclass(frozen=True, slots=True)
class Offer:
    """A lease for the interface with the hardware address `mac`."""

    interface: str
    mac: str
    lease: Lease


def offers_by_bridge(spec: pb.DomainSpec) -> dict[str, tuple[Offer, ...]]:
    """What to offer on which bridge. Raises ValueError for an address that is none."""
    offers: dict[str, tuple[Offer, ...]] = {}
    for interface in spec.interfaces:
        if not interface.HasField("dhcp"):
            continue
        dhcp = interface.dhcp
        lease = Lease(
            address=IPv4Address(dhcp.address),
            network=IPv4Network((dhcp.address, dhcp.prefix_length), strict=False),
            server=IPv4Address(dhcp.server),
            gateway=IPv4Address(dhcp.gateway) if dhcp.gateway else None,
            dns_servers=tuple(IPv4Address(each) for each in dhcp.dns_servers),
            dns_search=tuple(dhcp.dns_search),
            hostname=dhcp.hostname,
            mtu_bytes=interface.mtu_bytes,
        )
        offer = Offer(interface.name, interface.mac.lower(), lease)
        offers[dhcp.bridge] = (*offers.get(dhcp.bridge, ()), offer)
    return offers


class Responder:
    """Serves the specification it was told last. `on_lease` is called with an interface's name when its guest was granted
    the address."""

    def __init__(self, on_lease: Callable[[str], None]) -> None:
        self._on_lease = on_lease
        self._wanted: Mapping[str, tuple[Offer, ...]] = {}
        self._changed = asyncio.Event()
        self._open: dict[str, Listener] = {}

    def serve(self, spec: pb.DomainSpec) -> None:
        """Answer as `spec` says from now on. Raises ValueError for an address that is none."""
        self._wanted = offers_by_bridge(spec)
        self._changed.set()

    async def run(self) -> None:
        """Keep a socket open on every bridge that has an offer, until cancelled."""
        backoff = Backoff(initial_s=0.1, max_s=5.0)
        try:
            while True:
                self._changed.clear()
                self._close_unwanted()
                pause_s = None if self._open_wanted() else backoff.next_s()
                if pause_s is None:
                    backoff.reset()
                try:
                    async with asyncio.timeout(pause_s):
                        await self._changed.wait()
                except TimeoutError:
                    continue
        finally:
            self._wanted = {}
            self._close_unwanted()

    def _close_unwanted(self) -> None:
        for bridge in [each for each in self._open if each not in self._wanted]:
            self._open.pop(bridge).close()

    def _open_wanted(self) -> bool:
        complete = True
        for bridge in self._wanted:
            if bridge in self._open:
                continue
            try:
                self._open[bridge] = self._listen(bridge)
            except OSError as error:
                complete = False
                _log.warning("cannot answer DHCP yet", bridge=bridge, error=error.strerror)
        return complete

    def _listen(self, bridge: str) -> "Listener":
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode() + b"\0")
            server.bind(("0.0.0.0", _SERVER_PORT))
        except OSError:
            server.close()
            raise
        _log.info("answering DHCP", bridge=bridge)
        return Listener(server, lambda packet: self._respond(bridge, packet))

    def _respond(self, bridge: str, packet: bytes) -> Reply | None:
        request = parse_request(packet)
        if request is None:
            return None
        for offer in self._wanted.get(bridge, ()):
            reply = answer(request, offer.lease) if offer.mac == request.mac else None
            if reply is None:
                continue
            if reply.type is MessageType.ACK and request.type is MessageType.REQUEST:
                self._on_lease(offer.interface)
            return reply
        return None


class Listener:
    """Owns the socket `server`, and sends what `respond` says to each packet until closed. Takes a few packets at a time and
    never queues an answer: DHCP is made for packets that get lost."""

    def __init__(self, server: socket.socket, respond: Callable[[bytes], Reply | None]) -> None:
        server.setblocking(False)
        self._server = server
        self._respond = respond
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(server, self._read)

    def close(self) -> None:
        """Answer no more."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._server)
        self._server.close()

    def _read(self) -> None:
        self._loop.remove_reader(self._server)
        self._resume = self._loop.call_later(
            _PAUSE_S, self._loop.add_reader, self._server, self._read
        )
        for _ in range(_BATCH):
            try:
                packet = self._server.recv(_MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                _log.debug("DHCP request was not received", error=error.strerror)
                return
            if (reply := self._respond(packet)) is not None:
                self._send(reply)

    def _send(self, reply: Reply) -> None:
        try:
            self._server.sendto(reply.packet, (str(reply.destination), _CLIENT_PORT))
        except OSError as error:  # the guest chooses the address, so this is not worth a line of the log each time
            _log.debug("DHCP reply was not sent", error=error.strerror)
