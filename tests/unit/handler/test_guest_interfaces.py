"""What a guest's agent tells, in the status beside what the handler knows."""

from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_handler.network.attachments import Bridge, Masquerade, Passt
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.status import needs_write

from tests.unit.handler.builders import vmi
from tests.unit.handler.networks import POD_MAC, attached, wired
from tests.unit.handler.observations import condition, observed, said

OWN_MAC = "02:00:00:00:00:0a"
MASQUERADED = {"name": "default", "masquerade": {}, "macAddress": OWN_MAC}
BRIDGED = {"name": "default", "bridge": {}}
BLUE = {"name": "blue", "bridge": {}, "macAddress": "02:00:00:00:00:0b"}
BLUE_MAC = "02:00:00:00:00:0b"


def machine(*interfaces: dict[str, Any], **arguments: Any) -> v1.VirtualMachineInstance:
    networks = [
        {"name": "default", "pod": {}},
        {"name": "blue", "multus": {"networkName": "blue"}},
    ]
    named = {interface["name"] for interface in interfaces}
    domain = {"memory": {"guest": "64M"}, "devices": {"interfaces": list(interfaces)}}
    chosen = [each for each in networks if each["name"] in named]
    return vmi(spec={"domain": domain, "networks": chosen}, **arguments)


def device(name: str, mac: str, *addresses: str) -> domain_pb2.GuestInterface:
    return domain_pb2.GuestInterface(name=name, mac=mac, addresses=addresses)


def told(*devices: domain_pb2.GuestInterface) -> dict[str, Any]:
    """A report of an agent that has answered."""
    agent = domain_pb2.GuestAgentReport(connected=True, answered=True, interfaces=devices)
    return {"guest_agent": agent}


# Of an agent that has opened its channel, and of one that has closed it.
SILENT: dict[str, Any] = {"guest_agent": domain_pb2.GuestAgentReport(connected=True)}
GONE: dict[str, Any] = {"guest_agent": domain_pb2.GuestAgentReport()}


def statuses(
    it: v1.VirtualMachineInstance, network: PodNetwork, **report: Any
) -> list[v1.NetworkInterfaceStatus]:
    return said(observed(machine=it, network=network, **report)).interfaces or []


BOTH = ("10.244.0.7/24", "fd00:244::7/64")


@pytest.mark.parametrize(
    ("interface", "network", "addresses", "expected"),
    [
        pytest.param(
            MASQUERADED,
            attached("default", Masquerade(OWN_MAC), *BOTH),
            ["10.0.2.2", "fd10:0:2::2", "fe80::1"],
            ["10.244.0.7", "fd00:244::7"],
            id="masquerade: where others reach it, the guest does not know",
        ),
        pytest.param(
            {"name": "default", "passtBinding": {}, "macAddress": OWN_MAC},
            attached("default", Passt(), *BOTH),
            ["1.1.1.1"],
            ["10.244.0.7", "fd00:244::7"],
            id="passt: the pod's, whatever the guest says",
        ),
        pytest.param(
            BRIDGED | {"macAddress": OWN_MAC},
            attached("default", Bridge(OWN_MAC), "10.244.0.7/24"),
            ["fe80::1", "192.168.7.1", "10.244.0.7", "fd00::1"],
            ["10.244.0.7", "192.168.7.1", "fd00::1", "fe80::1"],
            id="bridge: its own, and the pod's first",
        ),
        pytest.param(
            BRIDGED | {"macAddress": OWN_MAC},
            attached("default", Bridge(OWN_MAC), *BOTH),
            ["fd00:244::7", "192.168.7.1"],
            ["10.244.0.7", "192.168.7.1", "fd00:244::7"],
            id="bridge: what it was told first, and that is nothing of IPv6",
        ),
        pytest.param(
            BRIDGED | {"macAddress": OWN_MAC},
            attached("default", Bridge(OWN_MAC), *BOTH),
            [f"10.1.0.{number}" for number in range(10, 40)],
            ["10.244.0.7", *(f"10.1.0.{number}" for number in range(10, 25))],
            id="bridge: no more than are told",
        ),
        pytest.param(
            BRIDGED | {"macAddress": OWN_MAC},
            attached("default", Bridge(OWN_MAC), "10.244.0.7/24"),
            ["10.96.0.1"],
            ["10.244.0.7", "10.96.0.1"],
            id="bridge: a guest that says it has another",
        ),
        pytest.param(
            BRIDGED | {"macAddress": OWN_MAC},
            attached("default", Bridge(OWN_MAC), "10.244.0.7/24"),
            [],
            ["10.244.0.7"],
            id="bridge: a guest that has none yet",
        ),
        pytest.param(
            BLUE,
            attached("blue", Bridge(BLUE_MAC), is_secondary=True),
            ["fe80::1", "192.168.7.1"],
            ["192.168.7.1", "fe80::1"],
            id="a network that gives no addresses",
        ),
        pytest.param(
            BLUE,
            attached("blue", Bridge(BLUE_MAC), is_secondary=True),
            ["fe80::1"],
            ["fe80::1"],
            id="better than none",
        ),
        pytest.param(
            BLUE,
            attached("blue", Bridge(BLUE_MAC), is_secondary=True),
            [],
            [],
            id="none",
        ),
    ],
)
def test_which_addresses_an_interface_has(
    interface: dict[str, Any], network: Any, addresses: list[str], expected: list[str]
) -> None:
    mac = interface["macAddress"]
    (status,) = statuses(
        machine(interface), wired(network), **told(device("enp1s0", mac, *addresses))
    )
    assert (status.name, status.mac, status.interface_name) == (interface["name"], mac, "enp1s0")
    assert (status.ip_addresses or []) == expected
    assert status.ip_address == (expected[0] if expected else "")
    assert status.info_source == "domain, guest-agent"


