"""Who could write a machine's disks: the QEMU processes of one machine on the node, at any time.

Invariant: looks every twentieth of a second, on the node itself; the kernel tells nobody of processes that come and go. Two
QEMUs that overlap for longer than that are seen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.cluster import ROOT
from tests.support.machine import Machine
from tests.support.process import end

# `[g]uest` does not match itself in the command line of the shell that looks. The loop ends with its input.
_LOOK = """
(last=unknown
while :; do
  now=$(pgrep -f "[g]uest=$1," | tr '\\n' ' ')
  [ "$now" = "$last" ] || echo "$now"
  last=$now
  sleep 0.05
done) & loop=$!
cat >/dev/null
kill $loop
"""


@dataclass(slots=True)
class Writers:
    """The sets of process ids seen so far, in order."""

    seen: list[frozenset[int]] = field(default_factory=list)
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, pids: frozenset[int]) -> None:
        """Take note of one more set."""
        async with self._grown:
            self.seen.append(pids)
            self._grown.notify_all()

    async def until(self, holds: Callable[[], bool], *, within_s: float = 10) -> None:
        """Wait until what was seen is enough."""
        async with asyncio.timeout(within_s), self._grown:
            await self._grown.wait_for(holds)

    @property
    def most(self) -> int:
        """The largest number at one time."""
        return max(map(len, self.seen), default=0)

    @property
    def all(self) -> frozenset[int]:
        """Every process that ever was one."""
        return frozenset().union(*self.seen)


@asynccontextmanager
async def watching_writers(machine: Machine, *, node: str = "node1") -> AsyncIterator[Writers]:
    """Watches the machine's QEMUs on a node for the body."""
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "dev/node"), node, "sh", "-c", _LOOK, "look",
        f"{machine.cluster.namespace}_{machine.name}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    writers = Writers()
    reader = asyncio.create_task(_read(process, writers), name="writers")
    try:
        await writers.until(lambda: bool(writers.seen))
        yield writers
        assert not reader.done(), "nobody watched the writers to the end"
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(2):
                await process.wait()
        except TimeoutError:
            await end(process)


async def _read(process: asyncio.subprocess.Process, writers: Writers) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        await writers.add(frozenset(map(int, line.split())))
