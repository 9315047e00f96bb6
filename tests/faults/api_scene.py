"""Machines in everything that can be on its way when nobody answers any more: one that just runs, one that was just handed over
to its node, one that comes and goes, one that was told to stop, and one whose guest powers off.

Invariant: what happens meanwhile is seen on the node itself, through the handler's socket, and needs no API server.
"""

import asyncio
import time
from dataclasses import dataclass

from tests.faults.guest import Witness, booted, counting_vmi, lived_on, witness_of
from tests.faults.history import History, Seen
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, gone, user_data

# From Scheduled to a running guest, and from a shutdown to its end, on a busy machine under emulation.
NODE_TAKES_S = 55.0
# How long the guest that powers off waits, so that it does so when nobody looks.
_POWEROFF_AFTER_S = 5
POWERED_OFF = "DOMAIN_STATE_ENDED"


@dataclass(slots=True)
class Scene:
    """The machines, and what there was of them when the fault began."""

    cluster: Cluster
    history: History
    survivor: Machine
    starter: Machine
    visitor: Machine
    stopper: Machine
    leaver: Machine
    before: Witness

    @property
    def machines(self) -> list[str]:
        """All their names."""
        machines = (self.survivor, self.starter, self.visitor, self.stopper, self.leaver)
        return [machine.name for machine in machines]

    async def meanwhile(self) -> None:
        """While nobody answers: the start and the stop that were handed over complete, and the guest's own end is noticed."""
        async with asyncio.TaskGroup() as group:
            for machine, what, ends in (
                (self.starter, "runs", lambda seen: seen.phase == "DOMAIN_STATE_RUNNING"),
                (self.visitor, "has come and gone", _has_ended),
                (self.stopper, "is stopped", _has_ended),
                (self.leaver, "has powered off", _has_ended),
            ):
                group.create_task(
                    self.history.first(
                        "domain",
                        machine.name,
                        ends,
                        within_s=NODE_TAKES_S,
                        what=f"the guest {what}",
                    )
                )

    async def afterwards(self, back_s: float, *, within_s: float) -> float:
        """All is as it should be; when the last of it was so, in seconds after `back_s`."""
        first, vmi = self.history.first, "vmi"
        found = await asyncio.gather(
            first(vmi, self.starter.name, _is_right, within_s=within_s, what="Running"),
            first(vmi, self.visitor.name, _has_succeeded, within_s=within_s, what="Succeeded"),
            first(vmi, self.leaver.name, _has_succeeded, within_s=within_s, what="Succeeded"),
            first(vmi, self.stopper.name, _is_gone, within_s=within_s, what="gone"),
        )
        # Said anew, or nothing was said since.
        now = await self.cluster.get(vmi, self.survivor.name)
        assert _is_right(Seen(time.time(), vmi, self.survivor.name, now)), now
        await lived_on(self.survivor, self.before)
        assert self.history.phases(vmi, self.survivor.name) == {"Running"}, self.history
        for name in self.machines:
            assert "Failed" not in self.history.phases(vmi, name), self.history
            assert len(self._uids(name)) == 1, f"{name} is another one\n{self.history}"
        for machine in (self.survivor, self.starter, self.visitor, self.leaver):
            selector = f"vmi.kubevirt.io/id={machine.name}"
            assert len(await self.cluster.all("pods", labels=selector)) == 1
        return max(0.0, max(seen.at_s for seen in found) - back_s)

    async def clear(self) -> None:
        """Delete what was made."""
        names = (self.starter.name, self.visitor.name, self.leaver.name)
        await self.cluster.kubectl("delete", "vmi", *names, "--wait=false")
        for name in names:
            await self.cluster.until("vmi", name, gone, within_s=30, what="gone")

    def _uids(self, name: str) -> set[str]:
        return {s.state["metadata"]["uid"] for s in self.history.of("vmi", name) if s.state}


async def handed_over(cluster: Cluster, history: History, survivor: Machine, prefix: str) -> Scene:
    """The scene, just before the fault: the start and the stop are on their way."""
    roles = ("starter", "visitor", "stopper", "leaver")
    starter, visitor, stopper, leaver = (f"{prefix}-{role}" for role in roles)
    stopping, leaving = await asyncio.gather(
        booted(cluster, counting_vmi(stopper)), booted(cluster, counting_vmi(leaver))
    )
    before = await witness_of(survivor)
    await leaving.ssh(f"(sleep {_POWEROFF_AFTER_S}; poweroff) >/dev/null 2>&1 &")
    since_s = time.time()
    await cluster.kubectl("delete", "vmi", stopper, "--wait=false")
    await cluster.apply(_visiting(visitor))
    await cluster.apply(counting_vmi(starter))
    await asyncio.gather(
        *(
            history.first(
                "vmi", name, lambda seen: seen.phase == "Scheduled", within_s=20, what="Scheduled"
            )
            for name in (visitor, starter)
        ),
        history.first(
            "domain",
            stopper,
            lambda seen: (
                seen.state is None
                or bool(seen.state["report"].get("shuttingDown"))
                or _has_ended(seen)
            ),
            after_s=since_s,
            within_s=20,
            what="the guest is being stopped",
        ),
    )
    return Scene(
        cluster,
        history,
        survivor,
        starter=Machine(cluster, starter),
        visitor=Machine(cluster, visitor),
        stopper=stopping,
        leaver=leaving,
        before=before,
    )


def _visiting(name: str) -> Json:
    """A machine whose guest powers off as soon as it is up."""
    manifest = counting_vmi(name)
    seed = user_data(name, "runcmd:", "  - poweroff")
    manifest["spec"]["volumes"][1]["cloudInitNoCloud"]["userData"] = seed
    return manifest


def _has_ended(seen: Seen) -> bool:
    return seen.state is None or seen.phase == POWERED_OFF


def _is_right(seen: Seen) -> bool:
    return seen.is_right


def _has_succeeded(seen: Seen) -> bool:
    return seen.phase == "Succeeded"


def _is_gone(seen: Seen) -> bool:
    return seen.state is None
