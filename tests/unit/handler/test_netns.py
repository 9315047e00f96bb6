"""The network of a pod, wired for real in a namespace that the test makes. Needs root."""

import os

import pytest
from podvisor_handler.linux.process import ProcessEnded
from podvisor_handler.network.attachments import Attachment, Masquerade, Passt, Port
from podvisor_handler.network.netns import NetworkNotReady, NetworkRefused, wire

from tests.unit.handler.namespaces import inside, links_of, needs_root, pod
from tests.unit.handler.networks import GUEST_MAC

pytestmark = needs_root

MASQUERADED = (Attachment("default", Masquerade(GUEST_MAC)),)


async def test_a_fresh_pod_is_wired() -> None:
    with pod() as process:
        found = await wire(process, MASQUERADED)
        (attached,) = found.attached
        assert (attached.pod_interface, attached.mtu_bytes) == ("eth0", 1400)
        assert attached.addresses == ("10.244.1.5/24",)
        assert found.changed
        links = links_of(process)
        bridge, tap = links["k6t-eth0"], links["tap0"]
        assert bridge["linkinfo"]["info_kind"] == "bridge"
        assert bridge["address"] == "02:00:00:00:00:00"
        assert bridge["mtu"] == tap["mtu"] == 1400
        assert [a["local"] for a in bridge["addr_info"] if a["family"] == "inet"] == ["10.0.2.1"]
        assert tap["master"] == "k6t-eth0"
        assert "UP" in tap["flags"]
        assert tap["linkinfo"]["info_data"]["vnet_hdr"]
        assert not tap["linkinfo"]["info_data"]["multi_queue"]
        assert int(tap["linkinfo"]["info_data"]["user"]) == 107
        assert inside(process, "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
        assert inside(process, "cat", "/proc/sys/net/ipv6/conf/all/forwarding").strip() == "0"
        device = os.stat(f"/proc/{process.pid}/root/dev/net/tun")
        assert (device.st_rdev, device.st_mode & 0o777) == (os.makedev(10, 200), 0o666)


async def test_wiring_again_changes_nothing() -> None:
    with pod() as process:
        first = await wire(process, MASQUERADED)
        before = inside(process, "ip", "-j", "a")
        second = await wire(process, MASQUERADED)
        assert (first.changed, second.changed) == (True, False)
        assert inside(process, "ip", "-j", "a") == before


async def test_a_half_wired_pod_is_completed() -> None:
    with pod() as process:
        await wire(process, MASQUERADED)
        inside(process, "ip", "link", "del", "tap0")
        inside(process, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
        assert (await wire(process, MASQUERADED)).changed
        assert not (await wire(process, MASQUERADED)).changed


async def test_listed_ports_replace_the_ruleset() -> None:
    with pod() as process:
        await wire(process, MASQUERADED)
        ports = tuple(
            Port(protocol, number) for protocol in ("tcp", "udp") for number in range(1, 2500)
        )
        listed = (Attachment("default", Masquerade(GUEST_MAC, ports=ports)),)
        assert (await wire(process, listed)).changed
        assert not (await wire(process, listed)).changed


async def test_a_tap_of_several_queues() -> None:
    with pod() as process:
        await wire(process, (Attachment("default", Masquerade(GUEST_MAC), queues=4),))
        assert links_of(process)["tap0"]["linkinfo"]["info_data"]["multi_queue"]


async def test_passt_needs_no_device() -> None:
    with pod() as process:
        before = set(links_of(process))
        found = await wire(process, (Attachment("default", Passt()),))
        assert found.attached[0].pod_interface == "eth0"
        assert set(links_of(process)) == before
        groups = inside(process, "cat", "/proc/sys/net/ipv4/ping_group_range").split()
        assert groups == ["0", "2147483647"]
        assert not (await wire(process, (Attachment("default", Passt()),))).changed


async def test_a_pod_without_eth0_is_tried_again_later() -> None:
    with pod(links="") as process, pytest.raises(NetworkNotReady, match='"default"'):
        await wire(process, MASQUERADED)


async def test_the_interface_that_leads_to_the_world_may_have_another_name() -> None:
    links = """
ip link add net7 type veth peer name peer
ip addr add 10.244.1.5/24 dev net7
ip link set net7 up
ip link set peer up
ip route add default via 10.244.1.1
"""
    with pod(links=links) as process:
        (attached,) = (await wire(process, MASQUERADED)).attached
        assert attached.pod_interface == "net7"


async def test_the_nodes_own_network_is_never_touched() -> None:
    with pod(links="", own_network=False) as process, pytest.raises(NetworkRefused):
        await wire(process, MASQUERADED)


async def test_a_process_that_has_ended_is_not_mistaken() -> None:
    with pod() as process:
        pass
    with pytest.raises((ProcessEnded, OSError)):
        await wire(process, MASQUERADED)
