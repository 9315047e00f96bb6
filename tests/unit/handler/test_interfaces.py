"""What a manifest's interfaces become: attachments to the pod, devices of the guest, entries of the status."""

import json
from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_common.launcher_pod import secondary_interface_name
from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.attachments import (
    Attachment,
    Bridge,
    GuestNetwork,
    Masquerade,
    Passt,
    Port,
)
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.network.namespace import Route
from podvisor_handler.vmi.build import build_domain
from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.interfaces import attachments_of
from podvisor_handler.vmi.status import needs_write

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.networks import GUEST_MAC, POD_MAC, WIRED, attached, wired
from tests.unit.handler.observations import observed, said

BLUE = secondary_interface_name("blue")
STEM = BLUE.removeprefix("pod")
TO_BLUE = {"name": "blue", "multus": {"networkName": "blue"}}
ON_BLUE = {"name": "blue", "bridge": {}}


def machine(
    *interfaces: dict[str, Any], pod_network: dict[str, Any] | None = None, **devices: Any
) -> v1.VirtualMachineInstance:
    """A machine with interfaces: `default` leads to the pod's network, `blue` to one of Multus."""
    networks = [{"name": "default", "pod": pod_network or {}}, TO_BLUE]
    named = {interface["name"] for interface in interfaces}
    domain = {
        "memory": {"guest": "64M"},
        "cpu": {"cores": 4},
        "devices": {"interfaces": list(interfaces), **devices},
    }
    return vmi(
        spec={"domain": domain, "networks": [each for each in networks if each["name"] in named]}
    )


def attachments(
    it: v1.VirtualMachineInstance,
    *reported: str,
    runs: bool = False,
    network: PodNetwork | None = None,
    **report: Any,
) -> tuple[Attachment, ...]:
    interfaces = [domain_pb2.InterfaceReport(name=name) for name in reported]
    report = {"state": RUNNING, "accepted_generation": 1, "devices_settled": True, **report}
    said = domain_pb2.DomainReport(interfaces=interfaces, **report)
    return attachments_of(it, said, network, runs=runs)


def built(it: v1.VirtualMachineInstance, network: PodNetwork) -> domain_pb2.InterfaceSpec:
    (interface,) = build_domain(it, pod(), network).interfaces
    return interface


RUNNING = domain_pb2.DOMAIN_STATE_RUNNING
UNREACHABLE = domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE
MASQUERADED = {"name": "default", "masquerade": {}}
BRIDGED = {"name": "default", "bridge": {}}


@pytest.mark.parametrize(
    ("it", "expected"),
    [
        pytest.param(vmi(), Attachment("default", Masquerade(GUEST_MAC)), id="nothing is said"),
        pytest.param(
            machine(
                {**MASQUERADED, "ports": [{"port": 53, "protocol": "UDP"}, {"port": 22}]},
                pod_network={"vmNetworkCIDR": "192.168.7.0/28", "vmIPv6NetworkCIDR": "fd00:7::/64"},
            ),
            Attachment(
                "default",
                Masquerade(
                    GUEST_MAC,
                    GuestNetwork("192.168.7.0/28"),
                    GuestNetwork("fd00:7::/64"),
                    (Port("tcp", 22), Port("udp", 53)),
                ),
            ),
            id="ports and networks",
        ),
        pytest.param(
            machine(MASQUERADED, pod_network={"vmNetworkCIDR": "10.0.3.7/24"}),
            Attachment("default", Masquerade(GUEST_MAC, GuestNetwork("10.0.3.0/24"))),
            id="a network named by an address in it, as admission lets pass",
        ),
        pytest.param(machine(BRIDGED), Attachment("default", Bridge()), id="bridge"),
        pytest.param(
            machine({**BRIDGED, "macAddress": "02-AA-00-00-00-01"}),
            Attachment("default", Bridge("02:aa:00:00:00:01")),
            id="bridge with a hardware address of its own",
        ),
        pytest.param(
            machine({**MASQUERADED, "macAddress": "02-AA-00-00-00-01"}),
            Attachment("default", Masquerade("02:aa:00:00:00:01")),
            id="masquerade with a hardware address of its own",
        ),
        pytest.param(
            machine({"name": "default", "passtBinding": {}, "ports": [{"port": 80}]}),
            Attachment("default", Passt((Port("tcp", 80),))),
            id="passt",
        ),
        pytest.param(machine(ON_BLUE), Attachment("blue", Bridge(), BLUE), id="Multus"),
        pytest.param(
            machine(MASQUERADED, networkInterfaceMultiqueue=True),
            Attachment("default", Masquerade(GUEST_MAC), queues=4),
            id="as many queues as processors",
        ),
        pytest.param(
            machine({**MASQUERADED, "model": "e1000"}, networkInterfaceMultiqueue=True),
            Attachment("default", Masquerade(GUEST_MAC)),
            id="a model with one queue",
        ),
        pytest.param(
            machine({"name": "default", "passtBinding": {}}, networkInterfaceMultiqueue=True),
            Attachment("default", Passt()),
            id="a binding with one queue",
        ),
    ],
)
def test_attachments(it: v1.VirtualMachineInstance, expected: Attachment) -> None:
    assert attachments(it) == (expected,)


