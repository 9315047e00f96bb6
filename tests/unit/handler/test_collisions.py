"""Private networks of guests that collide with what the pod itself is on, in values and for real."""

from dataclasses import replace

import pytest
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network.attachments import Attachment, Bridge, GuestNetwork, Masquerade
from podvisor_handler.network.collisions import collision_of
from podvisor_handler.network.facts import Resolver
from podvisor_handler.network.namespace import Link, Observed, Route
from podvisor_handler.network.netns import NetworkRefused, wire
from podvisor_handler.network.plan import find

from tests.unit.handler.namespaces import WITH_ETH0, inside, links_of, needs_root, pod
from tests.unit.handler.networks import GUEST_MAC

RESOLVER = Resolver(("10.96.0.10",), ("fd00:96::a",))
NOW = Observed(
    {"lo": Link(1, 65536, True), "eth0": Link(2, 1450, True), "net1": Link(3, 1450, True)},
    {"eth0": ("10.244.1.5/24", "2001:db8::5/64", "fe80::5/64"), "net1": ("192.168.7.5/24",)},
    every_route=(
        Route("eth0", "0.0.0.0/0", "169.254.1.1"),
        Route("eth0", "10.244.1.0/24"),
        Route("eth0", "10.96.0.0/12", "10.244.1.2"),
        Route("eth0", "172.16.9.0/24", "169.254.1.1"),
        Route("net1", "192.168.7.0/24"),
        Route("eth0", "::/0", "fe80::99"),
        Route("eth0", "fe80::/64"),
        Route("eth0", "2001:db8::/64"),
        Route("eth0", "2001:db8:77::/64", "fe80::99"),
    ),
)
FAR_GATEWAY = Route("eth0", "198.51.100.0/24", "203.0.113.9")


def masqueraded(cidr: str = "10.0.2.0/24", cidr6: str = "fd10:0:2::/120") -> Attachment:
    return Attachment(
        "default", Masquerade(GUEST_MAC, GuestNetwork(cidr), GuestNetwork(cidr6)), None
    )


def collision(now: Observed, attachment: Attachment) -> str:
    return collision_of(now, find(now, (attachment,)), RESOLVER)


@pytest.mark.parametrize(
    ("cidr", "other"),
    [
        ("10.244.1.0/24", "10.244.1.0/24, to which the pod's interface eth0 is linked"),
        ("10.0.0.0/8", "10.244.1.0/24, to which the pod's interface eth0 is linked"),
        ("10.244.1.128/25", "10.244.1.0/24, to which the pod's interface eth0 is linked"),
        ("192.168.0.0/16", "192.168.7.0/24, to which the pod's interface net1 is linked"),
        ("10.96.0.0/16", "10.96.0.10, the pod's name server"),
        ("169.254.1.0/24", "169.254.1.1, a router of the pod's interface eth0"),
        ("172.16.9.0/24", "172.16.9.0/24, to which the pod has a router by its interface eth0"),
        ("172.16.0.0/16", "172.16.9.0/24, to which the pod has a router by its interface eth0"),
        ("10.0.2.0/24", ""),
        ("10.97.0.0/16", ""),
        ("172.16.9.0/25", ""),
    ],
)
def test_a_private_network_of_ipv4(cidr: str, other: str) -> None:
    expected = other and (
        f'Network "default": the guest\'s private network {cidr} (vmNetworkCIDR) overlaps {other}.'
        " Choose another vmNetworkCIDR."
    )
    assert collision(NOW, masqueraded(cidr)) == expected


@pytest.mark.parametrize(
    ("cidr", "other"),
    [
        ("2001:db8::/120", "2001:db8::/64, to which the pod's interface eth0 is linked"),
        ("fd00:96::/64", "fd00:96::a, the pod's name server"),
        ("2001:db8:77::/64", "2001:db8:77::/64, to which the pod has a router by its interface"),
        ("fd10:0:2::/120", ""),
    ],
)
def test_a_private_network_of_ipv6(cidr: str, other: str) -> None:
    said = collision(NOW, masqueraded(cidr6=cidr))
    assert other in said
    assert ("vmIPv6NetworkCIDR" in said) == bool(other)


