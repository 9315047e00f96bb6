"""A user who goes on meanwhile: machines are created, run and are stopped, one after the other.

Invariant: what the user was told has been accepted is counted; what was refused is tried again and remembered.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.history import History
from tests.support.cluster import Cluster, Json
from tests.support.machine import vm

# From a creation without anybody to act on it to Running, or from there to Stopped.
PATIENCE_S = 75.0
LANES = 2
_HALTED = {"spec": {"runStrategy": "Halted"}}


@dataclass(slots=True)
class Churn:
    """The machines so far: created ones, and those that have run and are stopped."""

    history: History
    prefix: str
    patience_s: float = PATIENCE_S
    names: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    _ending: bool = False
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def more(self, number: int, *, within_s: float = 2 * PATIENCE_S) -> None:
        """Wait until so many more machines have run and are stopped."""
        target = len(self.done) + number
        async with asyncio.timeout(within_s), self._grown:
            await self._grown.wait_for(lambda: len(self.done) >= target)

    def end(self) -> None:
        """No more machines after those at hand."""
        self._ending = True

    async def run(self, lane: int) -> None:
        """One machine after the other."""
        while not self._ending:
            name = f"{self.prefix}-{lane}-{len(self.names)}"
            self.names.append(name)
            await self._accepted("create", "-f", "-", manifest=vm(name))
            await self._phase(name, "Running")
            await self._accepted("patch", "vm", name, "--type=merge", "-p", json.dumps(_HALTED))
            await self._phase(name, "Stopped")
            async with self._grown:
                self.done.append(name)
                self._grown.notify_all()

    async def _accepted(self, *args: str, manifest: Json | None = None) -> None:
        """Ask until it is accepted. A refusal takes the time of a process, which is pause enough."""
        cluster, text = self.history.cluster, json.dumps(manifest) if manifest else None
        async with asyncio.timeout(self.patience_s):
            while (done := await cluster.kubectl(*args, stdin=text, check=False)).exit_code != 0:
                # Refused after it had been accepted: the answer was lost, not the machine.
                if "AlreadyExists" in done.stderr:
                    return
                self.refusals.append(done.stderr.strip())

    async def _phase(self, name: str, phase: str) -> None:
        await self.history.first(
            "vm", name, lambda seen: seen.phase == phase, within_s=self.patience_s, what=phase
        )


@asynccontextmanager
async def churning(
    cluster: Cluster, history: History, prefix: str, *, patience_s: float = PATIENCE_S
) -> AsyncIterator[Churn]:
    """Machines come and go for the body; when it is left, the last ones have run and are stopped, and all are deleted."""
    churn = Churn(history, prefix, patience_s)
    async with asyncio.TaskGroup() as group:
        for lane in range(LANES):
            group.create_task(churn.run(lane), name=f"churn-{lane}")
        try:
            yield churn
        finally:
            churn.end()
    await cluster.kubectl("delete", "vm", *churn.names, "--wait=false")


def each_ran_once(churn: Churn) -> None:
    """Nothing was lost and nothing doubled: each machine had exactly one instance, which never failed."""
    for name in churn.names:
        seen = churn.history.of("vmi", name)
        assert len({one.state["metadata"]["uid"] for one in seen if one.state}) == 1, name
        assert "Failed" not in churn.history.phases("vmi", name), churn.history