@pytest.mark.parametrize(
    "without",
    [
        vmi(
            spec={
                "domain": {"memory": {"guest": "64M"}, "devices": {"autoattachPodInterface": False}}
            }
        ),
        machine(),
    ],
    ids=["none is wanted", "all have left"],
)
def test_no_interface(without: v1.VirtualMachineInstance) -> None:
    """An instance without a word about interfaces was given one when it was made."""
    assert attachments(without) == ()
    assert not build_domain(without, pod(), WIRED).interfaces
    assert said(observed(machine=without)).interfaces is None


def test_multus_may_take_the_place_of_the_pods_own_network() -> None:
    default = {"name": "blue", "multus": {"networkName": "blue", "default": True}}
    domain = {"memory": {"guest": "64M"}, "devices": {"interfaces": [ON_BLUE]}}
    it = vmi(spec={"domain": domain, "networks": [default]})
    assert attachments(it) == (Attachment("blue", Bridge()),)


def test_only_a_guest_that_runs_does_without_what_comes_later() -> None:
    it = machine(MASQUERADED, ON_BLUE)
    assert [each.may_come_later for each in attachments(it)] == [False, False]
    assert [each.may_come_later for each in attachments(it, runs=True)] == [False, True]


def test_what_the_guest_is_to_lose_stays_until_it_has_let_go_of_it() -> None:
    it = machine(MASQUERADED, {**ON_BLUE, "state": "absent"})
    assert [each.network for each in attachments(it, "blue")] == ["default", "blue"]
    assert [each.network for each in attachments(it, "default")] == ["default"]
    both = wired(attached(), attached("blue", Bridge(), is_secondary=True))
    assert built(it, both).name == "default"


WITHOUT_BLUE = msgspec.structs.replace(
    machine(MASQUERADED, {**ON_BLUE, "state": "absent"}),
    status=v1.VirtualMachineInstanceStatus(phase="Running"),
)
WITH_BLUE_STILL = wired(attached(), attached("blue", Bridge(), is_secondary=True))


