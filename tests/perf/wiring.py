"""How long it takes to wire a pod's network: the handler's own code, in namespaces made for it on the real kernel.

Invariant: each sample is of a new namespace, as each machine has one. Needs root.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from podvisor_handler.linux.netlink import NetlinkSocket
from podvisor_handler.network import netns
from podvisor_handler.network.attachments import Attachment, Bridge, Masquerade, Port
from podvisor_handler.network.namespace import Operation, ReplaceRuleset

from tests.perf.measure import Figure
from tests.unit.handler.namespaces import WITH_BOTH_FAMILIES, pod

SAMPLES = 15
BUDGET_MS, NFT_BUDGET_MS = 30.0, 5.0
_LISTED_PORTS = 256
_MAC = "02:00:00:00:00:01"
_POD = f"{WITH_BOTH_FAMILIES}ip link set uplink up; ip route add default via 10.244.1.1"
_DESIRED: Mapping[str, Masquerade | Bridge] = {
    "masquerade": Masquerade(_MAC),
    "masquerade, 256 ports": Masquerade(
        _MAC, ports=tuple(Port("tcp", 1000 + number) for number in range(_LISTED_PORTS))
    ),
    "bridge": Bridge(),
}


async def wiring(samples: int = SAMPLES) -> list[Figure]:
    """For each binding: all of it, and what of it is the transaction of nftables."""
    figures = []
    for title, binding in _DESIRED.items():
        whole_ms, nft_ms = await _measured((Attachment("default", binding),), samples)
        key = title.replace(", ", "_").replace(" ", "_")
        figures += [
            Figure(f"wiring_{key}", f"set-up of the network, {title}", "ms", whole_ms, BUDGET_MS),
            Figure(f"nft_{key}", f"of it nftables, {title}", "ms", nft_ms, NFT_BUDGET_MS),
        ]
    return figures


async def _measured(
    desired: tuple[Attachment, ...], samples: int
) -> tuple[Sequence[float], Sequence[float]]:
    whole_ms, nft_ms = [], []
    for _ in range(samples):
        with pod(_POD) as process, _rules_timed() as took_ms:
            began_s = time.perf_counter()
            await netns.wire(process, desired)
            whole_ms.append((time.perf_counter() - began_s) * 1000)
            nft_ms.append(sum(took_ms))
    return whole_ms, nft_ms


@contextmanager
def _rules_timed() -> Iterator[list[float]]:
    """The milliseconds of each transaction of nftables meanwhile."""
    took_ms: list[float] = []
    carry_out = netns.carry_out

    def timed(
        operation: Operation, route: NetlinkSocket, netfilter: NetlinkSocket, tun: str
    ) -> None:
        began_s = time.perf_counter()
        carry_out(operation, route, netfilter, tun)
        if isinstance(operation, ReplaceRuleset):
            took_ms.append((time.perf_counter() - began_s) * 1000)

    netns.carry_out = timed
    try:
        yield took_ms
    finally:
        netns.carry_out = carry_out
