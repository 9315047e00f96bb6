"""A launcher without its process, and what others do to its guest."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import libvirt
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle.machine import Machine
from podvisor_launcher.lifecycle.record import Start, load_record
from podvisor_launcher.lifecycle.reports import Reports
from podvisor_launcher.settings import Settings

from tests.unit.launcher.conftest import TEST_DRIVER


@dataclass
class Launcher:
    """A launcher process without its process."""

    machine: Machine
    reports: Reports
    end: asyncio.Task[int]
    specs: list[pb.DomainSpec] = field(default_factory=list)

    async def until(self, holds: Callable[[pb.DomainReport], bool]) -> pb.DomainReport:
        """The first report that `holds`."""
        async with asyncio.timeout(15):
            async for report in self.reports.watch():
                if holds(report):
                    return report
        raise AssertionError("the stream ended")

    async def until_state(self, state: pb.DomainState.ValueType) -> pb.DomainReport:
        """The first report of that state."""
        return await self.until(lambda report: report.state == state)

    async def exit_code(self) -> int:
        """What the process would end with."""
        async with asyncio.timeout(15):
            return await self.end


@asynccontextmanager
async def launcher(settings: Settings) -> AsyncIterator[Launcher]:
    """A launcher that is killed when the block is left."""
    reports = Reports(epoch=7)
    specs: list[pb.DomainSpec] = []
    machine = Machine(settings, reports, specs.append)
    connection = asyncio.create_task(machine.libvirt.run(), name="libvirt")
    agent = asyncio.create_task(machine.agent.run(machine.libvirt), name="guest agent")
    end = asyncio.create_task(machine.run(), name="machine")
    try:
        yield Launcher(machine, reports, end, specs)
    finally:
        for task in (connection, agent, end):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def outside(name: str, verb: str) -> None:
    """Somebody else does something to the domain."""
    getattr(libvirt.open(TEST_DRIVER).lookupByName(f"default_{name}"), verb)()


def start_of(settings: Settings) -> Start:
    return load_record(settings.record).start
