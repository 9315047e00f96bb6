"""The routers of IPv6 that one pod is to its guest: an advertiser for each masqueraded network that has it.

Invariant: what is announced is what was wired last. Once closed, as its pod has ended, nothing is announced again, whatever is
being wired still.
"""

from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network import netns
from podvisor_handler.network.advertiser import Advertiser
from podvisor_handler.network.attachments import Masquerade
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.network.names import BRIDGE_MAC
from podvisor_handler.network.router_packets import Router


class Routers:
    """The advertisers by bridge. `process` of keep() is one of the pod's."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Router, Advertiser]] = {}
        self._has_ended = False

    async def keep(self, process: PinnedProcess, network: PodNetwork, *, has_dhcpv6: bool) -> None:
        """Announces what `network` needs and nothing else: nothing where the guest would be told to ask for an address that
        nobody gives, and nothing once closed. Raises ProcessEnded, NetworkNotReady, NetworkRefused."""
        if self._has_ended:
            return
        wanted = routers_of(network) if has_dhcpv6 else {}
        for bridge in [each for each in self._open if self._open[each][0] != wanted.get(each)]:
            self._open.pop(bridge)[1].close()
        missing = [bridge for bridge in wanted if bridge not in self._open]
        if not missing:
            return
        for bridge, opened in (await netns.open_router_sockets(process, missing)).items():
            if self._has_ended:  # meanwhile
                opened.close()
            else:
                self._open[bridge] = (wanted[bridge], Advertiser(opened, wanted[bridge]))

    def close(self) -> None:
        """Announces nothing, for good. Safe to repeat."""
        self._has_ended = True
        for _, advertiser in self._open.values():
            advertiser.close()
        self._open.clear()


def routers_of(network: PodNetwork) -> dict[str, Router]:
    """What is to be announced on which bridge."""
    routers = {}
    for attached in network.attached:
        binding = attached.attachment.binding
        if isinstance(binding, Masquerade) and attached.addresses6:
            routers[attached.attachment.bridge] = Router(
                mac=BRIDGE_MAC,
                prefix=binding.network6.cidr,
                mtu_bytes=attached.mtu_bytes,
                dns_servers=network.resolver.servers6,
                dns_search=network.resolver.search,
            )
    return routers
