"""What the agent in a guest, the real one, is good for beside addresses: its system, probes, and public keys from a Secret.

What a hostile one does to its launcher is in tests/integration/test_launcher_guest_agent.py.
"""

import json
from collections.abc import Callable

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, condition
from tests.support.networks import networked_vmi, serve, start_agent

# The agent is asked again within half a minute, and a Secret reaches its pod within a minute and a half.
NEWS_WITHIN_S = 50
SECRET_WITHIN_S = 120

AGENT_FOR_A_WHILE = """#!/bin/sh
(for d in /sys/block/vd*; do [ "$(cat $d/serial)" != tools ] || tar -xf /dev/${d##*/} -C /; done
sleep 10
port=$(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name | cut -d/ -f5)
qemu-ga -m virtio-serial -p /dev/$port -t /run & sleep 20; kill $!) >/tmp/agent.log 2>&1 </dev/null &
"""

pytestmark = pytest.mark.timeout(300)


def machine_with_network() -> Json:
    return networked_vmi("alice", {"default": {"pod": {}}}, {"default": {"masquerade": {}}})


async def booted(cluster: Cluster, **spec: object) -> Machine:
    """A machine whose guest has no agent yet."""
    manifest = machine_with_network()
    manifest["spec"] |= spec
    await cluster.apply(manifest)
    machine = Machine(cluster, "alice")
    await machine.console_shows("alice login:")
    await serve(machine)
    return machine


async def says(
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


def is_ready(state: Json) -> bool:
    return condition(state, "Ready").get("status") == "True"


async def test_a_guest_tells_its_system(cluster: Cluster) -> None:
    alice = await booted(cluster)
    await start_agent(alice)
    state = await says(
        alice, lambda s: "guestOSInfo" in s["status"], what="the agent has told its system"
    )
    release = (await alice.ssh("uname -r")).stdout.strip()
    assert state["status"]["guestOSInfo"]["kernelRelease"] == release
    await alice.ssh("kill $(cat /tmp/agent.pid)")
    await says(alice, lambda s: "guestOSInfo" not in s["status"], what="its words have gone, too")


async def test_a_guest_is_ready_while_its_agent_answers(cluster: Cluster) -> None:
    """No Service leads to it before and after, so it starts and ends its agent by itself."""
    probe = {"guestAgentPing": {}, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 1}
    manifest = machine_with_network()
    spec = manifest["spec"]
    spec["readinessProbe"] = probe
    seed = next(each for each in spec["volumes"] if "cloudInitNoCloud" in each)
    seed["cloudInitNoCloud"] = {"userData": AGENT_FOR_A_WHILE}
    await cluster.apply(manifest)
    alice = Machine(cluster, "alice")
    state = await says(alice, lambda s: condition(s, "Ready") != {}, what="it is looked at")
    assert not is_ready(state)
    await says(alice, is_ready, what="the agent answers", within_s=90)
    await alice.pod_says("Ready", "True")
    state = await says(alice, lambda s: not is_ready(s), what="the agent has gone", within_s=90)
    assert state["status"]["phase"] == "Running"


async def test_public_keys_follow_their_secret(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "team"}}
    await cluster.apply(secret | {"stringData": {"a": "ssh-ed25519 AAAA first"}})
    way = {"qemuGuestAgent": {"users": ["root"]}}
    keys = {"source": {"secret": {"secretName": "team"}}, "propagationMethod": way}
    alice = await booted(cluster, accessCredentials=[{"sshPublicKey": keys}])
    await start_agent(alice)
    state = await says(
        alice,
        lambda s: condition(s, "AccessCredentialsSynchronized") != {},
        what="the keys are given",
    )
    assert condition(state, "AccessCredentialsSynchronized")["status"] == "True", state["status"]
    given = await alice.ssh("cat /root/.ssh/authorized_keys")
    assert "AAAA first" in given.stdout
    change = json.dumps({"stringData": {"a": "ssh-ed25519 BBBB second"}})
    await cluster.kubectl("patch", "secret", "team", "--type=merge", "-p", change)
    wait = f"timeout {SECRET_WITHIN_S} sh -c 'until grep -q BBBB /root/.ssh/authorized_keys; do sleep 1; done'"
    await alice.ssh(wait, timeout_s=SECRET_WITHIN_S + 10)
    given = await alice.ssh(
        "timeout 20 sh -c 'while grep -q AAAA.first /root/.ssh/authorized_keys; do sleep 1; done';"
        " cat /root/.ssh/authorized_keys"
    )
    assert "AAAA first" not in given.stdout
