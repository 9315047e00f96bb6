"""An agent in a guest, where libvirt would speak to one: its test driver has none."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import libvirt
import libvirt_qemu  # type: ignore[import-untyped]
import pytest
from podvisor_launcher.lifecycle.guest_agent import Agent, GuestAgent

OS = {
    "id": "debian",
    "name": "Debian GNU/Linux",
    "pretty-name": "Debian GNU/Linux 12 (bookworm)",
    "version": "12 (bookworm)",
    "version-id": "12",
    "kernel-release": "6.1.0-18-amd64",
    "kernel-version": "#1 SMP",
    "machine": "x86_64",
}
DISK = {"serial": "abc", "bus-type": "virtio", "bus": 0}
FILESYSTEM = {
    "name": "vda1",
    "mountpoint": "/",
    "type": "ext4",
    "total-bytes": 2**33,
    "used-bytes": 2**30,
    "disk": [DISK],
}
USER = {"user": "root", "login-time": 1700000000.25}


def error(code: int, words: str, domain: int = libvirt.VIR_FROM_QEMU) -> libvirt.libvirtError:
    """What libvirt raises."""
    it = libvirt.libvirtError(words)
    it.err = (code, domain, words)
    return it


# What is raised where the daemon is killed over a question.
KILLED = error(libvirt.VIR_ERR_SYSTEM_ERROR, "End of file while reading data", libvirt.VIR_FROM_RPC)
SILENCE = error(libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding")


def _answers() -> dict[str, Any]:
    return {
        "guest-ping": {},
        "guest-get-osinfo": OS,
        "guest-get-host-name": {"host-name": "shop"},
        "guest-get-timezone": {"zone": "CET", "offset": 3600},
        "guest-get-users": [USER],
        "guest-get-fsinfo": [FILESYSTEM],
        "guest-fsfreeze-status": "thawed",
        "guest-fsfreeze-freeze": 1,
        "guest-fsfreeze-thaw": 1,
        "guest-ssh-add-authorized-keys": {},
        "guest-ssh-remove-authorized-keys": {},
        "guest-set-user-password": {},
    }


def _open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate


@dataclass
class FakeAgent:
    """`answers` holds what each command returns, or raises; a text in `raw` is what libvirt passes on instead."""

    answers: dict[str, Any] = field(default_factory=_answers)
    raw: dict[str, str] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=_open_gate)  # what an answer waits for
    is_waited_for: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    disabled: set[str] = field(default_factory=set)
    when_asked: Callable[[], object] = lambda: None  # called in libvirt's thread

    def answer(self, text: str) -> str:
        request = json.loads(text)
        command = request["execute"]
        if command != "guest-info":
            self.asked.append((command, request.get("arguments", {})))
        self.is_waited_for.set()
        self.when_asked()
        assert self.gate.wait(10)
        if command in self.raw:
            return self.raw[command]
        answer = self._about() if command == "guest-info" else self.answers[command]
        if isinstance(answer, Exception):
            raise answer
        self._act(command)
        return json.dumps({"return": answer})

    @property
    def commands(self) -> list[str]:
        """What was asked, but for what the agent can do."""
        return [command for command, _ in self.asked]

    def _about(self) -> Any:
        if "guest-info" in self.answers:
            return self.answers["guest-info"]
        names = [*self.answers, "guest-info"]
        commands = [
            {"name": each, "enabled": each not in self.disabled, "success-response": True}
            for each in names
        ]
        return {"version": "7.2.9", "supported_commands": commands}

    def _act(self, command: str) -> None:
        if command == "guest-fsfreeze-freeze":
            self.answers["guest-fsfreeze-status"] = "frozen"
        elif command == "guest-fsfreeze-thaw":
            self.answers["guest-fsfreeze-status"] = "thawed"


@pytest.fixture
def in_guest(monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    """The agent of every guest of the test driver."""
    it = FakeAgent()
    monkeypatch.setattr(
        libvirt_qemu, "qemuAgentCommand", lambda _domain, text, _timeout_s, _flags: it.answer(text)
    )
    return it


class KnownAgent(GuestAgent):
    """What a launcher knows of the agent in the guest of that name, which is there unless the test says otherwise."""

    def __init__(self, name: str, on_change: Callable[[], None] = lambda: None) -> None:
        super().__init__(lambda: name, on_change)
        self.known = Agent(connected=True)
        self.when_looked_for: Callable[[], None] = lambda: None

    async def is_looked_for(self) -> None:
        self.when_looked_for()
        await super().is_looked_for()

    def comes(self, connected: bool = True) -> None:
        """It opens the channel, or closes it."""
        self._learn(Agent(connected=connected))
