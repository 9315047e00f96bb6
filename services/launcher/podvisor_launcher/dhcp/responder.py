"""Answers the guest's DHCP requests on the bridges of the pod.

Knows no state but the specification, so a restart loses nothing.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv6Address

import structlog
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.aio.backoff import Backoff

from podvisor_launcher.dhcp.listener import Address, Answer, Listener, open_socket, open_socket6
from podvisor_launcher.dhcp.offers import Offer, Offer6, offers6_by_bridge, offers_by_bridge
from podvisor_launcher.dhcp.packet import MessageType, answer, parse_request
from podvisor_launcher.dhcp.packet6 import answer6, parse_request6

_log = structlog.stdlib.get_logger(__name__)

_CLIENT_PORT, _CLIENT6_PORT = 68, 546


class Protocol(StrEnum):
    """What is spoken on a bridge."""

    DHCPV4 = "DHCPv4"
    DHCPV6 = "DHCPv6"


class Responder:
    """Serves the specification it was told last. `on_lease` is called with an interface's name and the address that its guest
    was granted."""

    def __init__(self, on_lease: Callable[[str, str], None]) -> None:
        self._on_lease = on_lease
        self._offers: Mapping[str, tuple[Offer, ...]] = {}
        self._offers6: Mapping[str, Offer6] = {}
        self._changed = asyncio.Event()
        self._open: dict[tuple[Protocol, str], Listener] = {}

    def serve(self, spec: pb.DomainSpec) -> None:
        """Answer as `spec` says from now on. Raises ValueError for an address that is none."""
        self._offers, self._offers6 = offers_by_bridge(spec), offers6_by_bridge(spec)
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
            self._offers, self._offers6 = {}, {}
            self._close_unwanted()

    def _wanted(self) -> Iterator[tuple[Protocol, str]]:
        yield from ((Protocol.DHCPV4, bridge) for bridge in self._offers)
        yield from ((Protocol.DHCPV6, bridge) for bridge in self._offers6)

    def _close_unwanted(self) -> None:
        wanted = set(self._wanted())
        for key in [each for each in self._open if each not in wanted]:
            self._open.pop(key).close()

    def _open_wanted(self) -> bool:
        complete = True
        for key in self._wanted():
            if key in self._open:
                continue
            protocol, bridge = key
            try:
                self._open[key] = self._listen(protocol, bridge)
            except OSError as error:
                complete = False
                _log.warning(
                    "cannot answer yet", protocol=protocol, bridge=bridge, error=error.strerror
                )
        return complete

    def _listen(self, protocol: Protocol, bridge: str) -> Listener:
        is_v4 = protocol is Protocol.DHCPV4
        server = open_socket(bridge) if is_v4 else open_socket6(bridge)
        respond = self._respond if is_v4 else self._respond6
        _log.info("answering", protocol=protocol, bridge=bridge)
        return Listener(server, lambda packet, source: respond(bridge, packet, source))

    def _respond(self, bridge: str, packet: bytes, source: Address) -> Answer | None:
        request = parse_request(packet)
        if request is None:
            return None
        for offer in self._offers.get(bridge, ()):
            reply = answer(request, offer.lease) if offer.mac == request.mac else None
            if reply is None:
                continue
            if reply.type is MessageType.ACK and request.type is MessageType.REQUEST:
                self._on_lease(offer.interface, str(offer.lease.address))
            return Answer(reply.packet, (str(reply.destination), _CLIENT_PORT))
        return None

    def _respond6(self, bridge: str, packet: bytes, source: Address) -> Answer | None:
        offer, request = self._offers6.get(bridge), parse_request6(packet)
        if offer is None or request is None or not _is_on_link(source):
            return None
        reply = answer6(request, offer.lease)
        if reply is None:
            return None
        if reply.grants:
            self._on_lease(offer.interface, str(offer.lease.address))
        return Answer(reply.packet, (source[0], _CLIENT6_PORT, *source[2:]))


def _is_on_link(source: Address) -> bool:
    """Whether the sender has the address of its link, as RFC 8415 wants it of a client."""
    return IPv6Address(source[0]).is_link_local
