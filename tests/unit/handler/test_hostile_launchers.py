"""A process in a pod that misbehaves on its socket: a bounded effort, one complaint, and the neighbour is none the wiser."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.launchers.state import Connection

from tests.unit.handler.builders import pod
from tests.unit.handler.fake_launcher import (
    OTHER_POD_UID,
    POD_UID,
    VMI_UID,
    WITHIN_S,
    FakeLauncher,
    control_group,
    needs_root,
    serving,
    sockets_directory,
    until,
)
from tests.unit.handler.test_registry import connected, connection, registry_of

pytestmark = needs_root

NEIGHBOUR_WAITS_S = 1.0
REPORTS_OF_THE_NEIGHBOUR = 10


class Misbehaving:
    """A listener in the place of a launcher's socket that is not one."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.connections = 0
        self._met = asyncio.Condition()
        self._guests: set[asyncio.Task[None]] = set()

    async def met(self, times: int) -> None:
        """Returns when it was connected to that often."""
        async with asyncio.timeout(WITHIN_S), self._met:
            await self._met.wait_for(lambda: self.connections >= times)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._guests.add(task)
        async with self._met:
            self.connections += 1
            self._met.notify_all()
        with contextlib.suppress(ConnectionError):
            writer.write(self.answer)
            await writer.drain()
            await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def listening(self, pods: Path) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="pv") as short:
            server = await asyncio.start_unix_server(self._meet, f"{short}/s")
            os.rename(f"{short}/s", sockets_directory(pods) / "launcher.sock")
            try:
                yield
            finally:
                server.close()
                await asyncio.gather(*self._guests)


async def neighbour_is_served(registry: LauncherRegistry, neighbour: FakeLauncher) -> None:
    """Its reports arrive as if it were alone."""
    found = await connected(registry, OTHER_POD_UID)
    for number in range(1, REPORTS_OF_THE_NEIGHBOUR):

        def has_arrived(sequence: int = number + 1) -> bool:
            return found.report is not None and found.report.sequence == sequence

        began = time.monotonic()
        await neighbour.report(message=str(number))
        await until(registry, has_arrived)
        assert time.monotonic() - began < NEIGHBOUR_WAITS_S


@pytest.mark.parametrize(
    "answer",
    [b"", b"\x00" * 4096, b"SSH-2.0-OpenSSH_9.2\r\n" * 50, os.urandom(1 << 20)],
    ids=["says nothing", "zeroes", "another protocol", "noise"],
)
async def test_garbage(tmp_path: Path, answer: bytes) -> None:
    neighbour = FakeLauncher()
    misbehaving = Misbehaving(answer)
    with control_group(POD_UID, OTHER_POD_UID):
        async with misbehaving.listening(tmp_path):
            with structlog.testing.capture_logs() as lines:
                async with (
                    serving(neighbour, tmp_path, OTHER_POD_UID),
                    registry_of(tmp_path, pod(), pod(uid=OTHER_POD_UID)) as registry,
                ):
                    # each attempt connects once to see who listens, and at least once to talk
                    await misbehaving.met(6 if answer else 2)
                    await neighbour_is_served(registry, neighbour)
                    assert connection(registry).state is Connection.WAITING
                    assert connection(registry).report is None
    complaints = [line for line in lines if line.get("log_level") in ("warning", "error")]
    assert len(complaints) <= 2, complaints


async def test_a_launcher_that_comes_and_goes_for_ever(tmp_path: Path) -> None:
    ending = FakeLauncher(ends=True)
    with control_group(POD_UID), structlog.testing.capture_logs() as lines:
        async with serving(ending, tmp_path), registry_of(tmp_path, pod()) as registry:
            lost = 0

            def note(each: LauncherConnection, gone: bool) -> None:
                nonlocal lost
                lost += each.state is Connection.UNRESPONSIVE

            registry.subscribe(note)
            await until(registry, lambda: lost >= 22)
    assert 2 <= len(lines) <= 21, len(lines)


async def test_a_report_of_64_mib(tmp_path: Path) -> None:
    neighbour = FakeLauncher()
    with control_group(POD_UID, OTHER_POD_UID):
        async with (
            serving(FakeLauncher(message="x" * (64 << 20)), tmp_path),
            serving(neighbour, tmp_path, OTHER_POD_UID),
            registry_of(tmp_path, pod(), pod(uid=OTHER_POD_UID)) as registry,
        ):
            await connected(registry, OTHER_POD_UID)
            await until(registry, lambda: connection(registry).report is None)
            await neighbour_is_served(registry, neighbour)
            assert connection(registry).state is Connection.WAITING


async def test_a_flood_of_reports(tmp_path: Path) -> None:
    neighbour = FakeLauncher()
    with control_group(POD_UID, OTHER_POD_UID):
        async with (
            serving(FakeLauncher(floods=True, uid=VMI_UID), tmp_path),
            serving(neighbour, tmp_path, OTHER_POD_UID),
            registry_of(tmp_path, pod(), pod(uid=OTHER_POD_UID)) as registry,
        ):
            await connected(registry)
            taken: list[str] = []
            registry.subscribe(lambda each, gone: taken.append(each.pod.uid))
            began = time.monotonic()
            await neighbour_is_served(registry, neighbour)
            passed_s = time.monotonic() - began
            assert taken.count(POD_UID) <= 25 + 10 * passed_s
