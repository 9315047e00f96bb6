"""Wired networks of pods, for tests: each argument one deviation."""

from podvisor_common.api import v1
from podvisor_common.launcher_pod import secondary_interface_name
from podvisor_handler.network.attachments import Attachment, Bridge, Masquerade, Passt
from podvisor_handler.network.facts import Attached, PodNetwork, Resolver
from podvisor_handler.network.namespace import Route
from podvisor_handler.vmi.interfaces import interface_mac

from tests.unit.handler.builders import vmi

RESOLVER = Resolver(("10.96.0.10",), ("fd00:96::a",), ("default.svc.cluster.local",))
# What a machine without a word about it has.
GUEST_MAC = interface_mac(vmi(), v1.Interface(name="default"))
POD_MAC = "0a:58:0a:f4:00:07"


def attached(
    network: str = "default",
    binding: Masquerade | Bridge | Passt | None = None,
    *addresses: str,
    routes: tuple[Route, ...] = (),
    is_secondary: bool = False,
    queues: int = 1,
    may_come_later: bool = False,
) -> Attached:
    """A network whose interface is in the pod; by default the pod's own one, behind its address."""
    interface = secondary_interface_name(network) if is_secondary else None
    return Attached(
        Attachment(network, binding or Masquerade(GUEST_MAC), interface, queues, may_come_later),
        interface or "eth0",
        POD_MAC,
        1450,
        addresses or (() if is_secondary else ("10.244.0.7/24",)),
        routes,
    )


def wired(*networks: Attached, missing: tuple[Attachment, ...] = ()) -> PodNetwork:
    """A pod with these networks."""
    desired = (*(each.attachment for each in networks), *missing)
    return PodNetwork(networks, RESOLVER, desired)


WIRED = wired(attached())
