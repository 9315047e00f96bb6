"""Public keys and passwords on their way into a guest, from Secrets as the kubelet mounts them."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle import credentials
from podvisor_launcher.lifecycle.credentials import Credentials
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.virt.connection import LibvirtConnection

from tests.unit.launcher.fake_agent import SILENCE, FakeAgent, KnownAgent, error, in_guest
from tests.unit.launcher.test_guest_agent import guest_of

__all__ = ["in_guest"]

ADD, REMOVE = "guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys"
SET = "guest-set-user-password"


class Mounted:
    """A Secret as the kubelet has it in a volume: its files change together."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._versions = 0
        directory.mkdir()

    def write(self, **content: str) -> None:
        self._versions += 1
        version = self.directory / f"..{self._versions}"
        version.mkdir()
        for name, value in content.items():
            (version / name).write_text(value)
            with suppress(FileExistsError):
                os.symlink(f"..data/{name}", self.directory / name)
        temporary = self.directory / "..data_tmp"
        temporary.symlink_to(version.name)
        temporary.rename(self.directory / "..data")


class World:
    """A launcher's part of it."""

    def __init__(
        self, directory: Path, connection: LibvirtConnection, name: str, in_guest: FakeAgent
    ) -> None:
        self.secret = Mounted(directory / "keys")
        self.given = directory / "given.json"
        self.changed = asyncio.Event()
        self.agent = KnownAgent(name, self.changed.set)
        self.spec = pb.DomainSpec()
        self._questions = GuestQuestions(self.agent, connection)
        loop = asyncio.get_running_loop()
        in_guest.when_asked = partial(loop.call_soon_threadsafe, self.changed.set)
        self._running: asyncio.Task[None] | None = None

    def start(self, kind: pb.AccessCredentialKind.ValueType, *users: str) -> None:
        """The launcher begins, or begins again, with a machine that has such credentials."""
        del self.spec.access_credentials[:]
        self.spec.access_credentials.add(
            secret_dir=str(self.secret.directory), kind=kind, users=users
        )
        it = Credentials(self.given, self.agent, self._questions)
        it.serve(self.spec)
        self._running = asyncio.create_task(it.run(), name="access credentials")

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await self.changed.wait()
                self.changed.clear()

    @property
    def said(self) -> tuple[bool, str] | None:
        return self.agent.work.credentials


