"""Probes of a guest by its agent: that it answers, and that a command ends well.

Invariants: a probe that a guest cannot pass for what was asked of podvisor is passed: while its file systems stand still its agent runs
no command, and somebody who makes a backup shall not have it killed. What a command has printed is bounded.
"""

import asyncio
import base64
import binascii
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podvisor_common.told import told_text

from podvisor_launcher.lifecycle.guest_agent import GuestAgent
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.virt.agent import Command
from podvisor_launcher.virt.errors import (
    AgentError,
    DomainMissing,
    LibvirtFailed,
    LibvirtUnreachable,
)

_WORDS_LIMIT = 1024
_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a probe has ended, and why, for a person."""

    success: bool
    message: str = ""


FROZEN = Verdict(True, "not asked: the file systems of the guest stand still by request")


class GuestProbes:
    """Of one machine. A probe that cannot be made has failed, which is no error."""

    def __init__(self, agent: GuestAgent, questions: GuestQuestions) -> None:
        self._agent = agent
        self._questions = questions

    async def ping(self, timeout_s: float) -> Verdict:
        """Whether the agent answers within that time."""
        return await self._within(timeout_s, self._ping(timeout_s))

    async def execute(self, command: Sequence[str], timeout_s: float) -> Verdict:
        """Whether the command, with its arguments, ends with 0 in the guest within that time. Where it takes longer, it goes on."""
        return await self._within(timeout_s, self._execute(command, timeout_s))

    async def _within(self, timeout_s: float, probe: Coroutine[Any, Any, Verdict]) -> Verdict:
        if self._agent.work.filesystems_frozen:
            probe.close()
            return FROZEN
        try:
            async with asyncio.timeout(timeout_s):
                return await probe
        except TimeoutError:
            verdict = Verdict(False, f"not done within {timeout_s:g} s")
        except (AgentError, DomainMissing, LibvirtUnreachable, LibvirtFailed) as error:
            verdict = Verdict(False, str(error))
        # It may have been asked just before they came to stand still.
        return FROZEN if self._agent.work.filesystems_frozen else verdict

    async def _ping(self, timeout_s: float) -> Verdict:
        await self._questions.ping(timeout_s)
        return Verdict(True)

    async def _execute(self, command: Sequence[str], timeout_s: float) -> Verdict:
        program, *arguments = command
        asked = {"path": program, "arg": arguments, "capture-output": True}
        begun = await self._ask(Command("guest-exec", asked), timeout_s)
        number = begun.get("pid")
        if isinstance(number, bool) or not isinstance(number, int):
            return Verdict(False, "the agent of the guest does not say what it has begun")
        status = Command("guest-exec-status", {"pid": number})
        look_s = _FIRST_LOOK_S
        while not (told := await self._ask(status, timeout_s)).get("exited"):
            await asyncio.sleep(look_s)
            look_s = min(2 * look_s, _LONGEST_LOOK_S)
        return verdict_of(told)

    async def _ask(self, command: Command, timeout_s: float) -> Mapping[str, Any]:
        answer = await self._questions.put(command, timeout_s)
        return answer if isinstance(answer, dict) else {}


def verdict_of(told: Mapping[str, Any]) -> Verdict:
    """Of a command that has ended, by the agent's answer to guest-exec-status. Pure."""
    words = " ".join(filter(None, (_printed(told.get(each)) for each in ("out-data", "err-data"))))
    code, signal = told.get("exitcode"), told.get("signal")
    if isinstance(code, int) and not isinstance(code, bool):
        return Verdict(code == 0, words or ("" if code == 0 else f"exit code {code}"))
    if isinstance(signal, int):
        return Verdict(False, words or f"ended by signal {signal}")
    return Verdict(False, words or "the agent of the guest does not say how it ended")


def _printed(data: object) -> str:
    if not isinstance(data, str):
        return ""
    try:
        # Whole groups of four characters are three bytes each.
        raw = base64.b64decode(data[: _WORDS_LIMIT // 3 * 4], validate=True)
    except (binascii.Error, ValueError):
        return ""
    return told_text(raw.decode(errors="replace").replace("\n", " "), _WORDS_LIMIT)
