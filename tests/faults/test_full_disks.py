"""No space left: what it stops is said, goes on by itself when there is space, and can be ended meanwhile."""

import asyncio
import time

import pytest

from tests.faults.guest import Witness, counting_vm, counting_vmi, witness_of
from tests.faults.history import HANDLER_SERVICE, HANDLER_SOCKET, History, Seen
from tests.faults.measured import Measured
from tests.faults.small_disk import SmallDisk, beside_starter, let_it_start, small_disk, volume_path
from tests.faults.strike import Victim, strike, uid_of_pod
from tests.support.cluster import Cluster, Json, on_node
from tests.support.disks import claimed, guest_disks, with_disk
from tests.support.machine import Machine, pod_processes
from tests.support.storage import local_volume, look_into

# What of the guest's writes fits, and what it writes; the guest's own disk has 20 MiB.
ROOM_MIB = 4
WRITTEN_MIB = 9
VOLUME_MIB = 48
# Five attempts to start would be over after 15 s.
OUTLASTS_S = 20.0
GOES_ON_S = 15.0


@pytest.mark.one_machine
async def test_start_on_a_full_disk(cluster: Cluster, history: History, measured: Measured) -> None:
    """The reason is in a condition, in one event, for as long as it takes; then the machine starts."""
    await cluster.apply(counting_vmi("starved", affinity=beside_starter(cluster, "starved")))
    machine = Machine(cluster, "starved")
    async with small_disk(cluster, "starved") as disk:
        await disk.fill()
        await let_it_start(cluster, "starved")
        shown = await history.first(
            "vmi", "starved", _has_no_space, within_s=30, what="Synchronized is False: NoSpace"
        )
        # The time itself is the subject: it must not count as failing.
        await asyncio.sleep(OUTLASTS_S)
        assert "Failed" not in history.phases("vmi", "starved"), history
        assert _has_no_space(history.last("vmi", "starved"))
        await disk.clear()
        cleared_s = time.time()
        right = await history.first(
            "vmi", "starved", lambda seen: seen.is_right, within_s=40, what="Running and Ready"
        )
        measured.add(
            "disk has room again, machine Running", right.at_s - cleared_s, limit_s=GOES_ON_S
        )
        assert right.condition("Synchronized")[0] != "False"
        assert shown.phase == "Scheduled"
        warnings = [event["note"] for event in await cluster.events(type_="Warning")]
        assert sum("no space left" in note for note in warnings) == 1, warnings
        await machine.console_shows("starved login:")
        await cluster.kubectl("delete", "vmi", "starved", "--timeout=30s")


@pytest.mark.one_machine
async def test_guest_that_fills_the_disk(
    cluster: Cluster, history: History, measured: Measured
) -> None:
    """It stands still and is said to, also by a launcher that is killed meanwhile, and goes on where it was. When that comes
    again, it can be ended all the same."""
    await cluster.apply(counting_vm("hungry", affinity=beside_starter(cluster, "hungry")))
    machine = Machine(cluster, "hungry")
    async with small_disk(cluster, "hungry") as disk:
        await let_it_start(cluster, "hungry")
        await machine.console_shows("hungry login:")
        before = await witness_of(machine)
        await _write_too_much(machine, disk, at_mib=0)
        paused = await history.first(
            "vmi", "hungry", _is_starved, within_s=30, what="Paused: PausedIOError"
        )
        assert '"root"' in _why_paused(paused)
        await machine.pod_says("Ready", "False")
        await history.first(
            "vm", "hungry", lambda seen: seen.phase == "Paused", within_s=5, what="the VM is Paused"
        )
        goes_on_s = await _goes_on_with_room(machine, disk, history, before)
        measured.add("disk has room again, guest goes on", goes_on_s, limit_s=GOES_ON_S)
        assert history.phases("vmi", "hungry") <= {
            "",
            "Pending",
            "Scheduling",
            "Scheduled",
            "Running",
        }
        pod_uid, again_s = await uid_of_pod(machine), time.time()
        await _write_too_much(machine, disk, at_mib=WRITTEN_MIB + 1)
        await history.first(
            "vmi", "hungry", _is_starved, after_s=again_s, within_s=30, what="Paused once more"
        )
        await cluster.kubectl("delete", "vm", "hungry", "--timeout=25s")
        assert await pod_processes(pod_uid) == {}


