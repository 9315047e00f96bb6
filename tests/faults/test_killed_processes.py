"""kill -9 of the processes that look after a guest: the guest does not notice, and what a user sees is right again in time."""

import asyncio
import json
import random
import time

import pytest

from tests.faults.guest import lived_on, witness_of
from tests.faults.history import HANDLER_SERVICE, HANDLER_SOCKET, History, Seen
from tests.faults.measured import Measured
from tests.faults.strike import Victim, pids_of, strike, uid_of_pod
from tests.support.cluster import Cluster, on_node
from tests.support.machine import Machine

RIGHT_AGAIN_S = 3.0
HANDLER_RIGHT_AGAIN_S = 2.0
# How long a test waits for what is too late anyway, to say how late it was.
PATIENCE_S = 20.0
LAUNCHER_SOCKETS = "/run/podvisor/launchers"
KEEPERS = (Victim.LAUNCHER, Victim.LIBVIRTD, Victim.HANDLER)

EACH = [
    pytest.param((Victim.LAUNCHER,), RIGHT_AGAIN_S, id="launcher"),
    pytest.param((Victim.LIBVIRTD,), RIGHT_AGAIN_S, id="libvirtd"),
    pytest.param((Victim.LAUNCHER, Victim.LIBVIRTD), RIGHT_AGAIN_S, id="launcher-and-libvirtd"),
    pytest.param((Victim.HANDLER,), HANDLER_RIGHT_AGAIN_S, id="handler"),
    pytest.param(KEEPERS, RIGHT_AGAIN_S, id="all-three"),
]


@pytest.mark.parametrize(("victims", "limit_s"), EACH)
async def test_guest_does_not_notice(
    cluster: Cluster,
    survivor: Machine,
    history: History,
    measured: Measured,
    victims: tuple[Victim, ...],
    limit_s: float,
) -> None:
    """One blow: all that was killed is back in time, and nothing but "running" was ever said."""
    before = await witness_of(survivor)
    pod_uid = await uid_of_pod(survivor)
    dead = {pid for victim in victims for pid in await pids_of(victim, pod_uid)}
    struck_s = await strike(victims, pod_uid)
    right_s = await _right_again(history, survivor, victims, struck_s)
    what = " and ".join(victim.name.lower() for victim in victims)
    assert dead.isdisjoint({pid for victim in victims for pid in await pids_of(victim, pod_uid)})
    await lived_on(survivor, before)
    _only_running_was_seen(history, survivor)
    await _nothing_warned_of(cluster, survivor)
    measured.add(f"kill -9 {what}", right_s, limit_s=limit_s)


@pytest.mark.parametrize("blows", [10, pytest.param(100, marks=pytest.mark.long)])
async def test_guest_does_not_notice_blows_in_a_row(
    cluster: Cluster,
    survivor: Machine,
    history: History,
    measured: Measured,
    chance: random.Random,
    blows: int,
) -> None:
    """Blows at random moments, at whoever is there, without waiting for anybody to recover: three seconds after the last one all
    is right."""
    before = await witness_of(survivor)
    pod_uid = await uid_of_pod(survivor)
    struck_s = 0.0
    for _ in range(blows):
        victims = chance.sample(KEEPERS, chance.randint(1, len(KEEPERS)))
        # The moment is the subject: it may fall into any step of a recovery.
        await asyncio.sleep(chance.uniform(0, 1.5))
        struck_s = await strike(victims, pod_uid, must_hit=False)
    # A blow that met nobody changes nothing that would be said, so they are asked.
    await _libvirt_answers(cluster, survivor)
    right_s = await _handler_lists(survivor) - struck_s
    await lived_on(survivor, before)
    _only_running_was_seen(history, survivor)
    await _nothing_warned_of(cluster, survivor)
    measured.add("kill -9 in a row, after the last", right_s, limit_s=RIGHT_AGAIN_S)


async def _right_again(
    history: History, machine: Machine, victims: tuple[Victim, ...], struck_s: float
) -> float:
    """Wait until everything that was struck does its work again; how long that took, in seconds."""
    right_s = 0.0
    if Victim.LIBVIRTD in victims:
        right_s = await _libvirt_answers(history.cluster, machine) - struck_s
    if victims != (Victim.LIBVIRTD,):
        listed_s = await history.until_right(machine.name, since_s=struck_s, within_s=PATIENCE_S)
        right_s = max(right_s, listed_s)
    return right_s


async def _libvirt_answers(cluster: Cluster, machine: Machine) -> float:
    """Wait until the launcher gets the running domain's description from libvirt; when that was.

    libvirt's being back is no event for anybody outside, so it is asked for until it answers.
    """
    socket = f"{LAUNCHER_SOCKETS}/{cluster.namespace}_{machine.name}.sock"
    call = f"grpcurl -plaintext -max-time 5 -unix {socket} podvisor.launcher.v1.LauncherService/GetDomainXml"
    done = await on_node(
        "timeout", str(PATIENCE_S), "sh", "-c", f"until {call} >/dev/null 2>&1; do :; done; date +%s.%N"
    )  # fmt: skip
    return float(done.stdout)


async def _handler_lists(machine: Machine) -> float:
    """Wait until the handler, asked anew each time, lists the machine as connected and running; when that was."""
    reference = {"namespace": machine.cluster.namespace, "name": machine.name}
    async with asyncio.timeout(PATIENCE_S):
        while True:
            asked = await on_node(
                "grpcurl", "-plaintext", "-max-time", "2", "-unix", HANDLER_SOCKET, f"{HANDLER_SERVICE}/ListDomains",
                check=False,
            )  # fmt: skip
            for listed in json.loads(asked.stdout or "{}").get("machines", []):
                seen = Seen(time.time(), "domain", machine.name, listed)
                if listed["reference"] == reference and seen.is_right:
                    return seen.at_s


def _only_running_was_seen(history: History, machine: Machine) -> None:
    for kind in ("vmi", "vm"):
        assert history.phases(kind, machine.name) == {"Running"}, history
        ready = {seen.condition("Ready")[0] for seen in history.of(kind, machine.name)}
        assert ready == {"True"}, history
    assert (
        len(
            {
                seen.state["metadata"]["uid"]
                for seen in history.of("vmi", machine.name)
                if seen.state
            }
        )
        == 1
    )
    assert history.phases("domain", machine.name) <= {"DOMAIN_STATE_RUNNING", ""}, history


async def _nothing_warned_of(cluster: Cluster, machine: Machine) -> None:
    about = [
        event["note"]
        for event in await cluster.events(type_="Warning")
        if event["regarding"]["name"].endswith(machine.name)
    ]
    assert about == []