def test_a_guest_with_the_pods_hardware_address() -> None:
    network = wired(attached("default", Bridge(), "10.244.0.7/24"))
    (status,) = statuses(machine(BRIDGED), network, **told(device("eth0", POD_MAC)))
    assert (status.interface_name, status.ip_address) == ("eth0", "10.244.0.7")


def test_what_only_the_guest_knows_comes_last_and_from_it_alone() -> None:
    """Also what it has built on a device that it was given, which has that one's hardware address."""
    devices = [
        device("docker0", "02:42:00:00:00:01", "172.17.0.1"),
        device("eth0", OWN_MAC, "10.0.2.2"),
        device("eth0.5", OWN_MAC, "fe80::5", "10.5.0.1"),
        device("tun0", "", "10.8.0.2"),
    ]
    network = wired(attached("default", Masquerade(OWN_MAC)))
    first, *others = statuses(machine(MASQUERADED), network, **told(*devices))
    assert (first.name, first.interface_name, first.ip_address) == ("default", "eth0", "10.244.0.7")
    assert others == [
        v1.NetworkInterfaceStatus(
            interface_name=name,
            mac=mac,
            ip_address=addresses[0],
            ip_addresses=addresses,
            info_source="guest-agent",
        )
        for name, mac, addresses in (
            ("docker0", "02:42:00:00:00:01", ["172.17.0.1"]),
            ("eth0.5", OWN_MAC, ["10.5.0.1", "fe80::5"]),
            ("tun0", "", ["10.8.0.2"]),
        )
    ]


def test_a_launcher_is_not_believed_that_has_looked_at_nothing() -> None:
    """It runs beside the guest, which may have taken it over."""
    devices = [device(f"e\x1b[3{number}m", "no", "x", "127.0.0.1") for number in range(10)]
    devices += [device("x" * 100_000, "", *["10.0.0.1"] * 1000) for number in range(100)]
    network = wired(attached("default", Masquerade(OWN_MAC)))
    _, *others = statuses(machine(MASQUERADED), network, **told(*devices))
    assert len(others) == 32
    assert {(each.interface_name, each.ip_address) for each in others} == {("x" * 64, "10.0.0.1")}


@pytest.mark.parametrize(
    "report",
    [{}, SILENT],
    ids=["a launcher that has not looked yet", "an agent that has not answered yet"],
)
def test_what_was_told_lasts_until_there_is_news(report: dict[str, Any]) -> None:
    """A launcher that is restarted asks anew, and nobody shall see that."""
    network = wired(
        attached("default", Masquerade(OWN_MAC)),
        attached("blue", Bridge(), "192.168.7.1/24", is_secondary=True),
    )
    interfaces = (MASQUERADED, BLUE)
    devices = [
        device("eth0", OWN_MAC, "10.0.2.2"),
        device("eth1", BLUE_MAC, "fe80::1", *(f"192.168.7.{number}" for number in range(10, 40))),
        device("docker0", "", "172.17.0.1"),
    ]
    before = said(observed(machine=machine(*interfaces), network=network, **told(*devices)))
    assert condition(before, "AgentConnected") == ("True", "")
    it = machine(*interfaces, status=msgspec.to_builtins(before))
    after = said(observed(machine=it, network=network, **report))
    assert after.interfaces == before.interfaces
    assert condition(after, "AgentConnected") == ("True", "")
    assert not needs_write(it.status, after)


@pytest.mark.parametrize(
    "devices", [(), (device("eth0", OWN_MAC, "10.0.2.2"),)], ids=["no device", "one of them"]
)
def test_what_the_agent_does_not_tell_of_any_more_is_gone(
    devices: tuple[domain_pb2.GuestInterface, ...],
) -> None:
    """Also where it tells of nothing at all, and where what it told of was unplugged."""
    wide = wired(
        attached("default", Masquerade(OWN_MAC)), attached("blue", Bridge(), is_secondary=True)
    )
    every = [device("eth0", OWN_MAC), device("eth1", BLUE_MAC), device("docker0", "")]
    before = said(observed(machine=machine(MASQUERADED, BLUE), network=wide, **told(*every)))
    it = machine(MASQUERADED, status=msgspec.to_builtins(before))
    network = wired(attached("default", Masquerade(OWN_MAC)))
    after = said(observed(machine=it, network=network, **told(*devices)))
    (status,) = after.interfaces or []
    assert status.name == "default"
    assert status.interface_name == ("eth0" if devices else "")
    assert condition(after, "AgentConnected") == ("True", "")
    assert needs_write(it.status, after)


def test_an_agent_that_has_gone_takes_its_words_with_it() -> None:
    network = wired(attached("default", Masquerade(OWN_MAC)))
    devices = [device("eth0", OWN_MAC, "10.0.2.2"), device("docker0", "", "172.17.0.1")]
    before = said(observed(machine=machine(MASQUERADED), network=network, **told(*devices)))
    it = machine(MASQUERADED, status=msgspec.to_builtins(before))
    after = said(observed(machine=it, network=network, **GONE))
    (status,) = after.interfaces or []
    assert (status.interface_name, status.info_source) == ("", "domain")
    assert condition(after, "AgentConnected") == ("", "")
    assert needs_write(it.status, after)


def test_an_earlier_launcher_knows_of_no_agent() -> None:
    network = wired(attached("default", Masquerade(OWN_MAC)))
    status = said(observed(machine=machine(MASQUERADED), network=network))
    assert condition(status, "AgentConnected") == ("", "")
    assert [each.info_source for each in status.interfaces or []] == ["domain"]