@pytest.mark.one_machine
async def test_guest_that_fills_its_node(
    cluster: Cluster, history: History, measured: Measured
) -> None:
    """No room for any of the pod's processes: the guest stands still, the condition names the disk that has no room, a launcher
    that is killed comes back all the same, and the guest goes on where it was when there is room."""
    manifest = counting_vmi("crowded", affinity=beside_starter(cluster, "crowded"))
    await cluster.apply(with_disk(manifest, "spare", {"emptyDisk": {"capacity": "32Mi"}}))
    machine = Machine(cluster, "crowded")
    async with small_disk(cluster, "crowded", "") as disk:
        await let_it_start(cluster, "crowded")
        await machine.console_shows("crowded login:")
        before = await witness_of(machine)
        device = (await guest_disks(machine))["spare"].device
        await _write_too_much(machine, disk, at_mib=0, device=device)
        paused = await history.first(
            "vmi", "crowded", _is_starved, within_s=30, what="Paused: PausedIOError"
        )
        assert '"spare"' in _why_paused(paused)
        goes_on_s = await _goes_on_with_room(machine, disk, history, before)
        measured.add("node has room again, guest goes on", goes_on_s, limit_s=GOES_ON_S)
        await cluster.kubectl("delete", "vmi", "crowded", "--timeout=30s")


@pytest.mark.one_machine
async def test_guest_that_fills_its_volume(
    cluster: Cluster, history: History, measured: Measured
) -> None:
    """The volume's file system is full: the guest stands still, the condition names the volume, and the write is done when there
    is space, with nothing torn."""
    async with local_volume(cluster, "data", VOLUME_MIB << 20) as volume:
        await cluster.apply(with_disk(counting_vmi("stuffed"), "data", claimed("data")))
        machine = Machine(cluster, "stuffed")
        await machine.console_shows("stuffed login:")
        before = await witness_of(machine)
        device = (await guest_disks(machine))["data"].device
        ballast = f"{volume.path}/ballast"
        free = f"$(df --output=avail -k {volume.path} | tail -1)"
        await on_node("sh", "-c", f"fallocate -l $(({free} - {ROOM_MIB} * 1024))K {ballast}")
        write_all = f"yes precious | dd of=/dev/{device} bs=1M count={WRITTEN_MIB} iflag=fullblock conv=fsync"
        await machine.ssh(f"({write_all}; echo $? >/tmp/written) >/dev/null 2>&1 </dev/null &")
        paused = await history.first(
            "vmi", "stuffed", _is_starved, within_s=30, what="Paused: PausedIOError"
        )
        assert '"data"' in _why_paused(paused)
        await on_node("rm", ballast)
        cleared_s = time.time()
        on_again = await history.first(
            "vmi",
            "stuffed",
            lambda seen: seen.is_right and seen.condition("Paused") == ("", ""),
            after_s=cleared_s,
            within_s=90,
            what="Running and Ready, not Paused",
        )
        measured.add(
            "volume has room again, guest goes on", on_again.at_s - cleared_s, limit_s=GOES_ON_S
        )
        await machine.pod_says("Ready", "True")
        done = await machine.ssh("until [ -s /tmp/written ]; do sleep 0.2; done; cat /tmp/written")
        assert done.stdout.strip() == "0", "the guest's write failed"
        assert (await witness_of(machine)).boot_id == before.boot_id
        await cluster.kubectl("delete", "vmi", "stuffed", "--timeout=30s")
        written = f"head -c {WRITTEN_MIB << 20} /claim/disk.img | uniq | head -c 64"
        assert await look_into(cluster, "data", written) == "precious\n"


@pytest.mark.long
async def test_evicted_for_what_it_keeps_on_disk(cluster: Cluster, history: History) -> None:
    """A pod over the limit of one of its directories is ended by the kubelet: the machine says so, and another follows."""
    await cluster.apply(counting_vm("greedy"))
    machine = Machine(cluster, "greedy")
    first = await machine.running()
    directory = volume_path(await uid_of_pod(machine), "console")
    await on_node("fallocate", "-l", "20M", f"{directory}/ballast")
    failed = await history.first(
        "vmi", "greedy", lambda seen: seen.phase == "Failed", within_s=120, what="Failed"
    )
    status = (failed.state or {})["status"]
    assert status["reason"] == "Evicted"
    (ready,) = (c for c in status["conditions"] if c["type"] == "Ready")
    assert "The node ended the pod" in ready["message"]
    notes = [event["note"] for event in await cluster.events(type_="Warning")]
    assert any('EmptyDir volume "console" exceeds the limit' in note for note in notes)
    await machine.running(within_s=60, not_uid=first["metadata"]["uid"])
    await cluster.kubectl("delete", "vm", "greedy", "--wait=false")


