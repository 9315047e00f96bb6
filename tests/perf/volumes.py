"""What volumes cost: starts by what kinds of them a machine has, space of overlays, block I/O, and latency of hot-plug.

    python -m tests.perf.volumes [starts|overlays|io|plugging]... [--samples 5]

Machines are started one at a time, each when the one before is gone; the kinds take turns, so that what else happens on the machine
meanwhile happens to all of them.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from podvisor_common.api import v1

from tests.perf.block_io import block_io
from tests.perf.measure import Figure
from tests.perf.observer import Observer, observing
from tests.perf.plugging import plugging
from tests.perf.start import manifest, pull
from tests.support.cluster import Cluster, Json, namespace, on_node
from tests.support.disks import claimed, with_disk
from tests.support.machine import Machine, vmi
from tests.support.storage import LocalVolume, VolumeMode, local_volume

SAMPLES = 5
MIB = 1 << 20
GIB = 1 << 30
# 'A 10 GiB image starts as fast as a 10 MB one': what medians of the same start differ by from run to run.
NOISE = 1.15
RUNNING_S = 1.7
DISKS_MS = 100.0
OVERLAY_KIB = 1024.0
_OVERLAYS = "/run/podvisor/private/disks"


def _ephemeral(claim: str) -> Json:
    return {"ephemeral": {"persistentVolumeClaim": {"claimName": claim}}}


SOURCES: Mapping[str, Json] = {
    "file": claimed("file"),
    "block": claimed("block"),
    "ephemeral": _ephemeral("base"),
    "empty": {"emptyDisk": {"capacity": "32Mi"}},
    "configs": {"configMap": {"name": "settings"}},
    "keys": {"secret": {"secretName": "keys"}},
    "small": claimed("small"),
    "large": claimed("large"),
    "over-small": _ephemeral("small"),
    "over-large": _ephemeral("large"),
}
ALL = ("file", "block", "ephemeral", "empty", "configs", "keys")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a machine has beside its container disk and its cloud-init data."""

    title: str
    volumes: tuple[str, ...]
    makes: str = ""  # the claim whose image is made anew


KINDS: Mapping[str, Kind] = {
    "none": Kind("container disk and cloud-init", ()),
    "file_made": Kind("+ file in a claim, made", ("file",), makes="file"),
    "file": Kind("+ file in a claim", ("file",)),
    "block": Kind("+ block claim", ("block",)),
    "ephemeral": Kind("+ ephemeral claim", ("ephemeral",)),
    "empty": Kind("+ emptyDisk", ("empty",)),
    "files": Kind("+ ConfigMap and Secret", ("configs", "keys")),
    "all": Kind("+ all of these", ALL),
    "small": Kind("+ sparse image of 10 MiB", ("small",)),
    "large": Kind("+ sparse image of 10 GiB", ("large",)),
    "over_small": Kind("+ ephemeral, 10 MiB", ("over-small",)),
    "over_large": Kind("+ ephemeral, 10 GiB", ("over-large",)),
}


@dataclass(frozen=True, slots=True)
class Claim:
    """A local volume, and the sparse image that is there from the start."""

    size_bytes: int
    image_bytes: int = 0
    mode: VolumeMode = "Filesystem"


