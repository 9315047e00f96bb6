"""The sockets on which a guest's requests arrive.

Needs no capability: the handler lets any user bind the ports of DHCP in the pod's network namespace, and binding to a device is
free for a socket that is not bound to one.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import structlog

_log = structlog.stdlib.get_logger(__name__)

_SERVER_PORT, _SERVER6_PORT = 67, 547
_ALL_SERVERS = "ff02::1:2"
_MAX_PACKET_BYTES = 2048
# At most 320 requests a second: a guest that floods loses requests, and nobody a processor.
_BATCH, _PAUSE_S = 16, 0.05

Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]  # as Python's sockets have them


@dataclass(frozen=True, slots=True)
class Answer:
    """A packet, and where it goes."""

    packet: bytes
    destination: Address


def open_socket(bridge: str) -> socket.socket:
    """Where DHCPv4 requests on `bridge` arrive. Raises OSError."""
    server = _on_bridge(socket.AF_INET, bridge)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        server.bind(("0.0.0.0", _SERVER_PORT))
    except OSError:
        server.close()
        raise
    return server


def open_socket6(bridge: str) -> socket.socket:
    """Where DHCPv6 requests on `bridge` arrive. Raises OSError."""
    server = _on_bridge(socket.AF_INET6, bridge)
    try:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::", _SERVER6_PORT))
        number = socket.if_nametoindex(bridge).to_bytes(4, "little")
        group = socket.inet_pton(socket.AF_INET6, _ALL_SERVERS) + number
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except OSError:
        server.close()
        raise
    return server


def _on_bridge(family: socket.AddressFamily, bridge: str) -> socket.socket:
    server = socket.socket(family, socket.SOCK_DGRAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode() + b"\0")
    except OSError:
        server.close()
        raise
    return server


class Listener:
    """Owns the socket `server`, and sends what `respond` says to each packet, and to where it came from, until closed. Takes a
    few packets at a time and never queues an answer: DHCP is made for packets that get lost."""

    def __init__(
        self, server: socket.socket, respond: Callable[[bytes, Address], Answer | None]
    ) -> None:
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
                packet, source = self._server.recvfrom(_MAX_PACKET_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                _log.debug("a request was not received", error=error.strerror)
                return
            if (answer := self._respond(packet, source)) is not None:
                self._send(answer)

    def _send(self, answer: Answer) -> None:
        try:
            self._server.sendto(answer.packet, answer.destination)
        except OSError as error:  # the guest chooses the address, so this is not worth a line of the log each time
            _log.debug("an answer was not sent", error=error.strerror)
