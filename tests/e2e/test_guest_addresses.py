"""What the agent in a guest tells of its network devices, the real one: its names of them, and addresses that nobody else knows.

What a hostile one does to its launcher is in tests/integration/test_launcher_agent.py.
"""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine, condition
from tests.support.networks import (
    BINDINGS,
    Binding,
    attachment_definition,
    networked_vmi,
    nic_of,
    reachable_by,
    said_of_interface,
    serve,
    start_agent,
)

FLAT, FLAT_BRIDGE = "flat", "br-addresses"
GIVEN_BY_GUEST = "192.168.78.1"
MADE_UP_MAC = "02:00:00:00:00:99"
# The agent is asked again within half a minute.
NEWS_WITHIN_S = 50

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
async def flat_network(cluster: Cluster, multus: None) -> AsyncIterator[None]:
    """A network of Multus that gives no addresses. The CNI plugin makes its bridge and leaves it."""
    await cluster.apply(attachment_definition(FLAT, FLAT_BRIDGE))
    yield
    await on_node("ip", "link", "delete", FLAT_BRIDGE, check=False)


async def with_agent(cluster: Cluster, manifest: Json) -> Machine:
    """A machine of that manifest, whose guest has started its agent."""
    await cluster.apply(manifest)
    machine = Machine(cluster, manifest["metadata"]["name"])
    await machine.console_shows(rf"{machine.name} login:")
    await serve(machine)
    await start_agent(machine)
    return machine


async def status_says(
    machine: Machine, holds: Callable[[Json], bool], *, what: str, within_s: float = NEWS_WITHIN_S
) -> Json:
    """The instance, once its status is as it should be."""
    state = await machine.cluster.until(
        "vmi",
        machine.name,
        lambda state: state is not None and holds(state),
        within_s=within_s,
        what=what,
    )
    assert state is not None
    return state


def sources(entry: Json) -> list[str]:
    """Where an entry of status.interfaces was learned."""
    said: str = entry.get("infoSource", "")
    return said.split(", ")


def is_told(name: str) -> Callable[[Json], bool]:
    """The agent has told of that interface of the manifest."""
    return lambda state: "guest-agent" in sources(said_of_interface(state, name))


@pytest.mark.parametrize("binding", BINDINGS)
async def test_agent_names_the_device_and_addresses_stay_the_pods(
    cluster: Cluster, binding: Binding
) -> None:
    """What others reach the guest by does not change with what the guest calls it; and all is as before once the agent has gone."""
    manifest = networked_vmi("alice", {"default": {"pod": {}}}, {"default": reachable_by(binding)})
    await cluster.apply(manifest)
    await Machine(cluster, "alice").console_shows("alice login:")
    before = said_of_interface(await cluster.get("vmi", "alice"), "default")
    assert sources(before) == ["domain"]
    alice = await with_agent(cluster, manifest)
    state = await status_says(alice, is_told("default"), what="the agent has told of the device")
    assert condition(state, "AgentConnected")["status"] == "True"
    entry = said_of_interface(state, "default")
    assert sources(entry) == ["domain", "guest-agent"]
    assert entry["interfaceName"] == "eth0"
    assert entry["ipAddress"] == (await alice.pod())["status"]["podIP"]
    assert {key: entry[key] for key in ("mac", "podInterfaceName", "ipAddress")} == {
        key: before[key] for key in ("mac", "podInterfaceName", "ipAddress")
    }
    assert all(each.get("interfaceName") != "lo" for each in state["status"]["interfaces"])

    await alice.ssh("kill $(cat /tmp/agent.pid)")
    state = await status_says(
        alice, lambda state: condition(state, "AgentConnected") == {}, what="the agent has gone"
    )
    after = said_of_interface(state, "default")
    assert (sources(after), after["ipAddress"]) == (["domain"], entry["ipAddress"])
    assert "interfaceName" not in after


@pytest.mark.usefixtures("flat_network")
async def test_addresses_that_only_the_guest_knows(cluster: Cluster) -> None:
    """On a network that gives none; told anew when they change, and by a launcher that was killed meanwhile."""
    alice = await with_agent(
        cluster,
        networked_vmi(
            "alice",
            {"default": {"pod": {}}, FLAT: {"multus": {"networkName": FLAT}}},
            {"default": {"masquerade": {}}, FLAT: {"bridge": {}}},
        ),
    )
    state = await status_says(alice, is_told(FLAT), what="the agent has told of the flat network")
    entry = said_of_interface(state, FLAT)
    assert sources(entry) == ["domain", "multus-status", "guest-agent"]
    nic = await nic_of(alice, entry["mac"])
    assert entry["interfaceName"] == nic

    await alice.ssh(f"ip addr add {GIVEN_BY_GUEST}/24 dev {nic}; ip link set {nic} up")
    await status_says(
        alice,
        lambda state: said_of_interface(state, FLAT).get("ipAddress") == GIVEN_BY_GUEST,
        what="the address that the guest gave itself",
    )

    await alice.kill("podvisor_launcher")
    await alice.ssh(f"ip link set {nic} down; ip link set {nic} address {MADE_UP_MAC}")
    state = await status_says(
        alice, lambda state: not is_told(FLAT)(state), what="the device is another one"
    )
    assert "interfaceName" not in said_of_interface(state, FLAT)
    unknown = [each for each in state["status"]["interfaces"] if each.get("mac") == MADE_UP_MAC]
    assert [(each["interfaceName"], each["infoSource"]) for each in unknown] == [
        (nic, "guest-agent")
    ]
    assert condition(state, "AgentConnected")["status"] == "True"
