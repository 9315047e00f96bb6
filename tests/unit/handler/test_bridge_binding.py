"""A guest that takes over its pod's interface, for real: what it is told, whom it reaches, and what becomes of a start that was
broken off. Needs root."""

import contextlib
import json
import subprocess
from typing import Any

import pytest
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network import netns
from podvisor_handler.network.attachments import Attachment, Bridge, Masquerade
from podvisor_handler.network.facts import further_routes, gateway_of
from podvisor_handler.network.netns import NetworkNotReady, wire

from tests.unit.handler.bridged_pods import (
    BLUE,
    BRIDGED,
    MAC,
    ON_BLUE,
    POD,
    STEM,
    WITH_BLUE,
    neighbours,
)
from tests.unit.handler.namespaces import (
    inside,
    links_of,
    needs_root,
    neighbour,
    peer_seen,
    pod,
    within,
)
from tests.unit.handler.networks import GUEST_MAC

pytestmark = needs_root


async def test_the_guest_gets_what_the_interface_was() -> None:
    with pod(POD) as process:
        (attached,) = (await wire(process, BRIDGED)).attached
        assert (attached.pod_interface, attached.mac, attached.mtu_bytes) == ("eth0", MAC, 1400)
        assert attached.addresses == ("10.244.1.5/24", "2001:db8::5/64")
        assert gateway_of(attached) == "10.244.1.1"
        (route,) = further_routes(attached)
        assert (route.destination, route.gateway) == ("10.96.0.0/12", "10.244.1.2")
        links = links_of(process)
        assert links["eth0"]["address"] != MAC
        assert links["eth0"]["master"] == links["tap0"]["master"] == "k6t-eth0"
        assert links["eth0"]["addr_info"] == []
        assert links["k6t-eth0"]["mtu"] == 1400
        assert "10.244.1.5" not in inside(process, "ip", "route", "show", "table", "local")


async def test_a_handler_that_knows_nothing_finds_the_same() -> None:
    with pod(POD) as process:
        first = await wire(process, BRIDGED)
        again = await wire(process, BRIDGED)
        assert not again.changed
        assert again.attached == first.attached


def state_of(process: PinnedProcess) -> Any:
    """All that wiring decides, without what differs from one namespace to the next."""
    links = {
        name: (
            link["address"] if not name.startswith("tap") else "",
            link["mtu"],
            link.get("master"),
            "UP" in link["flags"],
            sorted(
                (each["local"], each.get("address"), each["prefixlen"])
                for each in link["addr_info"]
                if each["scope"] == "global"
            ),
        )
        for name, link in links_of(process).items()
        if name not in ("uplink", "blue", BLUE)
    }
    routes = json.loads(inside(process, "ip", "-j", "route", "show", "table", "all"))
    kept = sorted(
        str((each.get("table"), each["dst"], each.get("gateway"), each["dev"]))
        for each in routes
        # Those to link-local addresses come when the kernel has found nobody else with them, a second later.
        if each.get("type") != "local" and not each["dst"].startswith("fe80:")
    )
    return links, kept, inside(process, "nft", "list", "ruleset")


class Refused(OSError):
    """What the kernel would say."""


@pytest.mark.parametrize(
    "desired",
    [
        (Attachment("default", Bridge()), ON_BLUE),
        (Attachment("default", Masquerade(GUEST_MAC)), ON_BLUE),
    ],
    ids=["bridge", "masquerade"],
)
async def test_a_start_broken_off_after_any_operation_is_completed(
    monkeypatch: pytest.MonkeyPatch, desired: tuple[Attachment, ...]
) -> None:
    real = netns.carry_out
    with pod(WITH_BLUE) as process:
        expected = await wire(process, desired)
        state = state_of(process)
    for allowed in range(100):
        left = allowed

        def carry_out(*arguments: Any) -> None:
            nonlocal left
            if left == 0:
                raise Refused(1, "broken off")
            left -= 1
            real(*arguments)

        with pod(WITH_BLUE) as process:
            monkeypatch.setattr(netns, "carry_out", carry_out)
            with contextlib.suppress(NetworkNotReady):
                await wire(process, desired)
                break
            monkeypatch.setattr(netns, "carry_out", real)
            found = await wire(process, desired)
            assert [each.addresses for each in found.attached] == [
                each.addresses for each in expected.attached
            ], allowed
            assert found.attached[0] == expected.attached[0], allowed
            assert state_of(process)[0].keys() == state[0].keys(), allowed
            assert _without_blue(state_of(process)) == _without_blue(state), allowed
            assert not (await wire(process, desired)).changed
    assert allowed > 15


def _without_blue(state: Any) -> Any:
    """Its hardware address is the kernel's choice."""
    links, routes, ruleset = state
    links = {name: link for name, link in links.items() if STEM not in name}
    tables = [line for line in ruleset.splitlines() if "ether" not in line and "@ll" not in line]
    return links, routes, [line for line in tables if "comment" not in line]


