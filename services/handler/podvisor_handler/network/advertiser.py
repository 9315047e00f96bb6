"""Announces a pod as its guest's IPv6 router, as long as it is not closed.

The launcher has no capability for it: the socket is opened in the pod's namespace by a thread that ends, and stays bound to the pod's bridge
wherever it is used.

Invariant: what a guest sends costs no more than an answer in a while, however much it is.
"""

import asyncio
import contextlib
import socket
import struct

import structlog

from podvisor_handler.network.names import ROUTER_ADDRESS
from podvisor_handler.network.router_packets import (
    Router,
    advertisement,
    is_solicitation,
)

_ALL_NODES, _ALL_ROUTERS = "ff02::1", "ff02::2"
_ICMPV6_FILTER = 1
_SOLICITATION = 133
_HOP_LIMIT = 255
_MESSAGE_LIMIT_BYTES = 1500
_RENEWAL_S = 3000.0
# Between two answers, as RFC 4861 asks of those to everybody.
_PAUSE_S = 3.0
_BATCH = 16

_log = structlog.get_logger(__name__)


def open_router_socket(bridge: str) -> socket.socket:
    """A socket for router advertisements on a bridge of the calling thread's network namespace. Raises OSError."""
    opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    try:
        # What is not a solicitation does not even wake the process up. A set bit blocks a type.
        blocked = bytearray(b"\xff" * 32)
        word = struct.unpack_from("=I", blocked, _SOLICITATION // 32 * 4)[0]
        struct.pack_into("=I", blocked, _SOLICITATION // 32 * 4, word & ~(1 << _SOLICITATION % 32))
        opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, bytes(blocked))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode() + b"\0")
        index = socket.if_nametoindex(bridge)
        group = socket.inet_pton(socket.AF_INET6, _ALL_ROUTERS) + struct.pack("=I", index)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        opened.bind((ROUTER_ADDRESS, 0, 0, index))
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


class Advertiser:
    """Owns the socket `opened`, announces `router` on it at once and again before it is forgotten, and answers who asks, until
    closed."""

    def __init__(self, opened: socket.socket, router: Router) -> None:
        self._socket = opened
        self._message = advertisement(router)
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(opened, self._read)
        self._renewal = self._loop.create_task(self._renew(), name="router-advertisements")

    def close(self) -> None:
        """Announce nothing any more. Safe to repeat."""
        if self._socket.fileno() < 0:
            return
        self._renewal.cancel()
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    async def _renew(self) -> None:
        while True:
            self._announce()
            await asyncio.sleep(_RENEWAL_S)

    def _read(self) -> None:
        is_asked = False
        for _ in range(_BATCH):
            try:
                message, ancillary, _, _ = self._socket.recvmsg(
                    _MESSAGE_LIMIT_BYTES, socket.CMSG_SPACE(4)
                )
            except BlockingIOError:
                break
            except OSError as error:
                _log.debug("router solicitation was not received", error=error.strerror)
                break
            is_asked = is_asked or is_solicitation(message, _hop_limit(ancillary))
        # Whatever came, the next look is in a while: what comes meanwhile is answered by one announcement.
        self._loop.remove_reader(self._socket)
        self._resume = self._loop.call_later(
            _PAUSE_S, self._loop.add_reader, self._socket, self._read
        )
        if is_asked:
            self._announce()

    def _announce(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._socket.sendto(self._message, (_ALL_NODES, 0))
            except (
                OSError
            ) as error:  # as long as the guest's device has no carrier, nobody hears it
                _log.debug("router advertisement was not sent", error=error.strerror)


def _hop_limit(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_HOPLIMIT and len(data) >= 4:
            return int(struct.unpack_from("=i", data)[0])
    return 0
