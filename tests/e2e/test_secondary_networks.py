"""Machines on further networks that Multus, the real one, attaches to their pods; with and without addresses, and instead of the pod's own.

What comes while a guest runs is attached by the test, in the place of the controller that does it in clusters that have one.
"""

import json
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.cluster import Cluster, Json, on_node
from tests.support.dynamic_networks import obey_annotation
from tests.support.hotplug import roomy_vm
from tests.support.machine import Machine
from tests.support.networks import (
    MULTUS,
    attachment_definition,
    networked_vmi,
    nic_of,
    pod_interface,
    said_of_interface,
    serve,
    serving_pod,
)
from tests.support.talk import asks, guest, node, pings, pod, sends_much

LEASED, FLAT, MAIN = "leased", "flat", "main"
NETWORKS = f"{MULTUS}/networks"
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


def networks_of(holder: Json) -> dict[str, Json]:
    """What Multus says that a pod has, by the names of its interfaces."""
    status = json.loads(holder["metadata"]["annotations"][f"{MULTUS}/network-status"])
    return {one["interface"]: one for one in status}


async def test_pods_meet_on_a_secondary_network(cluster: Cluster) -> None:
    """Without a machine: a pod that asks for a network has it, under the name that it asks for, and reaches another pod there."""
    await cluster.apply(attachment_definition(LEASED, BRIDGES[LEASED], subnet="10.90.0.0/24"))
    ips = {}
    for name in ("one", "two"):
        manifest = serving_pod(name)
        asked = [{"name": LEASED, "interface": pod_interface(LEASED)}]
        manifest["metadata"]["annotations"] = {NETWORKS: json.dumps(asked)}
        await cluster.apply(manifest)
    await cluster.kubectl("wait", "pod/one", "pod/two", "--for=condition=Ready", "--timeout=60s")
    for name in ("one", "two"):
        state = await cluster.get("pod", name)
        assert state is not None
        ips[name] = networks_of(state)[pod_interface(LEASED)]["ips"][0]
    there = [*asks(ips["two"], "two"), *sends_much(ips["two"]), *pings(ips["two"])]
    wrong = await pod(cluster, "one").wrong_answers(there)
    assert not wrong, "\n".join(wrong)


async def test_guests_meet_on_secondary_networks(cluster: Cluster) -> None:
    """Where the network gives addresses, the guest has the pod's by DHCP; where not, what it gives itself. Both carry all there is."""
    await cluster.apply(attachment_definition(LEASED, BRIDGES[LEASED], subnet="10.90.0.0/24"))
    await cluster.apply(attachment_definition(FLAT, BRIDGES[FLAT]))
    alice, bob = await attached(cluster, "alice"), await attached(cluster, "bob")
    leases = {}
    for number, machine in enumerate((alice, bob), start=1):
        state, pod_has = await cluster.get("vmi", machine.name), networks_of(await machine.pod())
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


async def test_network_comes_and_goes(cluster: Cluster) -> None:
    """An interface that is put into the machine's template reaches the running guest, and leaves it when it is absent."""
    await cluster.apply(attachment_definition(LEASED, BRIDGES[LEASED], subnet="10.90.0.0/24"))
    manifest = roomy_vm("alice")
    spec = manifest["spec"]["template"]["spec"]
    spec["networks"] = [{"name": "default", "pod": {}}]
    spec["domain"]["devices"]["interfaces"] = [{"name": "default", "masquerade": {}}]
    await cluster.apply(manifest)
    alice = Machine(cluster, "alice")
    await alice.console_shows("alice login:")
    before = await alice.running()

    networks = [*spec["networks"], {"name": LEASED, **of_multus(LEASED)}]
    interfaces = [*spec["domain"]["devices"]["interfaces"], {"name": LEASED, "bridge": {}}]
    await change_networks(cluster, networks, interfaces)
    await asks_for(cluster, alice, pod_interface(LEASED))
    await obey_annotation(cluster, await alice.pod())
    said = await interface_is_said(cluster, lambda said: "domain" in said.get("infoSource", ""))
    nic = await nic_of(alice, said["mac"])
    lease = f"ip link set {nic} up; udhcpc -i {nic} -n -q -t 5 -T 1 -s /sbin/dhcp-event"
    await alice.ssh(f"{lease} >/tmp/udhcpc.log 2>&1", timeout_s=40)
    pod_has = networks_of(await alice.pod())[pod_interface(LEASED)]
    shown = (await alice.ssh(f"ip -4 -o addr show dev {nic}")).stdout
    assert f" {pod_has['ips'][0]}/24 " in shown

    interfaces[-1] = interfaces[-1] | {"state": "absent"}
    await change_networks(cluster, networks, interfaces)
    await interface_is_said(cluster, lambda said: "domain" not in said.get("infoSource", ""))
    await asks_for(cluster, alice, None)
    await obey_annotation(cluster, await alice.pod())
    await interface_is_said(cluster, lambda said: said == {})
    assert (await alice.ssh("ls /sys/class/net")).stdout.split() == ["eth0", "lo"]
    assert (await alice.running())["metadata"]["uid"] == before["metadata"]["uid"]
    assert await cluster.complaints() == []


async def change_networks(cluster: Cluster, networks: list[Json], interfaces: list[Json]) -> None:
    """Edit alice's template as a person does."""
    spec = {"networks": networks, "domain": {"devices": {"interfaces": interfaces}}}
    patch = json.dumps({"spec": {"template": {"spec": spec}}})
    await cluster.kubectl("patch", "vm", "alice", "--type=merge", "-p", patch)


async def asks_for(cluster: Cluster, machine: Machine, interface: str | None) -> None:
    """Wait until the machine's pod asks for an interface to a secondary network, or for none."""

    def holds(state: Json | None) -> bool:
        annotations = (state or {}).get("metadata", {}).get("annotations", {})
        asked = json.loads(annotations.get(NETWORKS, "[]"))
        return [one["interface"] for one in asked] == ([interface] if interface else [])

    name = (await machine.pod())["metadata"]["name"]
    await cluster.until("pod", name, holds, within_s=20, what=f"the pod asks for {interface}")


async def interface_is_said(cluster: Cluster, holds: Callable[[Json], bool]) -> Json:
    """What alice's status says of the leased network, once that is as it should be."""
    state = await cluster.until(
        "vmi",
        "alice",
        lambda state: holds(said_of_interface(state, LEASED)),
        within_s=40,
        what="status.interfaces of the leased network",
    )
    return said_of_interface(state, LEASED)


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