async def test_a_network_without_addresses() -> None:
    with pod(WITH_BLUE) as process:
        found = await wire(process, (Attachment("default", Masquerade(GUEST_MAC)), ON_BLUE))
        blue = found.of("blue")
        assert blue is not None
        assert (blue.pod_interface, blue.addresses, blue.routes) == (BLUE, (), ())
        links = links_of(process)
        assert links[f"tap{STEM}"]["master"] == links[BLUE]["master"] == f"k6t-{STEM}"
        assert not (
            await wire(process, (Attachment("default", Masquerade(GUEST_MAC)), ON_BLUE))
        ).changed


async def test_an_interface_that_is_not_there_yet() -> None:
    later = Attachment("blue", Bridge(), BLUE, may_come_later=True)
    with pod(POD) as process:
        with pytest.raises(NetworkNotReady, match='"blue"'):
            await wire(process, (*BRIDGED, ON_BLUE))
        found = await wire(process, (*BRIDGED, later))
        assert found.missing == (later,)
        assert [each.attachment for each in found.attached] == [*BRIDGED]


async def test_what_is_wanted_no_more_is_removed() -> None:
    with pod(WITH_BLUE) as process:
        await wire(process, (*BRIDGED, ON_BLUE))
        assert (await wire(process, BRIDGED)).changed
        assert {f"k6t-{STEM}", f"tap{STEM}"}.isdisjoint(links_of(process))
        # What the pod's interface was is not forgotten as long as it is there.
        assert f"was-{STEM}" in links_of(process)
        inside(process, "ip", "link", "del", BLUE)
        assert (await wire(process, BRIDGED)).changed
        assert f"was-{STEM}" not in links_of(process)
        assert not (await wire(process, BRIDGED)).changed


WITH_FIXED = """
ip link add {name} address 02:00:00:00:00:77 type veth peer name {peer}
ip addr add {address}/24 dev {name}
ip link set {name} up
ip link set {peer} up
ip route add 10.9.0.0/16 via {gateway}
"""


async def test_another_interface_of_the_same_name_and_hardware_address() -> None:
    """As it comes when a network with a fixed `macAddress` is unplugged and plugged, and the handler looks only afterwards."""
    first = WITH_FIXED.format(name=BLUE, peer="blue", address="10.7.0.5", gateway="10.7.0.1")
    second = WITH_FIXED.format(name=BLUE, peer="blue", address="10.7.0.6", gateway="10.7.0.2")
    with pod(POD + first) as process:
        await wire(process, (*BRIDGED, ON_BLUE))
        await wire(process, BRIDGED)
        inside(process, "ip", "link", "del", BLUE)
        inside(process, "sh", "-ec", second)
        found = (await wire(process, (*BRIDGED, ON_BLUE))).of("blue")
        assert found is not None
        assert found.addresses == ("10.7.0.6/24",)
        assert [route.gateway for route in further_routes(found)] == ["10.7.0.2"]
        again = await wire(process, (*BRIDGED, ON_BLUE))
        assert again.of("blue") == found
        assert not again.changed


async def test_nothing_is_left_on_the_node() -> None:
    before = subprocess.run(["ip", "-o", "link"], capture_output=True, check=True).stdout  # noqa: ASYNC221
    with pod(WITH_BLUE) as process:
        await wire(process, (*BRIDGED, ON_BLUE))
    after = subprocess.run(["ip", "-o", "link"], capture_output=True, check=True).stdout  # noqa: ASYNC221
    assert _names(after) == _names(before)


def _names(listed: bytes) -> set[bytes]:
    return {line.split(b":")[1] for line in listed.splitlines()}


@pytest.mark.parametrize("kind", ["tcp", "udp"])
async def test_guest_and_neighbour_reach_each_other(kind: str) -> None:
    with pod(POD) as process:
        await wire(process, BRIDGED)
        with neighbours(process) as (guest, other):
            assert await peer_seen(guest, other, "10.244.1.5", 22, kind) == "10.244.1.1"
            assert await peer_seen(other, guest, "10.244.1.1", 80, kind) == "10.244.1.5"
            assert await peer_seen(guest, other, "2001:db8::5", 22, kind) == "2001:db8::1"


async def test_neighbours_are_found_though_the_node_sends_back_what_the_guest_broadcasts() -> None:
    """As the node does by a port in hairpin mode, which network plugins set."""
    with pod(f"{POD}ip link add port type veth peer name cable\n") as process:
        await wire(process, BRIDGED)
        with (
            neighbours(process) as (guest, node),
            neighbour(process, "cable", ["10.244.1.6/24"]) as another,
        ):
            inside(process, "ip", "link", "set", "port", "netns", f"/proc/{node}/ns/net")
            within(node, "ip", "link", "add", "node0", "type", "bridge")
            for port in ("uplink", "port"):
                within(node, "ip", "link", "set", port, "master", "node0", "up")
            within(node, "bridge", "link", "set", "dev", "uplink", "hairpin", "on")
            within(node, "ip", "link", "set", "node0", "up")
            assert await peer_seen(another, guest, "10.244.1.6", 80, "tcp") == "10.244.1.5"


async def test_the_guest_reaches_its_dhcp_server_and_nobody_elses() -> None:
    """It takes it for one behind a router, as its address is on no network of the guest's."""
    with pod(POD) as process:
        await wire(process, BRIDGED)
        with neighbours(process) as (guest, _):
            assert await peer_seen(process.pid, guest, "169.254.75.10", 67, "udp") == "10.244.1.5"
