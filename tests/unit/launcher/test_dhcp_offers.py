"""From a specification to what the guest is offered."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.dhcp.offers import offers6_by_bridge, offers_by_bridge
from podvisor_launcher.dhcp.packet import Route

from tests.unit.launcher.specs import interface, spec


def test_offers_come_from_the_specification() -> None:
    silent = interface("quiet", mac="02:00:00:00:00:02")
    silent.ClearField("dhcp")
    offers = offers_by_bridge(spec(interfaces=[interface(), silent]))
    assert list(offers) == ["k6t-eth0"]
    (offer,) = offers["k6t-eth0"]
    assert (offer.interface, offer.mac) == ("default", "02:00:00:12:34:56")
    assert offer.lease.network == IPv4Network("10.0.2.0/24")
    assert offer.lease.mtu_bytes == 1450


def test_routes_and_options_come_from_the_specification() -> None:
    described = interface()
    described.dhcp.routes.add(destination="10.1.0.0/16", gateway="10.0.2.9")
    described.dhcp.routes.add(destination="10.2.0.0/16")
    described.dhcp.ntp_servers.append("10.0.0.5")
    described.dhcp.boot_file_name, described.dhcp.tftp_server_name = "boot", "tftp"
    described.dhcp.private_options.add(code=224, value="a")
    [(offer,)] = offers_by_bridge(spec(interfaces=[described])).values()
    lease = offer.lease
    assert lease.routes == (
        Route(IPv4Network("10.1.0.0/16"), IPv4Address("10.0.2.9")),
        Route(IPv4Network("10.2.0.0/16"), None),
    )
    assert lease.ntp_servers == (IPv4Address("10.0.0.5"),)
    assert (lease.boot_file, lease.tftp_server) == ("boot", "tftp")
    assert lease.private_options == ((224, b"a"),)


@pytest.mark.parametrize(
    "option",
    [pb.DhcpOption(code=223), pb.DhcpOption(code=255), pb.DhcpOption(code=224, value="ü" * 128)],
)
def test_an_option_that_is_nobodys_own_is_refused(option: pb.DhcpOption) -> None:
    described = interface()
    described.dhcp.private_options.append(option)
    with pytest.raises(ValueError, match="224"):
        offers_by_bridge(spec(interfaces=[described]))


def test_the_server_of_an_interface_is_the_same_after_a_restart() -> None:
    lease = pb.Dhcpv6Lease(bridge="k6t-eth0", address="fd10:0:2::2", dns_servers=["fd00::a"])
    other = pb.Dhcpv6Lease(bridge="k6t-1", address="fd10:0:2::2")
    described = spec(interfaces=[interface(dhcpv6=lease), interface("other", dhcpv6=other)])
    one, same = (offers6_by_bridge(described) for _ in range(2))
    assert one == same
    assert one["k6t-eth0"].lease.address == IPv6Address("fd10:0:2::2")
    assert one["k6t-eth0"].lease.dns_servers == (IPv6Address("fd00::a"),)
    assert one["k6t-eth0"].lease.server != one["k6t-1"].lease.server
