"""How long a volume takes into a running guest and out of it: from the edit of the machine's template to what status and guest show."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields

from tests.perf.measure import Figure
from tests.perf.observer import PATIENCE_S, Instance, Observer, observing
from tests.support.cluster import Cluster, namespace
from tests.support.hotplug import add_volume, edited, remove_volume, rescan, roomy_vm
from tests.support.machine import Machine
from tests.support.storage import local_volume

BUSES = ("virtio", "scsi")
SAMPLES = 5
Devices = frozenset[str]
_NAME, _VOLUME, _BYTES = "host", "data", 64 << 20
# The guest's word for its block devices, at each change. A look costs an emulated guest some milliseconds.
_WATCH = (
    "old=; while :; do set -- /sys/block/*;"
    ' [ "$*" = "$old" ] || { old="$*"; echo "$*"; }; usleep 50000; done'
)
# A guest whose driver does not hear of new disks has to look for them; that it had to shows in the figure.
_RESCAN_AFTER_S = 20.0


@dataclass(frozen=True, slots=True)
class Times:
    """One volume in and out, in seconds since the template was edited."""

    ready: float
    visible: float
    vanished: float
    gone: float


_TITLES = {
    "ready": "template edit → volumeStatus Ready",
    "visible": "template edit → device in the guest",
    "vanished": "template edit → device gone from the guest",
    "gone": "template edit → gone from volumeStatus",
}
_BUDGETS_S = {"visible": 3.0, "vanished": 1.0, "gone": 5.0}


class GuestDevices:
    """The block devices of a guest as it tells of them itself."""

    def __init__(self) -> None:
        self._told: list[tuple[float, Devices]] = []
        self._grown = asyncio.Event()

    @property
    def now(self) -> Devices:
        return self._told[-1][1]

    async def listen(self, lines: AsyncIterator[str]) -> None:
        """Take in what the guest prints until it stops."""
        async for line in lines:
            self.note(time.monotonic(), frozenset(line.split()))

    def note(self, at_s: float, devices: Devices) -> None:
        """The guest has these devices since then."""
        self._told.append((at_s, devices))
        self._grown.set()

    async def first(
        self, holds: Callable[[Devices], bool], *, after_s: float, within_s: float = PATIENCE_S
    ) -> float:
        """When the guest first told of devices as `holds` wants them, after a moment. TimeoutError, with what it told last."""
        checked = 0
        try:
            async with asyncio.timeout(within_s):
                while True:
                    for at_s, devices in self._told[checked:]:
                        if at_s >= after_s and holds(devices):
                            return at_s
                    checked = len(self._told)
                    while checked == len(self._told):
                        self._grown.clear()
                        await self._grown.wait()
        except TimeoutError:
            last = sorted(self._told[-1][1]) if self._told else "nothing"
            raise TimeoutError(f"after {within_s} s the guest has {last}") from None


async def plugging(samples: int = SAMPLES) -> list[Figure]:
    """Attach a claim with a file system to a running machine and detach it again, as often as told on each bus."""
    found: dict[str, list[Times]] = {}
    async with (
        namespace(f"perf-plug-{int(time.time())}") as cluster,
        observing(cluster.namespace) as observer,
        local_volume(cluster, _VOLUME, _BYTES),
    ):
        sent_s = await observer.create(roomy_vm(_NAME))
        await observer.running(_NAME, after_s=sent_s)
        await observer.login(_NAME)
        machine = Machine(cluster, _NAME)
        async with _watching(machine) as guest:
            for bus in BUSES:
                # The first binds the claim, and waits for drivers that the guest loads late.
                await _in_and_out(cluster, observer, machine, guest, bus)
                found[bus] = []
                for number in range(samples):
                    times = await _in_and_out(cluster, observer, machine, guest, bus)
                    found[bus].append(times)
                    print(f"» {bus} {number + 1}: {times}", flush=True)
    return figures(found)


def figures(found: dict[str, list[Times]]) -> list[Figure]:
    """Each step on each bus."""
    return [
        Figure(f"plug_{step.name}_{bus}", f"{_TITLES[step.name]}, {bus}", "s", [getattr(one, step.name) for one in times], _BUDGETS_S.get(step.name))
        for bus, times in found.items()
        for step in fields(Times)
    ]  # fmt: skip


@asynccontextmanager
async def _watching(machine: Machine) -> AsyncIterator[GuestDevices]:
    guest = GuestDevices()
    async with machine.prints(_WATCH) as lines:
        listening = asyncio.create_task(guest.listen(lines), name="guest's devices")
        try:
            await guest.first(bool, after_s=0, within_s=30)
            yield guest
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def _in_and_out(
    cluster: Cluster, observer: Observer, machine: Machine, guest: GuestDevices, bus: str
) -> Times:
    before = guest.now
    patch = await edited(cluster, _NAME, lambda spec: add_volume(spec, _VOLUME, bus))
    in_s = await observer.edit(_NAME, patch)
    ready_s, visible_s = await asyncio.gather(
        observer.until(lambda found: _phase(found) == "Ready", what="a volume that is Ready"),
        _visible(machine, guest, before, in_s),
    )
    patch = await edited(cluster, _NAME, lambda spec: remove_volume(spec, _VOLUME))
    out_s = await observer.edit(_NAME, patch)
    gone_s, vanished_s = await asyncio.gather(
        observer.until(lambda found: _phase(found) is None, what="a volume that is gone"),
        guest.first(lambda devices: devices == before, after_s=out_s),
    )
    return Times(ready_s - in_s, visible_s - in_s, vanished_s - out_s, gone_s - out_s)


async def _visible(machine: Machine, guest: GuestDevices, before: Devices, after_s: float) -> float:
    try:
        return await guest.first(
            lambda devices: devices > before, after_s=after_s, within_s=_RESCAN_AFTER_S
        )
    except TimeoutError:
        await rescan(machine)
        return await guest.first(lambda devices: devices > before, after_s=after_s)


def _phase(found: list[Instance]) -> str | None:
    """What is said of the volume; None when that is nothing."""
    phases = (v.phase for one in found for v in one.status.volume_status or () if v.name == _VOLUME)
    return next(phases, None)
