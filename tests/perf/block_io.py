"""Block I/O of a guest compared with that of a pod on the same claim: the same program, the same places, past both page caches.

Invariant: who is measured has the claim for itself. A figure is the guest's time by the pod's: 1 is as fast, 2 takes twice as long.
"""

import asyncio
import base64
import gzip
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.perf.measure import Figure, can_virtualise
from tests.perf.observer import Observer, observing
from tests.support.cluster import Cluster, namespace
from tests.support.disks import claimed, guest_disks, with_disk
from tests.support.machine import Machine, vmi
from tests.support.process import run
from tests.support.storage import VolumeMode, local_volume, user_of

BUSES = ("virtio", "scsi", "sata")
MODES: Mapping[VolumeMode, str] = {"Filesystem": "file", "Block": "block"}
SAMPLES = 5
_SOURCE = Path(__file__).with_name("block_io.c")
_CLAIM, _BYTES, _SPAN = "data", 64 << 20, 32 << 20
_PATIENCE_S = 300.0
_IN_POD: Mapping[VolumeMode, str] = {"Filesystem": "/claim/disk.img", "Block": "/dev/claim"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """What is done with the disk. `count` transfers, one after another."""

    title: str
    direction: str
    block_bytes: int
    count: int
    order: str

    @property
    def words(self) -> str:
        """The program's arguments after the file."""
        return f"{self.direction} {self.block_bytes} {self.count} {_SPAN} {self.order}"

    @property
    def unit(self) -> str:
        return "1/s" if self.order == "random" else "MiB/s"

    def rate(self, took_s: float) -> float:
        """So much in a second, in the pattern's unit."""
        work = self.count if self.order == "random" else self.count * self.block_bytes / (1 << 20)
        return work / took_s


PATTERNS = {
    "sequential_write": Pattern("sequential write, 1 MiB", "w", 1 << 20, 32, "sequential"),
    "sequential_read": Pattern("sequential read, 1 MiB", "r", 1 << 20, 32, "sequential"),
    "random_write": Pattern("random write, 4 KiB", "w", 4096, 500, "random"),
    "random_read": Pattern("random read, 4 KiB", "r", 4096, 500, "random"),
}
Times = dict[str, list[float]]  # of each pattern, in seconds


async def block_io(samples: int = SAMPLES) -> list[Figure]:
    """One machine after another with a claim on each bus; then a pod with that claim."""
    program, found = await built(), []
    for mode, kind in MODES.items():
        async with (
            namespace(f"perf-io-{kind}-{int(time.time())}") as cluster,
            observing(cluster.namespace) as observer,
            local_volume(cluster, _CLAIM, _BYTES, mode),
        ):
            guests = {
                bus: await _of_guest(cluster, observer, bus, program, samples) for bus in BUSES
            }
            pod = await _of_pod(cluster, mode, program, samples)
        found += figures(kind, guests, pod)
    return found


def figures(kind: str, guests: Mapping[str, Times], pod: Times) -> list[Figure]:
    """What the pod does in a second, and the guest's times by the median of the pod's."""
    by, found = "KVM" if can_virtualise() else "TCG", []
    for name, pattern in PATTERNS.items():
        title = f"{pattern.title}, {kind} claim"
        rates = [pattern.rate(took_s) for took_s in pod[name]]
        found.append(Figure(f"io_{name}_pod_{kind}", f"{title}, pod", pattern.unit, rates))
        usual_s = statistics.median(pod[name])
        for bus, times in guests.items():
            shares = [took_s / usual_s for took_s in times[name]]
            key = f"io_{name}_{bus}_{kind}"
            found.append(Figure(key, f"{title}, guest ({by}, {bus}) / pod", "×", shares))
    return found


async def built() -> bytes:
    """The program that transfers blocks, for Linux on x86 of 32 and 64 bits."""
    flags = "-m32 -Os -Wall -Wextra -Werror -static -nostdlib -ffreestanding -fno-pic -no-pie -fno-stack-protector -s"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "block_io"
        await run("gcc", *flags.split(), "-o", str(path), str(_SOURCE))
        return path.read_bytes()


def script(program: bytes, path: str, samples: int, *, tool: str = "/tmp/block_io") -> str:
    """For any shell: bring the program in as `tool`, do it all that often with a file or device, and say `pattern microseconds` each time."""
    packed = base64.b64encode(gzip.compress(program)).decode()
    rounds = "; ".join(
        f"printf '{name} '; {tool} {path} {pattern.words}" for name, pattern in PATTERNS.items()
    )
    # The unmeasured write has the space allocated.
    return (
        f"set -e; echo {packed} | base64 -d | gunzip >{tool}; chmod +x {tool};"
        f" {tool} {path} {PATTERNS['sequential_write'].words} >/dev/null;"
        f" for _ in $(seq {samples}); do {rounds}; done"
    )


def parse(printed: str) -> Times:
    """What the script printed."""
    times: Times = {name: [] for name in PATTERNS}
    for line in printed.splitlines():
        name, microseconds = line.split()
        times[name].append(int(microseconds) / 1e6)
    return times


async def _of_guest(
    cluster: Cluster, observer: Observer, bus: str, program: bytes, samples: int
) -> Times:
    sent_s = await observer.create(
        with_disk(vmi(bus), _CLAIM, claimed(_CLAIM), {"disk": {"bus": bus}})
    )
    await observer.running(bus, after_s=sent_s)
    await observer.login(bus)
    machine = Machine(cluster, bus)
    device = await _device(machine)
    done = await machine.ssh(script(program, f"/dev/{device}", samples), timeout_s=_PATIENCE_S)
    await observer.gone(bus, after_s=await observer.delete(bus))
    times = parse(done.stdout)
    _show(f"guest, {bus}", times)
    return times


async def _device(machine: Machine) -> str:
    """The claim's device: drivers for other buses than virtio come after the prompt."""
    async with asyncio.timeout(60):
        while True:
            disks = await guest_disks(machine)
            if _CLAIM in disks:
                return disks[_CLAIM].device


async def _of_pod(cluster: Cluster, mode: VolumeMode, program: bytes, samples: int) -> Times:
    await cluster.apply(user_of("user", _CLAIM, mode, "sleep", "infinity"))
    await cluster.kubectl(
        "wait", "pod/user", "--for=condition=Ready", "--timeout=60s", timeout_s=70
    )
    command = script(program, _IN_POD[mode], samples)
    done = await cluster.kubectl("exec", "user", "--", "bash", "-c", command, timeout_s=_PATIENCE_S)
    times = parse(done.stdout)
    _show(f"pod, {mode}", times)
    return times


def _show(who: str, times: Mapping[str, Sequence[float]]) -> None:
    words = []
    for name, times_s in times.items():
        pattern = PATTERNS[name]
        words.append(f"{name} {pattern.rate(statistics.median(times_s)):.0f} {pattern.unit}")
    print(f"» {who}: {', '.join(words)}", flush=True)