@pytest.mark.parametrize(
    ("network", "report", "stays"),
    [
        pytest.param(WITH_BLUE_STILL, {}, False, id="all devices are told"),
        pytest.param(WITH_BLUE_STILL, {"devices_settled": False}, True, id="not all are told yet"),
        pytest.param(WITH_BLUE_STILL, {"reason": UNREACHABLE}, True, id="libvirt is away"),
        pytest.param(
            WITH_BLUE_STILL, {"accepted_generation": 0}, True, id="the launcher was not told to"
        ),
        pytest.param(
            WITH_BLUE_STILL,
            {"state": domain_pb2.DOMAIN_STATE_PREPARING, "devices_settled": False},
            True,
            id="the guest is being started",
        ),
        pytest.param(
            WITH_BLUE_STILL,
            {"state": domain_pb2.DOMAIN_STATE_NONE, "devices_settled": False},
            False,
            id="there was no guest yet",
        ),
        pytest.param(None, {"devices_settled": False}, True, id="what was wired is not known"),
        pytest.param(None, {}, False, id="what was wired is not known, and nobody has it"),
        pytest.param(WIRED, {"devices_settled": False}, False, id="it is removed already"),
    ],
)
def test_a_tap_is_removed_only_when_nobody_has_it_for_sure(
    network: PodNetwork | None, report: dict[str, Any], stays: bool
) -> None:
    wanted = attachments(WITHOUT_BLUE, "default", network=network, runs=True, **report)
    assert ("blue" in {each.network for each in wanted}) is stays
    status = statuses(
        WITHOUT_BLUE,
        network or WITH_BLUE_STILL,
        **{"interfaces": [reported("default")], "accepted_generation": 1, "devices_settled": True}
        | report,
    )
    attached_still = {each.name for each in status if each.is_attached}
    assert ("blue" in attached_still) is stays


def test_an_interface_that_came_and_is_not_to_stay_is_told_until_the_launcher_knows() -> None:
    """The specification that asks for it may be under way."""
    awaited = reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_AWAITED)
    told = {"accepted_generation": 0, "devices_settled": True}
    status = statuses(WITHOUT_BLUE, WITH_BLUE_STILL, interfaces=[awaited], **told)
    assert [each.name for each in status if each.is_attached] == ["blue"]


def test_what_was_said_of_interfaces_stays_while_the_launcher_says_nothing() -> None:
    known = statuses(machine(MASQUERADED, ON_BLUE), WITH_BLUE_STILL)
    it = msgspec.structs.replace(
        WITHOUT_BLUE, status=v1.VirtualMachineInstanceStatus(phase="Running", interfaces=known)
    )
    silent = observed(
        None,
        machine=it,
        network=WITH_BLUE_STILL,
        connection=Connection.UNRESPONSIVE,
        silent_for_s=60,
    )
    assert said(silent).interfaces == known


@pytest.mark.parametrize(
    ("field", "cidr"),
    [
        ("vmNetworkCIDR", "10.0.2.0/33"),
        ("vmNetworkCIDR", "10.0.2.0/31"),
        ("vmNetworkCIDR", "fd00::/120"),
        ("vmIPv6NetworkCIDR", "10.0.2.0/24"),
    ],
)
def test_a_network_that_is_none(field: str, cidr: str) -> None:
    with pytest.raises(SpecRefused, match=rf'spec\.networks "default": pod\.{field}'):
        attachments(machine(MASQUERADED, pod_network={field: cidr}))


def test_the_default_interface() -> None:
    interface = built(vmi(), WIRED)
    assert (interface.name, interface.model, interface.tap) == ("default", "virtio", "tap0")
    assert interface.mtu_bytes == 1450
    assert not interface.is_pluggable
    lease = interface.dhcp
    assert (lease.bridge, lease.server, lease.gateway) == ("k6t-eth0", "10.0.2.1", "10.0.2.1")
    assert (lease.address, lease.prefix_length, lease.hostname) == ("10.0.2.2", 24, "myvm")
    assert list(lease.dns_servers) == ["10.96.0.10"]
    assert list(lease.dns_search) == ["default.svc.cluster.local"]
    assert not interface.HasField("dhcpv6")


def test_an_address_of_ipv6_where_the_pod_has_one() -> None:
    both = wired(attached("default", Masquerade(GUEST_MAC), "10.244.0.7/24", "fd00:244::7/64"))
    lease = built(vmi(), both).dhcpv6
    assert (lease.bridge, lease.address) == ("k6t-eth0", "fd10:0:2::2")
    assert list(lease.dns_servers) == ["fd00:96::a"]
    only = built(vmi(), wired(attached("default", Masquerade(GUEST_MAC), "fd00:244::7/64")))
    assert (only.HasField("dhcp"), only.HasField("dhcpv6")) == (False, True)


