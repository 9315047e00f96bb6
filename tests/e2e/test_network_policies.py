"""NetworkPolicies, enforced by a real implementation: what holds for a pod holds for guests, by whatever binding and label.

Two guests and a pod are guarded; a friend and a stranger, both pods, ask them and are asked. All are on one node, where the bridge
carries their frames.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine
from tests.support.networks import (
    Binding,
    have_policies_hold,
    let_policies_be_words,
    networked_vmi,
    policies_hold,
    reachable_by,
    serve,
    serving_pod,
    take_ipv6_address,
)
from tests.support.talk import Place, Question, asks, asks_in_vain, guest, pod

GUESTS: Mapping[str, Binding] = {"masked": "masquerade", "bridged": "bridge"}
PLAIN, FRIEND, STRANGER = "plain", "friend", "stranger"
GUARDED, ADMITTED = {"tier": "guarded"}, {"access": "granted"}
SELECTED = [*GUESTS, PLAIN]
NAMED = [*({"vmi.kubevirt.io/id": name} for name in GUESTS), {"app": PLAIN}]

# Rules see the traffic of all pods, those of other tests, too.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", autouse=True)
def enforced() -> Iterator[None]:
    """Policies hold. Where they did not before, they do not afterwards."""
    did_before = asyncio.run(policies_hold())
    asyncio.run(have_policies_hold())
    yield
    if not did_before:
        asyncio.run(let_policies_be_words())


@dataclass(frozen=True, slots=True)
class Scene:
    """Who is there, and at which addresses: IPv4 first, then IPv6 where there is one."""

    places: Mapping[str, Place]
    addresses: Mapping[str, Sequence[str]]

    def answered(self, asker: str, *names: str) -> list[Question]:
        """Those answer, at all their addresses of families that the asker has one of."""
        return [
            question
            for name, address in self._addresses(asker, names)
            for question in asks(address, name, ipv6=":" in address)
        ]

    def unanswered(self, asker: str, *names: str) -> list[Question]:
        """Those answer at none of these addresses."""
        return [
            question
            for _, address in self._addresses(asker, names)
            for question in asks_in_vain(address, ipv6=":" in address)
        ]

    def _addresses(self, asker: str, names: Sequence[str]) -> list[tuple[str, str]]:
        families = len(self.addresses[asker])
        return [(name, address) for name in names for address in self.addresses[name][:families]]

    def inwards(self) -> dict[str, list[Question]]:
        """The friend and the stranger reach all who are selected."""
        return {name: self.answered(name, *SELECTED) for name in (FRIEND, STRANGER)}

    def outwards(self) -> dict[str, list[Question]]:
        """All who are selected reach the friend and the stranger."""
        return {name: self.answered(name, FRIEND, STRANGER) for name in SELECTED}

    async def check(self, asked: Mapping[str, Sequence[Question]]) -> None:
        """Everybody asks what they are given to ask, all at once."""
        answers = (self.places[name].wrong_answers(questions) for name, questions in asked.items())
        wrong = [line for lines in await asyncio.gather(*answers) for line in lines]
        assert not wrong, "\n".join(wrong)

    async def all_reach_all(self) -> None:
        """Nothing stands between the guarded and the others."""
        await self.check(self.inwards() | self.outwards())


def labelled(manifest: Json, labels: Mapping[str, str]) -> Json:
    """The object with labels beside those that it has."""
    metadata = manifest["metadata"]
    metadata["labels"] = metadata.get("labels", {}) | labels
    return manifest


async def set_scene(cluster: Cluster) -> Scene:
    """All serve, and all reach all."""
    for name, labels in ((PLAIN, GUARDED), (FRIEND, ADMITTED), (STRANGER, {})):
        await cluster.apply(labelled(serving_pod(name), labels))
    for name, binding in GUESTS.items():
        interface = {"default": reachable_by(binding)}
        manifest = networked_vmi(name, {"default": {"pod": {}}}, interface)
        await cluster.apply(labelled(manifest, GUARDED))
    places, addresses = {}, {}
    for name, binding in GUESTS.items():
        machine = Machine(cluster, name)
        await machine.console_shows(rf"{name} login:")
        await serve(machine)
        places[name] = guest(machine)
        addresses[name] = addresses_of(await machine.pod())
        if binding == "bridge":
            del addresses[name][1:]  # a bridge gives its guest no IPv6 address
        elif len(addresses[name]) == 2:
            await take_ipv6_address(machine)
    for name in (PLAIN, FRIEND, STRANGER):
        await cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        state = await cluster.get("pod", name)
        assert state is not None
        places[name], addresses[name] = pod(cluster, name), addresses_of(state)
    scene = Scene(places, addresses)
    await scene.all_reach_all()
    return scene


def addresses_of(state: Json) -> list[str]:
    """All addresses of a pod."""
    return [one["ip"] for one in state["status"]["podIPs"]]


def policy(name: str, selects: Mapping[str, str], **spec: list[Json]) -> Json:
    """A policy for pods with those labels. With `ingress` it is about what comes in alone, with `egress` about what goes out."""
    kinds = [direction.capitalize() for direction in spec]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": selects}, "policyTypes": kinds, **spec},
    }


async def _only_the_admitted_come_in(
    cluster: Cluster, scene: Scene, selected: Sequence[Mapping[str, str]]
) -> None:
    """Who is admitted reaches guests and pod, who is not reaches none, and all three reach everybody; without the policies all do."""
    friends = {"from": [{"podSelector": {"matchLabels": ADMITTED}}]}
    ssh = {"ports": [{"port": 22}]}  # by which guests are told what to ask
    for number, labels in enumerate(selected):
        await cluster.apply(policy(f"guard-{number}", labels, ingress=[friends, ssh]))
    kept_out = {STRANGER: scene.unanswered(STRANGER, *SELECTED)}
    await scene.check(scene.inwards() | scene.outwards() | kept_out)
    await cluster.kubectl("delete", "networkpolicy", "--all")
    await scene.all_reach_all()


async def _only_whom_they_may(cluster: Cluster, scene: Scene) -> None:
    """Guests and pod reach whom they may, and nobody else, and are reached by all; without the policy they reach all."""
    friends = {"to": [{"podSelector": {"matchLabels": ADMITTED}}]}
    await cluster.apply(policy("confine", GUARDED, egress=[friends]))
    confined = {
        name: [*scene.answered(name, FRIEND), *scene.unanswered(name, STRANGER)]
        for name in SELECTED
    }
    await scene.check(scene.inwards() | confined)
    await cluster.kubectl("delete", "networkpolicy", "--all")
    await scene.all_reach_all()


async def test_policies_hold_for_guests_as_for_pods(cluster: Cluster) -> None:
    """By the machine's name, by a label of its own, and outwards."""
    scene = await set_scene(cluster)
    await _only_the_admitted_come_in(cluster, scene, NAMED)
    await _only_the_admitted_come_in(cluster, scene, [GUARDED])
    await _only_whom_they_may(cluster, scene)