@pytest.fixture
async def it(
    name: str, tmp_path: Path, in_guest: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(credentials, "_PAUSE_S", 0.01)
    monkeypatch.setattr(credentials, "_FIRST_RETRY_S", 0.02)
    async with guest_of(name) as connection:
        world = World(tmp_path, connection, name, in_guest)
        yield world
        await world.stop()


async def test_keys_follow_their_secret(it: World, in_guest: FakeAgent) -> None:
    it.secret.write(a="ssh-rsa AAA", b="ssh-rsa BBB")
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    await it.until(lambda: it.said == (True, ""))
    assert in_guest.asked == [(ADD, {"username": "root", "keys": ["ssh-rsa AAA", "ssh-rsa BBB"]})]
    it.secret.write(a="ssh-rsa CCC", b="ssh-rsa BBB")
    await it.until(lambda: REMOVE in in_guest.commands)
    assert in_guest.asked[-1] == (REMOVE, {"username": "root", "keys": ["ssh-rsa AAA"]})


async def test_the_last_key_leaves_with_its_secrets_content(it: World, in_guest: FakeAgent) -> None:
    it.secret.write(a="ssh-rsa AAA")
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    await it.until(lambda: it.said == (True, ""))
    it.secret.write()
    await it.until(lambda: it.said is not None and not it.said[0])
    assert in_guest.asked[-1] == (REMOVE, {"username": "root", "keys": ["ssh-rsa AAA"]})
    assert json.loads(it.given.read_text()) == {}


async def test_a_key_that_left_while_the_launcher_was_killed(
    it: World, in_guest: FakeAgent
) -> None:
    it.secret.write(a="ssh-rsa AAA")
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    await it.until(lambda: it.said == (True, ""))
    await it.stop()
    it.secret.write(a="ssh-rsa BBB")
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    await it.until(lambda: REMOVE in in_guest.commands)
    assert in_guest.asked[-1] == (REMOVE, {"username": "root", "keys": ["ssh-rsa AAA"]})


async def test_passwords_are_given_and_kept_nowhere(
    it: World,
    in_guest: FakeAgent,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    it.secret.write(root="hunter2")
    it.start(pb.ACCESS_CREDENTIAL_KIND_PASSWORDS)
    await it.until(lambda: it.said == (True, ""))
    [(command, arguments)] = in_guest.asked
    assert (command, arguments["username"]) == (SET, "root")
    assert base64.b64decode(arguments["password"]) == b"hunter2"
    in_guest.answers[SET] = error(libvirt.VIR_ERR_INTERNAL_ERROR, "no: hunter2 aHVudGVyMg==")
    it.secret.write(root="hunter2")
    await it.until(lambda: it.said is not None and not it.said[0])
    printed = "".join(capfd.readouterr()) + caplog.text
    for secret in ("hunter2", "aHVudGVyMg=="):
        assert secret not in f"{it.said}{printed}"
    assert not it.given.exists()


async def test_an_agent_that_comes_again_is_given_all_again(it: World, in_guest: FakeAgent) -> None:
    """The guest may have another disk since."""
    it.agent.comes(connected=False)
    it.secret.write(root="hunter2")
    it.start(pb.ACCESS_CREDENTIAL_KIND_PASSWORDS)
    for times in (1, 2):
        it.agent.comes()
        await it.until(lambda times=times: in_guest.commands.count(SET) == times)  # type: ignore[misc]
        it.agent.comes(connected=False)
    assert it.said == (True, "")


async def test_a_secret_that_comes_later(it: World, in_guest: FakeAgent) -> None:
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    await it.until(lambda: it.said is not None)
    assert it.said is not None
    assert 'the Secret "keys" does not exist or is empty' in it.said[1]
    assert in_guest.commands == []
    it.secret.write(a="ssh-rsa AAA")
    await it.until(lambda: it.said == (True, ""))


@pytest.mark.parametrize("answer", [SILENCE, error(1, "no such user")], ids=["silent", "refuses"])
async def test_what_an_agent_does_not_take_is_tried_again(
    it: World, in_guest: FakeAgent, answer: Exception
) -> None:
    it.secret.write(a="ssh-rsa AAA")
    in_guest.answers[ADD] = answer
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    await it.until(lambda: in_guest.commands.count(ADD) == 2)
    assert it.said is not None
    assert not it.said[0]
    in_guest.answers[ADD] = {}
    await it.until(lambda: it.said == (True, ""))
    assert json.loads(it.given.read_text()) == {"root": ["ssh-rsa AAA"]}


async def test_an_agent_that_cannot(it: World, in_guest: FakeAgent) -> None:
    it.secret.write(a="ssh-rsa AAA")
    in_guest.disabled.add(ADD)
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    await it.until(lambda: it.said is not None)
    assert it.said is not None
    assert f"does not offer {ADD}" in it.said[1]
    assert in_guest.commands == []


async def test_a_guest_that_stands_still_is_given_them_when_it_goes_on(
    it: World, in_guest: FakeAgent
) -> None:
    it.secret.write(a="ssh-rsa AAA")
    it.agent.has_done(filesystems_frozen=True)
    it.start(pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS, "root")
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await it.until(lambda: bool(in_guest.commands))
    assert (it.said, in_guest.commands) == (None, [])
    it.agent.has_done(filesystems_frozen=False)
    await it.until(lambda: it.said == (True, ""))


async def test_a_machine_without_any_needs_nothing(it: World, in_guest: FakeAgent) -> None:
    alone = Credentials(it.given, it.agent, GuestQuestions(it.agent, LibvirtConnection("", print)))
    alone.serve(pb.DomainSpec())
    running = asyncio.create_task(alone.run(), name="access credentials")
    it.agent.comes(connected=False)
    it.agent.comes()
    await asyncio.sleep(0)
    running.cancel()
    assert (it.said, in_guest.commands) == (None, [])