async def test_no_room_for_the_handlers_sockets(cluster: Cluster, survivor: Machine) -> None:
    """Nothing can be made in /run/podvisor: machines start and end all the same, and the sockets come when there is room."""
    before = await witness_of(survivor)
    await on_node("mount", "-t", "tmpfs", "-o", "nr_inodes=1", "none", "/run/podvisor")
    try:
        await _replace_handler(cluster)
        await cluster.apply(counting_vmi("unlinked"))
        await Machine(cluster, "unlinked").running(within_s=60)
        await on_node("mount", "-o", "remount,nr_inodes=1000", "/run/podvisor")
        await on_node(
            "timeout", "20", "sh", "-c",
            f"until grpcurl -plaintext -max-time 2 -unix {HANDLER_SOCKET} {HANDLER_SERVICE}/ListDomains"
            f" && [ -L /run/podvisor/launchers/{cluster.namespace}_unlinked.sock ]; do :; done",
        )  # fmt: skip
        (handler,) = await _handlers()
        assert handler["status"]["containerStatuses"][0]["restartCount"] == 0
        await cluster.kubectl("delete", "vmi", "unlinked", "--timeout=30s")
    finally:
        await on_node("umount", "-l", "/run/podvisor")
        await _replace_handler(cluster)
    now = await witness_of(survivor)
    assert now.boot_id == before.boot_id


async def _goes_on_with_room(
    machine: Machine, disk: SmallDisk, history: History, before: Witness
) -> float:
    """A launcher and a libvirtd that are killed while the guest stands still find it so; given room, the guest goes on where it was,
    and its write is done. In how many seconds."""
    name = machine.name
    struck_s = await strike([Victim.LAUNCHER, Victim.LIBVIRTD], await uid_of_pod(machine))
    await history.first(
        "domain",
        name,
        lambda seen: (seen.connection, seen.phase) == ("CONNECTED", "DOMAIN_STATE_PAUSED"),
        after_s=struck_s,
        within_s=20,
        what="the launcher is back and says the same",
    )
    await disk.clear()
    cleared_s = time.time()
    on_again = await history.first(
        "vmi",
        name,
        lambda seen: seen.is_right and seen.condition("Paused") == ("", ""),
        after_s=cleared_s,
        within_s=90,
        what="Running and Ready, not Paused",
    )
    await machine.pod_says("Ready", "True")
    done = await machine.ssh("until [ -s /tmp/written ]; do sleep 0.2; done; cat /tmp/written")
    assert done.stdout.strip() == "0", "the guest's write failed"
    now = await witness_of(machine)
    assert now.boot_id == before.boot_id
    assert now.counter > before.counter
    return on_again.at_s - cleared_s


async def _write_too_much(
    machine: Machine, disk: SmallDisk, *, at_mib: int, device: str = "vda"
) -> None:
    """Into a part of the guest's disk that it has not written yet."""
    to = f"of=/dev/{device} bs=1M seek={at_mib} count={WRITTEN_MIB} conv=fsync,notrunc"
    write = f"dd if=/dev/zero {to}"
    await disk.fill(leave_mib=ROOM_MIB)
    await machine.ssh(f"({write}; echo $? >/tmp/written) >/dev/null 2>&1 </dev/null &")


def _has_no_space(seen: Seen) -> bool:
    return seen.condition("Synchronized") == ("False", "NoSpace")


def _why_paused(seen: Seen) -> str:
    conditions = (seen.state or {})["status"]["conditions"]
    (message,) = (str(c["message"]) for c in conditions if c["type"] == "Paused")
    return message


def _is_starved(seen: Seen) -> bool:
    return seen.phase == "Running" and seen.condition("Paused") == ("True", "PausedIOError")


async def _handlers() -> list[Json]:
    install = Cluster("kubevirt")
    return await install.all("pods", labels="app.kubernetes.io/component=virt-handler")


async def _replace_handler(cluster: Cluster) -> None:
    (old,) = await _handlers()
    await Cluster("kubevirt").kubectl("delete", "pod", old["metadata"]["name"], "--timeout=40s")
    await Cluster("kubevirt").kubectl("rollout", "status", "ds/virt-handler", "--timeout=60s")
