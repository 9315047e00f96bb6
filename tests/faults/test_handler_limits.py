"""A handler process at the limits of its node: no inotify to be had, 100 000 directories and links that nobody cleared.

inotify's limits count for a user of the whole machine, so the process gets a user namespace with limits of its own; it is the
checkout's handler between an API server of the test's and a launcher of the test's, on real sockets.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from podvisor_common.kube.resources import EVENTS, NODES

from tests.faults.measured import Measured
from tests.perf.measure import memory_mib
from tests.support.cluster import ROOT
from tests.unit.handler.fake_launcher import (
    FakeLauncher,
    needs_root,
    needs_user_namespaces,
    serving,
)
from tests.unit.handler.world import RUNNING, World, directory_until, start, world_in

STALE = 100_000
HANDLER_MIB = 85.0
STALL_S = 0.050
STARTED_S = 5.0
# A directory that is not watched is looked at once a second.
NOTICED_S = 3.0


pytestmark = [needs_root, needs_user_namespaces]


@dataclass(slots=True)
class Handler:
    """A handler process, and what it wrote about its loop when it has ended."""

    process: asyncio.subprocess.Process
    result: Path

    async def stop(self) -> float:
        """End it as the kubelet would; the longest time for which its loop computed at once, in seconds."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            await self.process.wait()
        stalls = json.loads(self.result.read_text())["stalls"]
        return max((computed_s for _, _, computed_s in stalls), default=0.0)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place in memory: 100 000 directories on a disk are a test of the disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="pv") as directory:
        # A launcher's socket is bound elsewhere and renamed, which has to be the same file system.
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


@pytest.fixture
async def world(place: Path) -> AsyncIterator[World]:
    async with world_in(place) as one:
        yield one


@asynccontextmanager
async def handler(world: World, *limits: str) -> AsyncIterator[Handler]:
    """The handler's process, in a user namespace with these limits, like `max_inotify_watches=0`."""
    result = world.run / "result.json"
    config = world.run / "kubeconfig"
    config.write_text(json.dumps(_kubeconfig(world.server.url)))
    settings = "".join(
        f"echo {value} > /proc/sys/user/{name}; "
        for name, value in (limit.split("=") for limit in limits)
    )
    process = await asyncio.create_subprocess_exec(
        "unshare", "-Ur", "sh", "-c", settings + 'exec "$@"', "sh",
        sys.executable, "-m", "tests.perf.scale.service", "handler", str(result),
        cwd=ROOT,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "KUBECONFIG": str(config), "METRICS_PORT": "0",
            "NODE_NAME": "node1", "POD_NAME": "virt-handler-x", "PODS_DIRECTORY": str(world.pods),
            "RUN_DIRECTORY": str(world.run), "DEVICE_PLUGIN_DIRECTORY": str(world.run),
        },
    )  # fmt: skip
    one = Handler(process, result)
    try:
        yield one
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
async def test_no_inotify_to_be_had(world: World, measured: Measured, limit: str) -> None:
    """A machine starts all the same, a moment later; the node has an event that says which limit it is."""
    launcher = FakeLauncher()
    start(world)
    async with handler(world, f"{limit}=0") as process:
        # By now the handler has looked for the launcher's socket.
        await world.until(lambda: "labels" in world.server.list(NODES)[0]["metadata"])
        began_s = time.monotonic()
        async with serving(launcher, world.pods):
            await launcher.until(lambda: len(launcher.applied) == 1)
            measured.add(
                f"launcher noticed at {limit}=0", time.monotonic() - began_s, limit_s=NOTICED_S
            )
            await launcher.report(**RUNNING)
            await world.until(lambda: world.status("phase") == "Running")
        await world.until(lambda: "InotifyLimitReached" in _reasons(world))
        (event,) = (e for e in world.server.list(EVENTS) if e["reason"] == "InotifyLimitReached")
        assert event["regarding"]["kind"] == "Node"
        assert limit in event["note"]
        await process.stop()


async def test_a_hundred_thousand_stale_directories(world: World, measured: Measured) -> None:
    """They cost the handler neither time at its start nor memory, and hold up no machine."""
    _litter(world)
    launcher = FakeLauncher()
    start(world)
    began_s = time.monotonic()
    async with serving(launcher, world.pods), handler(world) as process:
        await launcher.report(**RUNNING)
        await world.until(lambda: world.status("phase") == "Running")
        started_s = time.monotonic() - began_s
        measured.add("handler starts amid 100 000 directories", started_s, limit_s=STARTED_S)
        links = world.run / "launchers"
        await directory_until(links, lambda: _names(links) == ["default_myvm.sock"])
        rss_mib = memory_mib(process.process.pid)["rss"]
        longest_s = await process.stop()
    measured.add("handler's longest stall amid 100 000 directories", longest_s, limit_s=STALL_S)
    print(f"handler: {rss_mib:.1f} MiB")
    assert rss_mib <= HANDLER_MIB


def _litter(world: World) -> None:
    """Directories as of pods and links as of launchers that are long gone."""
    links = world.run / "launchers"
    links.mkdir()
    for number in range(STALE):
        uid = str(UUID(int=number))
        (world.pods / uid).mkdir()
        (links / f"default_gone-{number}.sock").symlink_to(f"/nowhere/{uid}")


def _names(directory: Path) -> list[str]:
    return os.listdir(directory)


def _reasons(world: World) -> set[str]:
    return {event["reason"] for event in world.server.list(EVENTS)}


def _kubeconfig(url: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "test"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