@pytest.mark.parametrize(
    ("now", "other"),
    [
        pytest.param(
            replace(NOW, addresses={"eth0": ("10.244.1.5/24",), "net1": ("10.0.2.9/24",)}),
            "10.0.2.9, an address of the pod's interface net1",
            id="an address, whatever its prefix, of any interface",
        ),
        pytest.param(
            replace(NOW, every_route=(Route("eth0", "0.0.0.0/0"),)), "", id="the world on the link"
        ),
        pytest.param(
            replace(NOW, every_route=(Route("eth0", "10.0.0.0/8", "10.244.1.1"),)),
            "",
            id="a router to more",
        ),
        pytest.param(
            replace(
                NOW,
                links={**NOW.links, "k6t-eth0": Link(4, 1450, True)},
                addresses={**NOW.addresses, "k6t-eth0": ("10.0.2.1/24",)},
                every_route=(Route("k6t-eth0", "10.0.2.0/24"),),
            ),
            "",
            id="wired",
        ),
        pytest.param(
            replace(
                NOW,
                links={**NOW.links, "k6t-0123456789a": Link(4, 1450, True)},
                addresses={**NOW.addresses, "was-0123456789a": ("10.0.2.7/24",)},
                every_route=(Route("k6t-0123456789a", "10.0.2.7/32"),),
            ),
            "",
            id="what was made here",
        ),
        pytest.param(
            replace(
                NOW,
                addresses={**NOW.addresses, "k6t-eth0": ("10.0.2.1/24",), "net1": ("10.0.2.7/24",)},
                every_route=(Route("net1", "10.0.2.0/24"),),
            ),
            "",
            id="what came to a guest that is wired",
        ),
    ],
)
def test_the_default_network(now: Observed, other: str) -> None:
    said = collision(now, masqueraded())
    assert other in said
    assert bool(said) == bool(other)


def test_only_families_that_the_guest_has() -> None:
    now = replace(NOW, addresses={"eth0": ("10.244.1.5/24",)})
    assert collision(now, masqueraded(cidr6="2001:db8::/120")) == ""


def test_only_private_networks() -> None:
    assert collision(NOW, Attachment("default", Bridge())) == ""


def test_a_router_that_is_on_no_network_of_the_pods() -> None:
    now = replace(NOW, every_route=(FAR_GATEWAY,))
    assert "203.0.113.9, a router" in collision(now, masqueraded("203.0.113.0/24"))


DUAL = f"""
{WITH_ETH0}
ip addr add 2001:db8::5/64 dev eth0 nodad
ip route add default via 10.244.1.1
ip route add 10.0.0.0/8 via 10.244.1.1
ip route add 172.16.9.0/24 via 169.254.1.1 dev eth0 onlink
ip -6 route add default via fe80::99 dev eth0
ip -6 route add 2001:db8:77::/64 via fe80::99 dev eth0
mount -t tmpfs tmpfs /etc
echo "nameserver 10.96.0.10" > /etc/resolv.conf
"""


@needs_root
@pytest.mark.parametrize(
    ("attachment", "other"),
    [
        (masqueraded("10.244.1.0/24"), "10.244.1.0/24"),
        (masqueraded("10.0.0.0/8"), "10.244.1.0/24"),
        (masqueraded("10.96.0.0/16"), "10.96.0.10"),
        (masqueraded("172.16.9.0/24"), "172.16.9.0/24"),
        (masqueraded("169.254.1.0/24"), "169.254.1.1"),
        (masqueraded(cidr6="2001:db8::/120"), "2001:db8::/64"),
        (masqueraded(cidr6="2001:db8:77::/64"), "2001:db8:77::/64"),
    ],
    ids=["same", "wider", "name server", "routed", "router", "IPv6", "routed IPv6"],
)
async def test_a_pod_whose_network_collides_is_left_as_it_is(
    attachment: Attachment, other: str
) -> None:
    with pod(DUAL) as process:
        forwarding = "/proc/sys/net/ipv4/ip_forward"
        before = (_shape(process), inside(process, "cat", forwarding))
        with pytest.raises(NetworkRefused, match=f'Network "default".* overlaps {other}[/,]'):
            await wire(process, (attachment,))
        assert (_shape(process), inside(process, "cat", forwarding)) == before
        assert inside(process, "nft", "list", "tables") == ""


def _shape(process: PinnedProcess) -> dict[str, object]:
    """The pod's links and their addresses, but for what the kernel adds to them in its own time."""
    return {
        name: (
            [link.get(part) for part in ("address", "mtu", "master", "linkinfo")],
            [each["local"] for each in link["addr_info"] if each["scope"] == "global"],
        )
        for name, link in links_of(process).items()
    }


@needs_root
async def test_a_pod_is_wired_again_within_a_wider_network_that_is_routed() -> None:
    with pod(DUAL) as process:
        assert (await wire(process, (masqueraded(),))).changed
        inside(process, "ip", "link", "del", "tap0")
        assert (await wire(process, (masqueraded(),))).changed
        assert not (await wire(process, (masqueraded(),))).changed


@needs_root
async def test_a_router_of_the_other_family_is_a_router() -> None:
    links = f"""
{WITH_ETH0}
ip addr add 2001:db8::5/64 dev eth0 nodad
ip route add 10.0.0.0/8 via inet6 fe80::99 dev eth0
"""
    with pod(links) as process:
        assert (await wire(process, (masqueraded(),))).changed


@needs_root
async def test_a_prefix_that_leads_by_a_router_is_on_no_link() -> None:
    """As the network plugin `ptp` has it."""
    links = f"""
{WITH_ETH0}
ip addr add 10.0.77.5/16 dev eth0
ip route del 10.0.0.0/16
ip route add 10.244.1.1/32 dev eth0
ip route add 10.0.0.0/16 via 10.244.1.1
"""
    with pod(links) as process:
        assert (await wire(process, (masqueraded(),))).changed