def test_a_bridged_guest_is_told_what_the_pods_interface_was() -> None:
    routes = (
        Route("eth0", "0.0.0.0/0", "10.244.0.1"),
        Route("eth0", "10.96.0.0/12", "10.244.0.2"),
    )
    network = wired(attached("default", Bridge(), "10.244.0.7/24", routes=routes))
    interface = built(machine(BRIDGED), network)
    assert (interface.mac, interface.tap) == (POD_MAC, "tap0")
    lease = interface.dhcp
    assert (lease.address, lease.prefix_length) == ("10.244.0.7", 24)
    assert (lease.gateway, lease.server) == ("10.244.0.1", "169.254.75.10")
    (route,) = lease.routes
    assert (route.destination, route.gateway) == ("10.96.0.0/12", "10.244.0.2")


def test_a_router_outside_of_the_guests_network_has_a_route_of_its_own() -> None:
    routes = (Route("eth0", "0.0.0.0/0", "169.254.1.1"),)
    lease = built(
        machine(BRIDGED), wired(attached("default", Bridge(), "10.244.0.7/32", routes=routes))
    ).dhcp
    assert lease.gateway == "169.254.1.1"
    assert [(each.destination, each.gateway) for each in lease.routes] == [("169.254.1.1/32", "")]


def test_nobody_answers_dhcp_where_nobody_hands_out_addresses() -> None:
    interface = built(machine(ON_BLUE), wired(attached("blue", Bridge(), is_secondary=True)))
    assert interface.tap == f"tap{STEM}"
    assert interface.is_pluggable
    assert not interface.HasField("dhcp")


def test_passt_has_no_tap() -> None:
    binding = Passt((Port("tcp", 80),))
    it = machine({"name": "default", "passtBinding": {}, "ports": [{"port": 80}]})
    interface = built(it, wired(attached("default", binding)))
    assert (interface.tap, interface.passt.pod_interface) == ("", "eth0")
    assert [(each.protocol, each.number) for each in interface.passt.ports] == [("tcp", 80)]


def test_the_device_is_as_it_is_described() -> None:
    options = {
        "bootFileName": "boot",
        "tftpServerName": "tftp",
        "ntpServers": ["10.0.0.1"],
        "privateOptions": [{"option": 240, "value": "x"}],
    }
    described = {
        **MASQUERADED,
        "model": "e1000e",
        "macAddress": "02:AA:00:00:00:01",
        "bootOrder": 2,
        "pciAddress": "0000:81:01.0",
        "acpiIndex": 101,
        "state": "down",
        "dhcpOptions": options,
    }
    interface = built(machine(described), WIRED)
    assert (interface.model, interface.mac) == ("e1000e", "02:aa:00:00:00:01")
    assert (interface.boot_order, interface.acpi_index) == (2, 101)
    assert (interface.pci_address, interface.link_down) == ("0000:81:01.0", True)
    lease = interface.dhcp
    assert (lease.boot_file_name, lease.tftp_server_name) == ("boot", "tftp")
    assert list(lease.ntp_servers) == ["10.0.0.1"]
    assert [(each.code, each.value) for each in lease.private_options] == [(240, "x")]


def test_queues() -> None:
    it = machine(MASQUERADED, networkInterfaceMultiqueue=True)
    assert built(it, wired(attached(queues=4))).queues == 4
    assert built(vmi(), WIRED).queues == 0


OF_MULTUS = json.dumps(
    [
        {"name": "cbr0", "interface": "eth0", "ips": ["10.244.0.7"], "default": True, "dns": {}},
        {"name": "default/blue", "interface": BLUE, "mac": POD_MAC, "dns": {}},
    ]
)


def statuses(
    it: v1.VirtualMachineInstance, network: PodNetwork, told: str = OF_MULTUS, /, **report: Any
) -> list[v1.NetworkInterfaceStatus]:
    """Of a pod to which Multus says that it has given so much."""
    carrier = pod(annotations={"k8s.v1.cni.cncf.io/network-status": told})
    return said(observed(machine=it, carrier=carrier, network=network, **report)).interfaces or []


def reported(name: str, **fields: Any) -> domain_pb2.InterfaceReport:
    return domain_pb2.InterfaceReport(name=name, **{"queues": 1, "link_up": True, **fields})


