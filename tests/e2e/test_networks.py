"""Machines on the pod network, by every binding: what guests, pods, nodes and this machine reach of each other, by what name and how.

Two guests and a pod serve; `alice` asks, and `bob` lists his ports, as far as his binding has a use for that.
"""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, node_address
from tests.support.networks import (
    ANSWERS,
    BINDINGS,
    ECHOES,
    NOBODYS,
    Binding,
    networked_vmi,
    node_port_service,
    reachable_by,
    said_of_interface,
    serve,
    serving_pod,
    take_ipv6_address,
)
from tests.support.talk import (
    Protocol,
    Question,
    ask_from_host,
    asks,
    guest,
    is_refused,
    network_of_pod,
    node,
    pings,
    pod,
    sends_much,
)

LISTED = [
    {"port": 22, "protocol": "TCP"},
    {"port": ANSWERS, "protocol": "TCP"},
    {"port": ANSWERS, "protocol": "UDP"},
    {"port": ECHOES, "protocol": "UDP"},
]
PEER = "peer"
SPOOFS_S = 20

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True, slots=True)
class Scene:
    """Who is there, and at which addresses: IPv4 first, then IPv6 where there is one."""

    binding: Binding
    alice: Machine
    bob: Machine
    addresses: Mapping[str, list[str]]

    def ipv6(self, name: str) -> list[str]:
        """The IPv6 address of a guest or of the pod; none where it has none. A bridge gives its guest none."""
        has_none = name != PEER and self.binding == "bridge"
        return [] if has_none else self.addresses[name][1:]


def on_pod_network(name: str, binding: Binding, *, ports: list[Json] | None = None) -> Json:
    """An instance with one interface, which a headless Service knows by its name."""
    interface = reachable_by(binding) | ({"ports": ports} if ports else {})
    return networked_vmi(
        name, {"default": {"pod": {}}}, {"default": interface}, subdomain="friends"
    )


async def set_scene(cluster: Cluster, binding: Binding) -> Scene:
    """Both guests and the pod serve, and the Services of the guests are there."""
    await cluster.apply(serving_pod(PEER))
    await cluster.apply(on_pod_network("alice", binding))
    await cluster.apply(on_pod_network("bob", binding, ports=LISTED))
    friends = {"clusterIP": "None", "selector": {"kubevirt.io": "virt-launcher"}}
    await cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "friends"}, "spec": friends}
    )
    alice, bob = Machine(cluster, "alice"), Machine(cluster, "bob")
    addresses = {}
    for machine in (alice, bob):
        await machine.console_shows(rf"{machine.name} login:")
        found = (await machine.pod())["status"]["podIPs"]
        addresses[machine.name] = [one["ip"] for one in found]
        families = len(found) if binding != "bridge" else 1
        await cluster.apply(node_port_service(machine.name, of=machine.name, families=families))
        await serve(machine)
        if families == 2:
            await take_ipv6_address(machine)
    await cluster.kubectl("wait", f"pod/{PEER}", "--for=condition=Ready", "--timeout=60s")
    peer = await cluster.get("pod", PEER)
    assert peer is not None
    addresses[PEER] = [one["ip"] for one in peer["status"]["podIPs"]]
    return Scene(binding, alice, bob, addresses)


def questions_of_guest(scene: Scene) -> list[Question]:
    """What alice asks: the pod, the other guest, and both by their Services' names, which is herself, too."""
    peer, bob = scene.addresses[PEER][0], scene.addresses["bob"][0]
    questions = [
        *asks(peer, PEER),
        *sends_much(peer),
        *pings(peer),
        *asks(bob, "bob"),
        *asks("bob", "bob", port=80),
        *asks("bob.friends", "bob"),
        *asks("alice", "alice", port=80),
        is_refused(peer, NOBODYS),
    ]
    if scene.ipv6("alice"):
        for address in scene.ipv6(PEER):
            questions += [*asks(address, PEER, ipv6=True), *sends_much(address, ipv6=True)]
        for address in scene.ipv6("bob"):
            questions += [*asks(address, "bob", ipv6=True), *asks("bob", "bob", port=80, ipv6=True)]
    return questions


def questions_of_pod(scene: Scene) -> list[Question]:
    """What a pod asks: both guests by address and by Service, and bob at a port that he serves and does not list."""
    alice, bob = scene.addresses["alice"][0], scene.addresses["bob"][0]
    questions = [
        *asks(alice, "alice"),
        *sends_much(alice),
        *pings(alice),
        *asks(bob, "bob"),
        *asks("alice", "alice", port=80),
        *asks(f"bob.{scene.bob.cluster.namespace}.svc.cluster.local", "bob", port=80),
        is_refused(alice, NOBODYS),
        is_refused(bob, NOBODYS),
    ]
    unlisted = sends_much(bob)[:1] if scene.binding == "bridge" else [is_refused(bob, ECHOES)]
    questions += unlisted
    for address in scene.ipv6("alice"):
        questions += [
            *asks(address, "alice", ipv6=True),
            *sends_much(address, ipv6=True),
            *asks("alice", "alice", port=80, ipv6=True),
        ]
    return questions


