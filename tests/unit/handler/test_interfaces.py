"""What a manifest's interfaces become: attachments to the pod, and devices of the guest."""

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
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

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.interfaces import (
    BLUE,
    BRIDGED,
    MASQUERADED,
    ON_BLUE,
    STEM,
    attachments,
    machine,
)
from tests.unit.handler.networks import GUEST_MAC, POD_MAC, WIRED, attached, wired
from tests.unit.handler.observations import observed, said


def built(it: v1.VirtualMachineInstance, network: PodNetwork) -> domain_pb2.InterfaceSpec:
    (interface,) = build_domain(it, pod(), network).interfaces
    return interface


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


def test_an_instance_that_another_machine_adopts_keeps_its_hardware_address() -> None:
    """Its guest runs on with the device that it has; the next instance of that machine has the machine's own."""
    owner = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "name": "myvm",
        "controller": True,
    }
    first = vmi(ownerReferences=[{**owner, "uid": "first"}])
    (own,) = attachments(first)
    assert isinstance(own.binding, Masquerade)
    status = {"phase": "Running", "interfaces": [{"name": "default", "mac": own.binding.mac}]}
    for owners in ([], [{**owner, "uid": "second"}]):
        adopted = vmi(ownerReferences=owners, status=status)
        assert attachments(adopted, "default", runs=True) == (own,)
        assert built(adopted, wired(attached())).mac == own.binding.mac
    assert attachments(vmi(ownerReferences=[{**owner, "uid": "second"}])) != (own,)


def test_queues() -> None:
    it = machine(MASQUERADED, networkInterfaceMultiqueue=True)
    assert built(it, wired(attached(queues=4))).queues == 4
    assert built(vmi(), WIRED).queues == 0
