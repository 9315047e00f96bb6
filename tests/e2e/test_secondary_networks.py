"""Machines on further networks that Multus, the real one, attaches to their pods; with and without addresses, and instead of the pod's own."""

import json
from collections.abc import AsyncIterator

import pytest

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine
from tests.support.networks import (
    attachment_definition,
    networked_vmi,
    nic_of,
    pod_interface,
    said_of_interface,
    serve,
)
from tests.support.talk import asks, guest, node, pings, sends_much

LEASED, FLAT, MAIN = "leased", "flat", "main"
BRIDGES = {LEASED: "br-leased", FLAT: "br-flat", MAIN: "br-main"}

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("multus")]


@pytest.fixture(autouse=True)
async def no_bridges_stay() -> AsyncIterator[None]:
    """The CNI plugin makes a bridge when it needs one, and leaves it."""
    yield
    for bridge in BRIDGES.values():
        await on_node("ip", "link", "delete", bridge, check=False)


def of_multus(name: str, **changes: bool) -> Json:
    """A network by its definition's name."""
    return {"multus": {"networkName": name, **changes}}


async def attached(cluster: Cluster, name: str) -> Machine:
    """A machine on the pod network and on two further ones, of which one gives addresses; it serves."""
    manifest = networked_vmi(
        name,
        {"default": {"pod": {}}, LEASED: of_multus(LEASED), FLAT: of_multus(FLAT)},
        {"default": {"masquerade": {}}, LEASED: {"bridge": {}}, FLAT: {"bridge": {}}},
    )
    await cluster.apply(manifest)
    machine = Machine(cluster, name)
    await machine.console_shows(rf"{name} login:")
    await serve(machine)
    return machine


async def granted(machine: Machine) -> dict[str, Json]:
    """What Multus says that the machine's pod has, by the names of its interfaces."""
    annotations = (await machine.pod())["metadata"]["annotations"]
    status = json.loads(annotations["k8s.v1.cni.cncf.io/network-status"])
    return {one["interface"]: one for one in status}


async def test_guests_meet_on_secondary_networks(cluster: Cluster) -> None:
    """Where the network gives addresses, the guest has the pod's by DHCP; where not, what it gives itself. Both carry all there is."""
    await cluster.apply(attachment_definition(LEASED, BRIDGES[LEASED], subnet="10.90.0.0/24"))
    await cluster.apply(attachment_definition(FLAT, BRIDGES[FLAT]))
    alice, bob = await attached(cluster, "alice"), await attached(cluster, "bob")
    leases = {}
    for number, machine in enumerate((alice, bob), start=1):
        state, pod_has = await cluster.get("vmi", machine.name), await granted(machine)
        for network in (LEASED, FLAT):
            said = said_of_interface(state, network)
            assert said["podInterfaceName"] == pod_interface(network), said
            assert {"domain", "multus-status"} <= set(
                said["infoSource"].replace(" ", "").split(",")
            )
        leased = pod_has[pod_interface(LEASED)]
        nic = await nic_of(machine, said_of_interface(state, LEASED)["mac"])
        shown = (await machine.ssh(f"ip -4 -o addr show dev {nic}")).stdout
        assert f" {leased['ips'][0]}/24 " in shown
        assert said_of_interface(state, LEASED)["ipAddress"] == leased["ips"][0]
        leases[machine.name] = leased["ips"][0]

        assert "ips" not in pod_has[pod_interface(FLAT)]
        nic = await nic_of(machine, said_of_interface(state, FLAT)["mac"])
        assert (await machine.ssh(f"ip -4 -o addr show dev {nic}")).stdout == ""
        await machine.ssh(f"ip addr add 192.168.77.{number}/24 dev {nic}; ip link set {nic} up")
    wrong = await guest(alice).wrong_answers(
        [
            question
            for address in (leases["bob"], "192.168.77.2")
            for question in (*asks(address, "bob"), *sends_much(address), *pings(address))
        ]
    )
    assert not wrong, "\n".join(wrong)


async def test_other_network_instead_of_the_pods_own(cluster: Cluster) -> None:
    """multus.default: the pod has its one interface from there, and so its guest; Services lead to it as to any."""
    await cluster.apply(
        attachment_definition(MAIN, BRIDGES[MAIN], subnet="10.91.0.0/24", gateway=True)
    )
    network = of_multus(f"{cluster.namespace}/{MAIN}", default=True)
    await cluster.apply(networked_vmi("alice", {"default": network}, {"default": {"bridge": {}}}))
    alice = Machine(cluster, "alice")
    await alice.console_shows("alice login:")
    await serve(alice)
    address = (await alice.pod())["status"]["podIP"]
    assert address.startswith("10.91.0.")
    assert said_of_interface(await cluster.get("vmi", "alice"), "default")["ipAddress"] == address
    shown = (await alice.ssh("ip -4 -o addr show dev eth0; ip route")).stdout
    assert f" {address}/24 " in shown
    assert "default via 10.91.0.1" in shown
    wrong = await node().wrong_answers([*asks(address, "alice"), *sends_much(address)])
    assert not wrong, "\n".join(wrong)