async def wrong_from_host(cluster: Cluster, name: str) -> list[str]:
    """What is wrong with a machine's NodePorts, asked from this machine."""
    service = await cluster.get("service", name)
    assert service is not None
    address = await node_address()
    wrong = []
    protocols: tuple[Protocol, ...] = ("TCP", "UDP")
    for protocol in protocols:
        [port] = [
            one["nodePort"]
            for one in service["spec"]["ports"]
            if (one["protocol"], one["port"]) == (protocol, 80)
        ]
        try:
            answer = await ask_from_host(address, port, protocol)
        except (OSError, TimeoutError) as error:
            answer = repr(error)
        if answer != f"{name} hello":
            wrong.append(f"this machine: {protocol} to NodePort {port} of {name}: {answer!r}")
    return wrong


@pytest.mark.parametrize("binding", BINDINGS)
async def test_everybody_reaches_everybody(cluster: Cluster, binding: Binding) -> None:
    """Guest, pod, node and this machine; by address, Service and name; TCP and UDP, much and little, IPv4 and IPv6."""
    scene = await set_scene(cluster, binding)
    alice = scene.addresses["alice"][0]
    wrong = [
        *await guest(scene.alice).wrong_answers(questions_of_guest(scene)),
        *await pod(cluster, PEER).wrong_answers(questions_of_pod(scene)),
        *await node().wrong_answers(asks(alice, "alice")),
        *await wrong_from_host(cluster, "alice"),
        *await wrong_from_host(cluster, "bob"),
    ]
    if (
        binding != "bridge"
    ):  # the pod that has lost its address to the guest keeps its loopback to itself
        pid = next(iter(await scene.alice.processes()))
        wrong += await network_of_pod(pid).wrong_answers(asks("127.0.0.1", "alice"))
    assert not wrong, "\n".join(wrong)
    await status_tells_of_it(cluster, scene)


async def status_tells_of_it(cluster: Cluster, scene: Scene) -> None:
    """status.interfaces has the address at which the guest is reached, and whence that is known."""
    for name in ("alice", "bob"):
        said = said_of_interface(await cluster.get("vmi", name), "default")
        assert said["ipAddress"] == scene.addresses[name][0], said
        assert said["podInterfaceName"] == "eth0", said
        assert "domain" in said["infoSource"], said
        assert said["mac"], said


async def test_spoofing_guest_takes_nothing(cluster: Cluster) -> None:
    """By a bridge, a guest that claims its neighbour's address, and then its hardware address, too, gets none of its traffic."""
    scene = await set_scene(cluster, "bridge")
    bob = scene.addresses["bob"][0]
    mac = said_of_interface(await cluster.get("vmi", "bob"), "default")["mac"]
    bob_answers = [question for _ in range(3) for question in asks(bob, "bob")]
    claim = f"ip addr add {bob}/32 dev eth0; arping -U -c 3 -I eth0 -s {bob} {bob}"
    await scene.alice.ssh(claim, check=False)
    assert not (wrong := await pod(cluster, PEER).wrong_answers(bob_answers)), "\n".join(wrong)

    # Under another hardware address there is no way into the guest: it says on its console what it does.
    script = f"""
        ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up
        arping -U -c 1 -I eth0 -s {bob} {bob}
        echo spoofing-now >/dev/ttyS0
        arping -U -w {SPOOFS_S} -I eth0 -s {bob} {bob}
        echo spoofed-enough >/dev/ttyS0
    """
    await scene.alice.ssh(f"setsid sh -c {shlex.quote(script)} >/dev/null 2>&1 </dev/null &")
    await scene.alice.console_shows("spoofing-now")
    began_s = time.monotonic()
    assert not (wrong := await pod(cluster, PEER).wrong_answers(bob_answers)), "\n".join(wrong)
    assert time.monotonic() - began_s < SPOOFS_S, "the guest had stopped before all was asked"
    await scene.alice.console_shows("spoofed-enough")


async def test_machine_without_network(cluster: Cluster) -> None:
    """With autoattachPodInterface: false a machine that names no network has none; without it, the one that the cluster names."""
    for name, attach in (("alone", False), ("attached", True)):
        manifest = networked_vmi(name, {}, {})
        for empty in (manifest["spec"], manifest["spec"]["domain"]["devices"]):
            empty.pop("networks", None)
            empty.pop("interfaces", None)
        manifest["spec"]["domain"]["devices"] |= {} if attach else {"autoattachPodInterface": False}
        await cluster.apply(manifest)
    await Machine(cluster, "alone").console_shows("alone login:")
    await Machine(cluster, "attached").console_shows("attached login:")
    alone, attached = await cluster.get("vmi", "alone"), await cluster.get("vmi", "attached")
    assert alone is not None
    assert attached is not None
    assert not alone["spec"]["domain"]["devices"].get("interfaces")
    assert not alone["status"].get("interfaces")
    assert "masquerade" in attached["spec"]["domain"]["devices"]["interfaces"][0]
    nics = (await Machine(cluster, "attached").ssh("ls /sys/class/net")).stdout.split()
    assert nics == ["eth0", "lo"]