CLAIMS: Mapping[str, Claim] = {
    "file": Claim(64 * MIB),
    "block": Claim(64 * MIB, mode="Block"),
    "base": Claim(64 * MIB, 32 * MIB),
    "small": Claim(16 * MIB, 10 * MIB),
    "large": Claim(11 * GIB, 10 * GIB),
}


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds to Running, and the milliseconds of it that the launcher took for the disks."""

    running_s: float
    disks_ms: float


async def starts(samples: int = SAMPLES) -> list[Figure]:
    """Each kind as often as told."""
    found: dict[str, list[Start]] = {kind: [] for kind in KINDS}
    async with (
        namespace(f"perf-volumes-{int(time.time())}") as cluster,
        observing(cluster.namespace) as observer,
        _claims(cluster) as claims,
    ):
        await pull(observer)
        # Claims are bound when a pod wants them, which is no part of a start.
        await _start(observer, _machine("binding", (*ALL, "small", "large")))
        for number in range(samples):
            for key, kind in KINDS.items():
                if kind.makes:
                    await on_node("rm", "-f", f"{claims[kind.makes].path}/disk.img")
                name = f"{key.replace('_', '-')}-{number}"
                found[key].append(await _start(observer, _machine(name, kind.volumes)))
            words = (f"{key} {all_[-1].running_s:.2f} s" for key, all_ in found.items())
            print(f"» starts {number + 1}: {', '.join(words)}", flush=True)
    return start_figures(found)


def start_figures(found: Mapping[str, list[Start]]) -> list[Figure]:
    """Times by kind, and how those of a large image compare with those of a small one."""
    figures = []
    for key, all_ in found.items():
        title = KINDS[key].title
        figures += [
            Figure(f"running_{key}", f"create → Running: {title}", "s", [one.running_s for one in all_], RUNNING_S),
            Figure(f"disks_{key}", f"the launcher's disks: {title}", "ms", [one.disks_ms for one in all_], DISKS_MS),
        ]  # fmt: skip
    for key, large, small, title in (
        ("large_by_small", "large", "small", "create → Running, image of 10 GiB / 10 MiB"),
        ("over_large_by_small", "over_large", "over_small", "the same, ephemeral"),
    ):
        pairs = zip(found[large], found[small], strict=True)
        figures.append(Figure(key, title, "×", [a.running_s / b.running_s for a, b in pairs], NOISE))  # fmt: skip
    return figures


def disks_ms(timeline: v1.StartTimeline) -> float:
    """From when the launcher could be told of the disks until they were made."""
    assert timeline.disks_ready is not None
    return timeline.disks_ready - max(timeline.launcher_ready or 0, timeline.network_ready or 0)


async def overlays(samples: int = 1) -> list[Figure]:
    """Bytes allocated of everything that goes with the pod, once the guest has booted."""
    sizes: dict[str, list[float]] = {}
    async with (
        namespace(f"perf-overlays-{int(time.time())}") as cluster,
        observing(cluster.namespace) as observer,
        _claims(cluster),
    ):
        for number in range(samples):
            name = f"m{number}"
            content = vmi(name)
            for volume in ALL:
                with_disk(content, volume, SOURCES[volume])
            sent_s = await observer.create(content)
            await observer.running(name, after_s=sent_s)
            await observer.login(name)
            for file, size_bytes in (await _allocated(Machine(cluster, name))).items():
                sizes.setdefault(file, []).append(size_bytes / 1024)
            await observer.gone(name, after_s=await observer.delete(name))
    return [
        Figure(f"overlay_{volume}", f"overlay of the test guest at its login prompt: {volume}", "KiB", found, OVERLAY_KIB)
        for volume, found in sorted(sizes.items())
    ]  # fmt: skip


async def _allocated(machine: Machine) -> dict[str, int]:
    processes = await machine.processes()
    pid = next(pid for pid, command in processes.items() if "podvisor_launcher" in command)
    where = f"/proc/{pid}/root{_OVERLAYS}"
    done = await on_node("find", where, "-type", "f", "-printf", r"%b %f\n")
    return parse_listing(done.stdout)


def parse_listing(text: str) -> dict[str, int]:
    """Bytes allocated by volume, of lines `blocks of 512 bytes, name.qcow2`."""
    found = {}
    for line in text.splitlines():
        blocks, name = line.split(" ", 1)
        found[name.removesuffix(".qcow2")] = int(blocks) * 512
    return found


def _machine(name: str, volumes: tuple[str, ...]) -> dict[str, Any]:
    """The machine of the part `start` with these volumes on virtio. It ends at once: its guest is not waited for."""
    content = manifest(name)
    content["spec"]["terminationGracePeriodSeconds"] = 0
    for volume in volumes:
        with_disk(content, volume, SOURCES[volume])
    return content


async def _start(observer: Observer, content: dict[str, Any]) -> Start:
    """Start a machine, and wait until it is gone again."""
    name = content["metadata"]["name"]
    sent_s = await observer.create(content)
    running_s = await observer.running(name, after_s=sent_s) - sent_s
    timeline = observer.instance(name).status.start_timeline
    assert timeline is not None
    await observer.gone(name, after_s=await observer.delete(name))
    return Start(running_s, disks_ms(timeline))


@asynccontextmanager
async def _claims(cluster: Cluster) -> AsyncIterator[dict[str, LocalVolume]]:
    """All claims with their images, a ConfigMap and a Secret."""
    for content in (
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "blue"}},
        {"kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"key": "value"}},
    ):
        await cluster.apply({"apiVersion": "v1", **content})
    async with AsyncExitStack() as stack:
        volumes = {}
        for name, one in CLAIMS.items():
            made = local_volume(cluster, name, one.size_bytes, one.mode)
            volumes[name] = await stack.enter_async_context(made)
            if one.image_bytes:
                image = f"{volumes[name].path}/disk.img"
                await on_node("truncate", "-s", str(one.image_bytes), image)
        yield volumes


EVERY: Mapping[str, Callable[[int], Awaitable[list[Figure]]]] = {
    "starts": starts,
    "overlays": lambda _: overlays(),
    "io": block_io,
    "plugging": plugging,
}


async def volumes(samples: int = SAMPLES) -> list[Figure]:
    """All of it."""
    return [figure for measure in EVERY.values() for figure in await measure(samples)]


async def main() -> None:
    """Parse the arguments, measure, show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    options = parser.parse_args()
    if unknown := set(options.what) - EVERY.keys():
        parser.error(f"nothing of that name: {', '.join(sorted(unknown))}")
    for name in options.what or EVERY:
        for figure in await EVERY[name](options.samples):
            low, high = min(figure.samples), max(figure.samples)
            median = statistics.median(figure.samples)
            print(f"{figure.title:80} {low:8.2f} {median:8.2f} {high:8.2f} {figure.unit}")


if __name__ == "__main__":
    asyncio.run(main())
