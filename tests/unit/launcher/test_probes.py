"""Probes by a guest's agent, from the program that the kubelet starts to the agent."""

import asyncio
import base64
import errno
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import domain_name
from podvisor_launcher.lifecycle.freezing import Freezing
from podvisor_launcher.lifecycle.guest_probes import (
    FROZEN,
    PAUSED,
    UNREACHABLE,
    GuestProbes,
    Verdict,
    verdict_of,
)
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.lifecycle.power import Power
from podvisor_launcher.rpc import probes as rpc_probes
from podvisor_launcher.rpc.probes import NoQuestion, Question, parsed, serve_probes, written
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import AgentRefused

from tests.unit.launcher.conftest import TEST_DRIVER
from tests.unit.launcher.fake_agent import KILLED, SILENCE, FakeAgent, KnownAgent, error, in_guest
from tests.unit.launcher.native import compiled
from tests.unit.launcher.test_guest_agent import guest_of

__all__ = ["in_guest"]

EXEC, STATUS, FREEZE = "guest-exec", "guest-exec-status", "guest-fsfreeze-freeze"
PROBES = (("5", "ping"), ("5", "exec", "true"))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Probed:
    """The program in place of the kubelet, and the launcher's end of its socket."""

    def __init__(
        self, program: Path, directory: Path, spec: pb.DomainSpec, connection: LibvirtConnection
    ) -> None:
        name = domain_name(spec)
        self.agent = KnownAgent(name)
        self.socket = program.with_name("probe.sock")
        self.now_ms = 1_000_000
        self.has_started = True
        questions = GuestQuestions(self.agent, connection)
        self.freezing = Freezing(
            directory / "freeze.json", self.agent, questions, lambda: self.now_ms
        )
        self.power = Power(connection, self.agent, lambda: spec if self.has_started else None)
        self._program = program
        self._probes = GuestProbes(self.agent, questions, self.freezing, self.power)
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Probed":
        serving = serve_probes(self.socket, self._probes)
        self._serving = asyncio.create_task(serving, name="probes")
        await asyncio.sleep(0)  # it listens before it first waits
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._serving is not None
        self._serving.cancel()
        with suppress(asyncio.CancelledError):
            await self._serving

    async def run(self, *arguments: str) -> tuple[int, str]:
        """The exit code, and what was printed."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self._program, *arguments, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        async with asyncio.timeout(10):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("probe")
    return compiled("probe", directory, PRIVATE_DIR=directory)


@pytest.fixture
async def it(
    machine_spec: pb.DomainSpec, program: Path, tmp_path: Path, in_guest: FakeAgent
) -> AsyncIterator[Probed]:
    async with (
        guest_of(domain_name(machine_spec)) as connection,
        Probed(program, tmp_path, machine_spec, connection) as probed,
    ):
        yield probed


async def test_an_agent_that_answers(it: Probed, in_guest: FakeAgent) -> None:
    assert await it.run("5", "ping") == (0, "")
    assert in_guest.commands == ["guest-ping"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (SILENCE, "does not answer to guest-ping"),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, "\x1b[2J no"), "has not done guest-ping: [2J no"),
    ],
    ids=["silent", "refuses"],
)
async def test_an_agent_that_does_not(
    it: Probed, in_guest: FakeAgent, answer: Exception, words: str
) -> None:
    in_guest.answers["guest-ping"] = answer
    code, output = await it.run("5", "ping")
    assert code == 1
    assert words in output


async def test_a_guest_without_an_agent(it: Probed) -> None:
    it.agent.comes(connected=False)
    assert await it.run("5", "ping") == (1, "The guest has no agent that is connected.\n")


@pytest.mark.parametrize(("code", "printed"), [(0, "well\n"), (3, "not well\n")])
async def test_a_command_in_the_guest(
    it: Probed, in_guest: FakeAgent, code: int, printed: str
) -> None:
    in_guest.answers[EXEC] = {"pid": 42}
    in_guest.answers[STATUS] = {"exited": True, "exitcode": code, "out-data": encoded(printed)}
    assert await it.run("5", "exec", "/bin/check", "-x", "") == (min(code, 1), printed)
    asked = {"path": "/bin/check", "arg": ["-x", ""], "capture-output": True}
    assert in_guest.asked == [(EXEC, asked), (STATUS, {"pid": 42})]


async def test_a_command_is_waited_for(it: Probed, in_guest: FakeAgent) -> None:
    in_guest.answers[EXEC] = {"pid": 42}
    in_guest.answers[STATUS] = {"exited": False}

    def ends() -> None:
        if in_guest.commands.count(STATUS) == 3:
            in_guest.answers[STATUS] = {"exited": True, "exitcode": 0}

    in_guest.when_asked = ends
    assert await it.run("5", "exec", "true") == (0, "")


async def test_a_command_that_takes_too_long(it: Probed, in_guest: FakeAgent) -> None:
    in_guest.answers[EXEC] = {"pid": 42}
    in_guest.answers[STATUS] = {"exited": False}
    code, output = await it.run("1", "exec", "sleep")
    assert (code, "within 1 s" in output) == (1, True)


@pytest.mark.parametrize("answer", [{}, [], {"pid": "x"}, {"pid": True}])
async def test_a_command_that_never_began(it: Probed, in_guest: FakeAgent, answer: Any) -> None:
    in_guest.answers[EXEC] = answer
    code, output = await it.run("5", "exec", "true")
    assert (code, "does not say what it has begun" in output) == (1, True)


async def test_a_command_that_prints_much(it: Probed, in_guest: FakeAgent) -> None:
    in_guest.answers[EXEC] = {"pid": 42}
    much = encoded("x" * 300_000)
    in_guest.answers[STATUS] = {"exited": True, "exitcode": 0, "out-data": much, "err-data": much}
    code, output = await it.run("5", "exec", "true")
    assert (code, output[:1000]) == (0, "x" * 1000)


async def test_while_file_systems_stand_still_nothing_fails(
    it: Probed, in_guest: FakeAgent
) -> None:
    await it.freezing.freeze(300)
    in_guest.asked.clear()
    for arguments in PROBES:
        assert await it.run(*arguments) == (0, f"{FROZEN.message}\n")
    assert in_guest.commands == []


async def test_a_guest_that_was_never_thawed_is_asked_again(
    it: Probed, in_guest: FakeAgent
) -> None:
    """It may have died over its freeze."""
    await it.freezing.freeze(300)
    it.now_ms += 600_000
    in_guest.answers["guest-ping"] = in_guest.answers[EXEC] = SILENCE
    for arguments in PROBES:
        assert (await it.run(*arguments))[0] == 1


async def test_a_guest_that_stands_still_for_ever_is_asked_whether_it_is_there(
    it: Probed, in_guest: FakeAgent
) -> None:
    await it.freezing.freeze(0)
    assert await it.run("5", "ping") == (0, "")
    in_guest.answers["guest-ping"] = SILENCE
    assert (await it.run("5", "ping"))[0] == 1
    assert await it.run("5", "exec", "true") == (0, f"{FROZEN.message}\n")


async def test_a_guest_that_is_about_to_stand_still_is_not_asked(
    it: Probed, in_guest: FakeAgent
) -> None:
    is_told = threading.Event()

    def stops() -> None:
        if FREEZE in in_guest.commands:
            in_guest.gate.clear()
            is_told.set()

    in_guest.when_asked = stops
    freezing = asyncio.create_task(it.freezing.freeze(300), name="freeze")
    assert await asyncio.to_thread(is_told.wait, 10)
    for arguments in PROBES:
        assert await it.run(*arguments) == (0, f"{FROZEN.message}\n")
    in_guest.answers[FREEZE] = error(libvirt.VIR_ERR_INTERNAL_ERROR, "busy")
    in_guest.when_asked = lambda: None
    in_guest.gate.set()
    with pytest.raises(AgentRefused):
        await freezing
    assert await it.run("5", "ping") == (0, "")


async def test_a_guest_that_is_paused_does_not_fail(it: Probed, in_guest: FakeAgent) -> None:
    await it.power.pause()
    in_guest.answers["guest-ping"] = in_guest.answers[EXEC] = SILENCE
    for arguments in PROBES:
        assert await it.run(*arguments) == (0, f"{PAUSED.message}\n")
    assert in_guest.commands == []
    await it.power.resume()
    assert (await it.run("5", "ping"))[0] == 1


async def test_a_guest_that_is_paused_over_a_probe_does_not_fail(
    it: Probed, in_guest: FakeAgent, machine_spec: pb.DomainSpec
) -> None:
    in_guest.answers["guest-ping"] = SILENCE
    domain = libvirt.open(TEST_DRIVER).lookupByName(domain_name(machine_spec))
    in_guest.when_asked = domain.suspend
    assert await it.run("5", "ping") == (0, f"{PAUSED.message}\n")
    assert in_guest.commands == ["guest-ping"]


@pytest.mark.parametrize(
    "reason", [libvirt.VIR_DOMAIN_PAUSED_IOERROR, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG]
)
async def test_a_guest_that_libvirt_has_paused_does_not_fail(
    it: Probed, in_guest: FakeAgent, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    paused = [libvirt.VIR_DOMAIN_PAUSED, reason]
    monkeypatch.setattr(libvirt.virDomain, "state", lambda _: paused)
    assert await it.run("5", "ping") == (0, f"{PAUSED.message}\n")
    assert in_guest.commands == []


async def test_a_libvirt_that_is_killed_over_a_probe_says_nothing_of_the_guest(
    it: Probed, in_guest: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_gone(_: libvirt.virDomain) -> None:
        raise KILLED

    in_guest.answers["guest-ping"] = KILLED
    in_guest.when_asked = lambda: monkeypatch.setattr(libvirt.virDomain, "state", has_gone)
    assert await it.run("5", "ping") == (0, f"{UNREACHABLE.message}\n")


async def test_a_libvirt_that_is_away_says_nothing_of_the_guest(
    program: Path, tmp_path: Path, machine_spec: pb.DomainSpec
) -> None:
    alone = LibvirtConnection(TEST_DRIVER, lambda: None)
    async with Probed(program, tmp_path, machine_spec, alone) as it:
        assert await it.run("5", "ping") == (0, f"{UNREACHABLE.message}\n")
        it.has_started = False
        assert (await it.run("5", "ping"))[0] == 1


async def test_an_agent_that_nobody_has_looked_for_yet_is_waited_for(it: Probed) -> None:
    it.agent.known = None
    is_waited_for = asyncio.Event()
    it.agent.when_looked_for = is_waited_for.set
    probe = asyncio.create_task(it.run("5", "ping"), name="probe")
    async with asyncio.timeout(10):
        await is_waited_for.wait()
    it.agent.comes()
    assert await probe == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [(), ("5",), ("5", "ping", "x"), ("5", "exec"), ("0", "ping"), ("x", "ping"), ("5", "look")],
    ids=" ".join,
)
async def test_arguments_that_are_wrong(it: Probed, arguments: tuple[str, ...]) -> None:
    code, output = await it.run(*arguments)
    assert (code, output.startswith("usage: probe")) == (2, True)


async def test_a_launcher_that_is_not_there(it: Probed) -> None:
    it.socket.unlink()
    code, output = await it.run("1", "ping")
    assert (code, "cannot be asked" in output) == (1, True)


async def test_a_launcher_that_is_killed_over_a_probe_is_asked_again(it: Probed) -> None:
    aside = it.socket.with_name("aside")
    it.socket.rename(aside)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as killed:
        killed.setblocking(False)
        killed.bind(str(it.socket))
        killed.listen()
        probe = asyncio.create_task(it.run("5", "ping"), name="probe")
        connection, _ = await asyncio.get_running_loop().sock_accept(killed)
        connection.close()
    aside.rename(it.socket)
    assert await probe == (0, "")


async def test_a_launcher_without_a_descriptor_left_takes_the_next_probe(
    it: Probed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_probes, "_ACCEPT_PAUSE_S", 0.01)
    loop, failures = asyncio.get_running_loop(), [OSError(errno.EMFILE, "Too many open files")]
    accept = loop.sock_accept

    async def sock_accept(listener: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return await accept(listener)

    monkeypatch.setattr(loop, "sock_accept", sock_accept)
    for _ in range(2):
        assert await it.run("5", "ping") == (0, "")
    assert not failures


async def test_a_launcher_that_takes_nobody_in_is_not_waited_for_longer_than_that(
    it: Probed,
) -> None:
    it.socket.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as full:
        full.bind(str(it.socket))
        full.listen(0)
        with closing(_connected(it.socket)):
            assert (await it.run("1", "ping"))[0] == 1


async def test_whoever_says_nothing_holds_up_no_probe(it: Probed) -> None:
    silent = [await asyncio.to_thread(_connected, it.socket) for _ in range(3)]
    assert await it.run("5", "ping") == (0, "")
    for each in silent:
        each.close()


def _connected(path: Path) -> socket.socket:
    it = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    it.connect(str(path))
    return it


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"exitcode": 0}, Verdict(True)),
        ({"exitcode": 1}, Verdict(False, "exit code 1")),
        ({"exitcode": 1, "err-data": encoded("\x1b[2Jno\nway")}, Verdict(False, "[2Jno way")),
        ({"signal": 9}, Verdict(False, "ended by signal 9")),
        ({"exitcode": True, "out-data": 7, "err-data": "?"}, Verdict(False, "the agent of the guest does not say how it ended")),
    ],
    ids=["well", "not well", "says why", "killed", "nonsense"],
)  # fmt: skip
def test_how_a_command_has_ended(told: dict[str, Any], expected: Verdict) -> None:
    assert verdict_of(told) == expected


def test_what_is_printed_is_bounded() -> None:
    verdict = verdict_of({"exitcode": 0, "out-data": encoded("x" * 10_000_000)})
    assert 1000 <= len(verdict.message) <= 1024
    assert len(written(Verdict(True, "ä" * 5000))) == 2048


def test_questions() -> None:
    assert parsed(b"5\0ping\0") == Question(5)
    assert parsed(b"5\0exec\0a\0\0") == Question(5, ("a", ""))
    for message in (b"", b"\0", b"5\0", b"x\0ping\0", b"0\0ping\0", b"5\0exec\0", b"5\0\xff\0"):
        with pytest.raises(NoQuestion):
            parsed(message)