def test_the_status_of_an_interface() -> None:
    (status,) = statuses(vmi(), WIRED)
    assert (status.ip_address, status.ip_addresses) == ("10.244.0.7", ["10.244.0.7"])
    assert (status.queue_count, status.link_state) == (1, "up")
    assert (status.pod_interface_name, status.info_source) == ("eth0", "domain")


def test_the_status_tells_all_addresses_and_networks() -> None:
    both = wired(
        attached("default", Masquerade(GUEST_MAC), "10.244.0.7/24", "fd00:244::7/64"),
        attached("blue", Bridge(), "192.168.7.2/24", "fd00:7::2/64", is_secondary=True),
    )
    it = machine(MASQUERADED, ON_BLUE)
    first, second = statuses(it, both, interfaces=[reported("default"), reported("blue")])
    assert first.ip_addresses == ["10.244.0.7", "fd00:244::7"]
    assert (second.mac, second.ip_address) == (POD_MAC, "192.168.7.2")
    assert second.ip_addresses == ["192.168.7.2"]  # of IPv6 a bridged guest is told nothing
    assert (second.pod_interface_name, second.info_source) == (BLUE, "domain, multus-status")


@pytest.mark.parametrize(
    ("report", "sources", "link"),
    [
        ([reported("default")], "multus-status", ""),
        (
            [reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_AWAITED)],
            "multus-status",
            "",
        ),
        (
            [reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_ATTACHED)],
            "domain, multus-status",
            "up",
        ),
        ([reported("blue", link_up=False)], "domain, multus-status", "down"),
    ],
    ids=["only in the pod", "on its way", "attached", "without a carrier"],
)
def test_where_an_interface_is(
    report: list[domain_pb2.InterfaceReport], sources: str, link: str
) -> None:
    network = wired(attached("blue", Bridge(), is_secondary=True))
    (status,) = statuses(machine(ON_BLUE), network, interfaces=report)
    assert (status.info_source, status.link_state) == (sources, link)


@pytest.mark.parametrize(
    "told",
    [
        "[]",
        "",
        "{",
        '{"interface": "x"}',
        "[1]",
        '[{"interface": 1}]',
        '[{"name": "default/blue"}]',
    ],
)
def test_multus_is_the_source_of_what_it_says_it_has_given(told: str) -> None:
    network = wired(attached("blue", Bridge(), is_secondary=True))
    (status,) = statuses(machine(ON_BLUE), network, told, interfaces=[reported("blue")])
    assert (status.info_source, status.pod_interface_name) == ("domain", BLUE)


def test_what_the_guest_has_let_go_of_is_not_told() -> None:
    it = machine(MASQUERADED, {**ON_BLUE, "state": "absent"})
    network = wired(attached(), attached("blue", Bridge(), is_secondary=True))
    detaching = [
        reported("default"),
        reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_DETACHING),
    ]
    assert [each.name for each in statuses(it, network, interfaces=detaching)] == [
        "default",
        "blue",
    ]
    settled = {"accepted_generation": 1, "devices_settled": True}
    left = statuses(it, network, interfaces=detaching[:1], **settled)
    assert [each.name for each in left] == ["default"]


def test_the_last_interface_leaves_the_status() -> None:
    """It is asked of Multus as long as the status has it."""
    network = wired(attached("blue", Bridge(), is_secondary=True))
    known = statuses(machine(ON_BLUE), network, interfaces=[reported("blue")])
    assert [each.name for each in known if each.is_attached] == ["blue"]
    it = msgspec.structs.replace(
        machine({**ON_BLUE, "state": "absent"}),
        status=v1.VirtualMachineInstanceStatus(phase="Running", interfaces=known),
    )
    settled: dict[str, Any] = {"accepted_generation": 1, "devices_settled": True}
    left = said(observed(machine=it, network=network, **settled))
    assert left.interfaces is None
    current = msgspec.structs.replace(left, interfaces=known)
    assert needs_write(current, left)
    assert not needs_write(left, left)
    assert not needs_write(msgspec.structs.replace(left, interfaces=[]), left)
