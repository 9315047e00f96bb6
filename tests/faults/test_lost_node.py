"""A second node, and one that is gone: its machines are said to be out of reach, and are started elsewhere only when it is sure that they have
ended there.

These tests bring the second node up themselves, and take it away again.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.faults.guest import booted, counting_vm, lived_on, witness_of
from tests.faults.history import History, Seen
from tests.faults.measured import Measured
from tests.faults.strike import uid_of_pod
from tests.faults.writers import watching_writers
from tests.support import second_node
from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import DEMO_KEY, Machine, gone, pod_processes, vmi
from tests.support.networks import (
    BINDINGS,
    Binding,
    networked_vmi,
    node_port_service,
    reachable_by,
    serve,
)
from tests.support.talk import asks, guest, pings, sends_much

NODE = second_node.NODE
# The controller manager of the development cluster gives a node up after 20 s.
NOT_READY_S = 60.0
SHOWN_S = 60.0
ELSEWHERE_S = 40.0
# How long a force-deleted pod is watched for proving something after all.
PROVES_NOTHING_S = 8.0

_PREFERS_SECOND: Json = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "preference": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}
                    ]
                },
            }
        ]
    }
}

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def second() -> Iterator[None]:
    """The second node, for all tests of this file."""
    try:
        asyncio.run(second_node.bring_up())
        yield
    finally:
        asyncio.run(second_node.take_away())


async def _on_second(cluster: Cluster, name: str) -> Machine:
    machine = await booted(cluster, counting_vm(name, affinity=_PREFERS_SECOND))
    state = await cluster.get("vmi", name)
    assert state is not None
    assert state["status"]["nodeName"] == NODE
    return machine


async def _shown_as_lost(history: History, name: str) -> float:
    """Wait until instance and machine say that their node does not answer; when the instance did."""
    shown = await history.first(
        "vmi",
        name,
        lambda seen: seen.condition("Ready") == ("False", "NodeUnresponsive"),
        within_s=SHOWN_S,
        what="Ready is False because of NodeUnresponsive",
    )
    await history.first(
        "vm", name, lambda seen: seen.phase == "Unknown", within_s=5, what="the VM is Unknown"
    )
    return shown.at_s


async def _delete_pod_by_force(cluster: Cluster, machine: Machine) -> None:
    pod = (await machine.pod())["metadata"]["name"]
    await cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


async def test_a_machine_on_the_second_node(cluster: Cluster, second: None) -> None:
    """It runs where it was told to, a pod on the first node logs in, and its deletion leaves nothing."""
    name = "far"
    await cluster.apply(vmi(name, nodeSelector={"kubernetes.io/hostname": NODE}))
    machine = Machine(cluster, name)
    state = await machine.running(within_s=60)
    assert state["status"]["nodeName"] == NODE
    await machine.console_shows(rf"{name} login:")
    address = state["status"]["interfaces"][0]["ipAddress"]
    await cluster.kubectl(
        "create", "secret", "generic", "key", f"--from-file=key={DEMO_KEY}", "--save-config"
    )
    await cluster.apply(_client_on_first_node())
    await cluster.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    said = await cluster.kubectl(
        "exec", "client", "--", "ssh", "-i", "/key/key", "-o", "StrictHostKeyChecking=no",
        "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15",
        f"root@{address}", "hostname",
    )  # fmt: skip
    assert said.stdout.strip() == name
    pod_uid = await uid_of_pod(machine)
    assert await pod_processes(pod_uid, node=NODE) != {}
    await cluster.kubectl("delete", "vmi", name, "--timeout=30s")
    await cluster.until("vmi", name, gone, within_s=5, what="gone")
    assert await pod_processes(pod_uid, node=NODE) == {}
    await cluster.kubectl("delete", "pod/client", "secret/key", "--wait=false")


async def _serving_on(cluster: Cluster, node: str, name: str, binding: Binding) -> Machine:
    manifest = networked_vmi(
        name,
        {"default": {"pod": {}}},
        {"default": reachable_by(binding)},
        nodeSelector={"kubernetes.io/hostname": node},
    )
    machine = await booted(cluster, manifest)
    await cluster.apply(node_port_service(name, of=name, families=1))
    await serve(machine)
    return machine


async def _wrong_between(machines: Sequence[Machine]) -> list[str]:
    """What is wrong with what each asks of the other, by address and by Service, with little and with much."""
    wrong = []
    for asking, asked in itertools.permutations(machines):
        address = (await asked.pod())["status"]["podIP"]
        questions = [
            *asks(address, asked.name),
            *sends_much(address),
            *pings(address),
            *asks(asked.name, asked.name, port=80),
        ]
        wrong += await guest(asking).wrong_answers(questions)
    return wrong


async def test_guests_on_two_nodes(cluster: Cluster, second: None) -> None:
    """By each binding, guests on two nodes reach each other."""
    pairs = await asyncio.gather(
        *(
            asyncio.gather(
                _serving_on(cluster, "node1", f"near-{binding.lower()}", binding),
                _serving_on(cluster, NODE, f"far-{binding.lower()}", binding),
            )
            for binding in BINDINGS
        )
    )
    wrong = [line for pair in pairs for line in await _wrong_between(pair)]
    for machine in itertools.chain(*pairs):
        name = machine.name
        await cluster.kubectl(
            "delete", f"vmi/{name}", f"service/{name}", f"service/{name}-ssh", "--wait=false"
        )
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
async def test_a_node_that_comes_back_by_itself(
    cluster: Cluster, history: History, measured: Measured, second: None
) -> None:
    """Cut off and back again: the same guest goes on; nobody has read that anything failed."""
    machine = await _on_second(cluster, "patient")
    before = await witness_of(machine)
    await second_node.pause()
    try:
        await second_node.until_ready_is("Unknown", within_s=NOT_READY_S)
        not_ready_s = time.time()
        shown_s = await _shown_as_lost(history, "patient")
    finally:
        await second_node.resume()
    back_s = time.time()
    for kind in ("vmi", "vm"):
        await history.first(
            kind,
            "patient",
            lambda seen: seen.is_right,
            after_s=back_s,
            within_s=60,
            what=f"the {kind} is Running and Ready",
        )
    # The node controller has called the pod not ready, and Services come back only with the kubelet's word on it.
    pod = (await machine.pod())["metadata"]["name"]
    await cluster.kubectl("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")
    now = await witness_of(machine)
    assert now.boot_id == before.boot_id
    assert now.counter > before.counter
    assert history.phases("vmi", "patient") <= {"", "Scheduling", "Scheduled", "Running"}, history
    after_s = max(0.0, shown_s - not_ready_s)
    measured.add("node NotReady, shown on the VMI", after_s, limit_s=SHOWN_S)
    await cluster.kubectl("delete", "vm", "patient", "--timeout=60s")


async def test_a_node_gone_for_good(
    cluster: Cluster, history: History, measured: Measured, second: None
) -> None:
    """A force-deleted pod proves nothing; taken out of service, the node's VM runs elsewhere; nothing of it comes back with the
    node."""
    machine = await _on_second(cluster, "refugee")
    old_pod, first = await uid_of_pod(machine), await machine.running()
    await second_node.pause()
    try:
        await second_node.until_ready_is("Unknown", within_s=NOT_READY_S)
        await _shown_as_lost(history, "refugee")
        await cluster.kubectl("wait", "--for=condition=Ready=false", "vmi/refugee", "--timeout=5s")
        told = [
            e for e in await cluster.events(type_="Warning") if e["reason"] == "NodeUnresponsive"
        ]
        assert [e["regarding"]["name"] for e in told if e["regarding"]["name"] == "refugee"], told
        await _delete_pod_by_force(cluster, machine)
        # The time itself is the subject: nothing must come of it.
        await asyncio.sleep(PROVES_NOTHING_S)
        last = history.last("vmi", "refugee")
        assert (last.phase, last.condition("Ready")) == ("Running", ("False", "NodeUnresponsive"))
        assert await cluster.all("pods", labels="vmi.kubevirt.io/id=refugee") == []
    finally:
        await second_node.switch_off()
    fenced_s = time.time()
    await second_node.take_out_of_service()
    failed = await history.first(
        "vmi", "refugee", lambda seen: seen.phase == "Failed", within_s=20, what="Failed"
    )
    assert (failed.state or {})["status"]["reason"] == "NodeFenced"
    again = await machine.running(within_s=ELSEWHERE_S, not_uid=first["metadata"]["uid"])
    assert again["status"]["nodeName"] == "node1"
    right = await history.first(
        "vmi",
        "refugee",
        lambda seen: seen.is_right and (seen.state or {})["status"]["nodeName"] == "node1",
        within_s=10,
        what="the next instance is Ready",
    )
    measured.add("node fenced, VM Running elsewhere", right.at_s - fenced_s, limit_s=ELSEWHERE_S)
    await machine.console_shows("refugee login:")
    before = await witness_of(machine)
    await second_node.switch_on()
    async with watching_writers(machine, node=NODE) as writers:
        await second_node.until_ready_is("True", within_s=90)
        await second_node.take_into_service()
        await second_node.until_schedulable(within_s=60)
        await on_node(
            "timeout", "60", "sh", "-c", f"while [ -e /var/lib/kubelet/pods/{old_pod} ]; do :; done",
            node=NODE, timeout_s=70,
        )  # fmt: skip
        assert writers.most == 0, writers
    assert await pod_processes(old_pod, node=NODE) == {}
    await lived_on(machine, before)
    await cluster.kubectl("delete", "vm", "refugee", "--wait=false")


@pytest.mark.long
async def test_a_pod_deleted_by_force_while_its_node_was_away(
    cluster: Cluster, history: History, second: None
) -> None:
    """The node comes back with a guest whose pod nobody knows any more: it is ended before another one is started."""
    machine = await _on_second(cluster, "torn")
    first, pod_uid = await machine.running(), await uid_of_pod(machine)
    await second_node.pause()
    try:
        await second_node.until_ready_is("Unknown", within_s=NOT_READY_S)
        await _shown_as_lost(history, "torn")
        await _delete_pod_by_force(cluster, machine)
    finally:
        await second_node.resume()
    await history.first("vmi", "torn", _has_ended, within_s=90, what="Failed or Succeeded")
    assert await pod_processes(pod_uid, node=NODE) == {}
    await machine.running(within_s=60, not_uid=first["metadata"]["uid"])
    await cluster.kubectl("delete", "vm", "torn", "--wait=false")


def _has_ended(seen: Seen) -> bool:
    return seen.phase in ("Failed", "Succeeded")


def _client_on_first_node() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {
            "nodeName": "node1",
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "client",
                    "image": "podvisor-dev/toolbox:latest",
                    "command": ["sleep", "infinity"],
                    "volumeMounts": [{"name": "key", "mountPath": "/key"}],
                }
            ],
            "volumes": [{"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}}],
        },
    }
