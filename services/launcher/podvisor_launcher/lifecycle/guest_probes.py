"""Probes of a guest by its agent: that it answers, and that a command ends well.

Invariants: a probe that a guest cannot pass for what was asked of podvisor, or for what podvisor itself is about, is passed: while its
file systems stand still its agent runs no command, while it is paused there is no agent, and somebody who makes a backup shall not have
it killed. An excuse has an end where what it is for has one. What a command has printed is bounded.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from podvisor_common.told import told_text

from podvisor_launcher.lifecycle.freezing import Freezing, Stillness
from podvisor_launcher.lifecycle.guest_agent import GuestAgent
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.lifecycle.power import Power
from podvisor_launcher.virt.agent import PRINTED_LIMIT, Command
from podvisor_launcher.virt.errors import (
    AgentError,
    DomainMissing,
    LibvirtFailed,
    LibvirtUnreachable,
)

_WORDS_LIMIT = 1024
_FIRST_LOOK_S = 0.05
_LONGEST_LOOK_S = 0.5
# Of the time of a probe; in the rest is seen whether the guest could answer at all, before whoever asked has gone.
_ASKING_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a probe has ended, and why, for a person."""

    success: bool
    message: str = ""


FROZEN = Verdict(True, "not asked: the file systems of the guest stand still by request")
PAUSED = Verdict(True, "not asked: the guest is paused")
UNREACHABLE = Verdict(True, "not asked: libvirt does not answer, which says nothing of the guest")


class GuestProbes:
    """Of one machine. A probe that cannot be made has failed, which is no error."""

    def __init__(
        self, agent: GuestAgent, questions: GuestQuestions, freezing: Freezing, power: Power
    ) -> None:
        self._agent = agent
        self._questions = questions
        self._freezing = freezing
        self._power = power

    async def ping(self, timeout_s: float) -> Verdict:
        """Whether the agent answers within that time."""
        # One that may stand still for ever is asked: an agent answers this nevertheless, and a guest may die meanwhile.
        excused = {Stillness.PASSING}
        return await self._within(timeout_s, partial(self._ping, timeout_s), excused)

    async def execute(self, command: Sequence[str], timeout_s: float) -> Verdict:
        """Whether the command, with its arguments, ends with 0 in the guest within that time. Where it takes longer, it goes on."""
        excused = {Stillness.PASSING, Stillness.ENDLESS}
        return await self._within(timeout_s, partial(self._execute, command, timeout_s), excused)

    async def _within(
        self, timeout_s: float, probe: Callable[[], Awaitable[Verdict]], excused: set[Stillness]
    ) -> Verdict:
        verdict = Verdict(False, f"not done within {timeout_s:g} s")
        try:
            async with asyncio.timeout(timeout_s):
                if (excuse := await self._excuse(excused)) is not None:
                    return excuse
                verdict = await self._made(timeout_s, probe)
                if verdict.success:
                    return verdict
                # It may have been asked just before it came to stand still.
                return await self._excuse(excused) or verdict
        except (TimeoutError, LibvirtFailed):
            return verdict
        except LibvirtUnreachable:
            return UNREACHABLE if self._power.is_to_run else verdict

    async def _excuse(self, excused: set[Stillness]) -> Verdict | None:
        """Why nobody can expect an answer of the guest. Raises LibvirtUnreachable and LibvirtFailed."""
        if self._freezing.stillness in excused:
            return FROZEN
        return PAUSED if await self._power.is_paused() else None

    async def _made(self, timeout_s: float, probe: Callable[[], Awaitable[Verdict]]) -> Verdict:
        """Raises LibvirtUnreachable."""
        try:
            async with asyncio.timeout(timeout_s * _ASKING_SHARE):
                await self._agent.is_looked_for()
                return await probe()
        except TimeoutError:
            return Verdict(False, f"not done within {timeout_s:g} s")
        except (AgentError, DomainMissing, LibvirtFailed) as error:
            return Verdict(False, str(error))

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
        status = Command("guest-exec-status", {"pid": number}, has_printed=True)
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
        raw = base64.b64decode(data[:PRINTED_LIMIT], validate=True)
    except (binascii.Error, ValueError):
        return ""
    return told_text(raw.decode(errors="replace").replace("\n", " "), _WORDS_LIMIT)
