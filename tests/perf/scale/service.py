"""Runs the real controller or handler from this checkout and watches its event loop.

    python -m tests.perf.scale.service controller|handler RESULT.json [PROFILE]

Replaced in the handler is one verdict only: that a launcher's process is in its pod's control group, because one process
plays all launchers of a node. When the service ends, RESULT.json holds its stalls; PROFILE, when named, a cProfile of it.
"""

import os
import sys

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import asyncio
import cProfile
import gc
import json
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from podvisor_common.aio.tasks import run_service
from podvisor_common.obs.logging import configure_logging

TICK_S = 0.020
NOTED_S = 0.010
WATCH_S = 0.025
SUSPICIOUS_S = 0.040
_NOTED_AT_MOST = 100_000
_STACKS_AT_MOST = 200


class LoopSampler:
    """Notes how late a timer of the loop fires, and how much of that the loop's own thread spent computing.

    The second is the service's doing alone; the first includes the time for which other processes had the CPU.
    """

    def __init__(self) -> None:
        self.stalls: list[tuple[float, float, float]] = []  # wall clock, late by, computed for
        self.collections: list[float] = []
        self.stacks: list[tuple[float, str]] = []  # wall clock, what the loop's thread was at
        self._looked: list[tuple[float, str]] = []  # the same since the last tick
        self._collecting_since_s = 0.0
        self._ticked_s = time.monotonic()
        self._loop_thread = threading.get_ident()

    async def run(self) -> None:
        """Sample until cancelled."""
        gc.callbacks.append(self._on_collection)
        threading.Thread(target=self._watch, name="stall-watch", daemon=True).start()
        while True:
            self._ticked_s = began_s = time.monotonic()
            computed_s = time.thread_time()
            await asyncio.sleep(TICK_S)
            late_s = time.monotonic() - began_s - TICK_S
            if late_s >= NOTED_S and len(self.stalls) < _NOTED_AT_MOST:
                computed_s = min(late_s, time.thread_time() - computed_s)
                self.stalls.append((time.time(), round(late_s, 4), round(computed_s, 4)))
                if computed_s >= SUSPICIOUS_S and len(self.stacks) < _STACKS_AT_MOST:
                    self.stacks += self._looked
            self._looked = []

    def _watch(self) -> None:
        """Look over the loop's shoulder while it is late."""
        while True:
            time.sleep(WATCH_S)
            if time.monotonic() - self._ticked_s < SUSPICIOUS_S or len(self._looked) > 9:
                continue
            frame = sys._current_frames().get(self._loop_thread)
            stack = traceback.extract_stack(frame)[-8:]
            names = [f"{Path(f.filename).stem}.{f.name}:{f.lineno}" for f in stack]
            self._looked.append((time.time(), " > ".join(names)))

    def _on_collection(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since_s = time.perf_counter()
        elif info["generation"] == 2:
            self.collections.append(round(time.perf_counter() - self._collecting_since_s, 4))


def _controller() -> Callable[[asyncio.Event], Awaitable[None]]:
    from podvisor_controller.app import run
    from podvisor_controller.settings import Settings

    settings = Settings.from_environment()
    return lambda stop: run(settings, stop)


def _handler() -> Callable[[asyncio.Event], Awaitable[None]]:
    from podvisor_common.kube.client import KubeClient
    from podvisor_handler.app import App
    from podvisor_handler.devices.kvm import KvmVerdict
    from podvisor_handler.linux.process import PinnedProcess
    from podvisor_handler.settings import Settings

    PinnedProcess.container_in_pod = lambda self, pod_uid: f"/pod{pod_uid}"  # type: ignore[method-assign]
    settings = Settings.from_environment()

    async def run(stop: asyncio.Event) -> None:
        async with await KubeClient.from_environment(user_agent="virt-handler") as client:
            await App(settings, client, KvmVerdict(False, "fake node")).run(stop)

    return run


async def _sampled(
    run: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event, sampler: LoopSampler
) -> None:
    sampling = asyncio.create_task(sampler.run(), name="loop-sampler")
    try:
        await run(stop)
    finally:
        sampling.cancel()


def main(service: str, result: str, profile: str = "") -> int:
    """Run one service until a stop signal; its exit code."""
    configure_logging(f"virt-{service}", os.environ.get("LOG_LEVEL", "WARNING"))
    run = {"controller": _controller, "handler": _handler}[service]()
    sampler, profiler = LoopSampler(), cProfile.Profile()
    if profile:
        profiler.enable()
    try:
        return run_service(lambda stop: _sampled(run, stop, sampler))
    finally:
        content = {
            "stalls": sampler.stalls,
            "collections": sampler.collections,
            "stacks": sampler.stacks,
        }
        Path(result).write_text(json.dumps(content))
        if profile:
            profiler.disable()
            profiler.dump_stats(profile)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
