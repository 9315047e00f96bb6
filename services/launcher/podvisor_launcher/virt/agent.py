"""Questions to the agent in a guest, by way of libvirt.

Invariants: an agent that does not answer, or answers with what is none, is a failure of that question alone. libvirt reports some
of what a guest may say as it would a broken connection, so nothing is concluded about the connection here. Questions have a thread
of their own, so that no guest holds up other calls, and a deadline; a thread that libvirt does not come back to is the only one there
is. Of an answer, libvirt takes 10 MiB from the guest and passes 4 MiB on; it is parsed up to 256 KiB, without
most of what a program has printed.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

import libvirt
import libvirt_qemu  # type: ignore[import-untyped]
from podvisor_common.aio.threads import NoThread, in_own_thread
from podvisor_common.guest_interfaces import GuestInterface, guest_interfaces
from podvisor_common.told import told_text

from podvisor_launcher.virt.errors import (
    AgentBusy,
    AgentError,
    AgentFailed,
    AgentNotConnected,
    AgentRefused,
    AgentTimedOut,
    DomainMissing,
    LibvirtFailed,
    LibvirtUnreachable,
)
from podvisor_launcher.virt.turns import Turns

_T = TypeVar("_T")
# What the agent has returned, as JSON has it; or that it has not, though it is there.
Answer: TypeAlias = object

# libvirt waits for an agent twice: whether it is in step, and for the answer. Without a bound the second takes for ever.
_ANSWER_TIMEOUT_S = 5
# Of a libvirt that is well, which waits for both in turn.
_DEADLINE_S = 15.0
# An agent that is there does not answer to this, but ends; one that is not is noticed in five seconds.
_REBOOT_DEADLINE_S = 6.0
_ANSWER_LIMIT_BYTES = 256 * 1024
_WORDS_LIMIT = 256
# Characters of what a program has printed, in base64: whole groups, a KiB and a little more.
PRINTED_LIMIT = 1368
_PRINTED = re.compile(rf'("(?:out|err)-data":\s?"[A-Za-z0-9+/=]{{{PRINTED_LIMIT}}})[A-Za-z0-9+/=]+')
# Of those who wait for their turn, or have it.
_WAITING_LIMIT = 16
# One that is asked and two that wait: they shall keep no probe and no thaw out.
_PEOPLE_WAITING_LIMIT = 3

# libvirt's own codes for an agent's answers since 11.2, which the module of an older one cannot name.
_COMMAND_TIMED_OUT, _COMMAND_FAILED = 112, 113
_SILENT_CODES = {
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    _COMMAND_TIMED_OUT,
}
# What libvirt says where an agent has answered that it cannot; a daemon that ended over a question has another domain.
_REFUSALS = {libvirt.VIR_ERR_INTERNAL_ERROR, _COMMAND_FAILED}
# What libvirt calls a machine without the channel.
_UNCONFIGURED_CODES = {libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, libvirt.VIR_ERR_CONFIG_UNSUPPORTED}


@dataclass(frozen=True, slots=True)
class Command:
    """One question: https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html."""

    execute: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    timeout_s: int = _ANSWER_TIMEOUT_S
    has_printed: bool = (
        False  # in the answer is what a program has printed, the beginning of which will do
    )
    is_confidential: bool = False  # what the agent says of it may be so too, and is not repeated

    def __repr__(self) -> str:
        return f"Command({self.execute!r})"


class AgentQuestions:
    """Questions one after the other. One that was given up is over when its thread is, at the latest with the libvirtd that it
    asked. `connection` tells the one there is to libvirt."""

    def __init__(self, connection: Callable[[], libvirt.virConnect | None]) -> None:
        self._connection = connection
        self._turns = Turns()
        self._waiting = self._people_waiting = 0

    async def interfaces(self, name: str) -> tuple[GuestInterface, ...]:
        """The network devices that the agent in a running guest tells of, within 15 seconds. Waits for no other question. Raises
        LibvirtUnreachable, LibvirtFailed."""
        if self._turns.is_taken:
            raise LibvirtFailed("libvirt is busy with an earlier question to the guest's agent")
        try:
            return await self._in_turn(partial(_interfaces, name), _DEADLINE_S)
        except TimeoutError as error:
            raise LibvirtFailed(
                f"no answer from libvirt for the guest's agent within {_DEADLINE_S:g} s"
            ) from error

    async def ask(
        self,
        name: str,
        commands: Sequence[Command],
        *,
        deadline_s: float,
        waits: bool = True,
        by_people: bool = False,
    ) -> list[Answer | AgentFailed]:
        """The answers to all commands, within that time, in which it `waits` for earlier questions; one that somebody asks out of
        curiosity, `by_people`, for later ones as well, and few of them wait. Where the agent answers that it cannot, that is the
        answer.

        Raises AgentNotConnected, AgentTimedOut, AgentBusy, DomainMissing, LibvirtUnreachable, LibvirtFailed.
        """
        question = partial(_answers, name, commands, time.monotonic() + deadline_s)
        return await self._when_due(question, deadline_s, waits=waits, by_people=by_people)

    async def reboot(self, name: str) -> None:
        """Have the agent reboot its guest; returns when it is about to, within 6 seconds. Raises what ask() does, and AgentFailed."""
        await self._when_due(partial(_reboot, name), _REBOOT_DEADLINE_S)

    async def _when_due(
        self,
        question: Callable[[libvirt.virConnect], _T],
        deadline_s: float,
        *,
        waits: bool = True,
        by_people: bool = False,
    ) -> _T:
        is_full = self._waiting >= _WAITING_LIMIT or (
            by_people and self._people_waiting >= _PEOPLE_WAITING_LIMIT
        )
        if is_full or (self._turns.is_taken and not waits):
            raise AgentBusy("Too many questions wait for the agent of the guest.")
        self._waiting += 1
        self._people_waiting += by_people
        try:
            return await self._in_turn(question, deadline_s, goes_first=not by_people)
        except TimeoutError as error:
            raise AgentTimedOut(
                f"The agent of the guest has not answered within {deadline_s:g} s."
            ) from error
        finally:
            self._waiting -= 1
            self._people_waiting -= by_people

    async def _in_turn(
        self,
        question: Callable[[libvirt.virConnect], _T],
        deadline_s: float,
        *,
        goes_first: bool = False,
    ) -> _T:
        """Raises TimeoutError and what the question does."""
        loop = asyncio.get_running_loop()

        def work(connection: libvirt.virConnect) -> _T:
            try:
                return question(connection)
            finally:
                with suppress(RuntimeError):  # the loop is closed: this process is about to end
                    loop.call_soon_threadsafe(self._turns.give_back)

        async with asyncio.timeout(deadline_s):
            await self._turns.take(goes_first=goes_first)
            if (connection := self._connection()) is None:
                self._turns.give_back()
                raise LibvirtUnreachable("there is no connection to libvirt")
            try:
                return await in_own_thread(partial(work, connection), name="guest agent")
            except NoThread as error:
                self._turns.give_back()
                raise LibvirtFailed("there is no thread to be had") from error


def _interfaces(name: str, connection: libvirt.virConnect) -> tuple[GuestInterface, ...]:
    try:
        domain = connection.lookupByName(name)
        domain.agentSetResponseTimeout(_ANSWER_TIMEOUT_S)
        told = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)
    except libvirt.libvirtError as error:
        raise LibvirtFailed(error.get_error_message() or "the agent does not answer") from error
    except UnicodeDecodeError as error:
        raise LibvirtFailed("the agent's answer is no text") from error
    return guest_interfaces(_rows(told))


def _rows(told: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Iterator[str]]]:
    for name, device in told.items():
        addresses = (str(each.get("addr") or "") for each in device.get("addrs") or ())
        yield name, str(device.get("hwaddr") or ""), addresses


def _answers(
    name: str, commands: Sequence[Command], until_s: float, connection: libvirt.virConnect
) -> list[Answer | AgentFailed]:
    """An agent that is silent once is asked nothing more, and so is any when the time is up."""
    domain = _domain(name, connection)
    answers: list[Answer | AgentFailed] = []
    for command in commands:
        if time.monotonic() > until_s:
            raise AgentTimedOut("The agent of the guest takes too long.")
        try:
            answers.append(_answer(domain, command))
        except AgentFailed as error:
            answers.append(error)
    return answers


def _reboot(name: str, connection: libvirt.virConnect) -> None:
    domain = _domain(name, connection)
    try:
        domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT)
    except libvirt.libvirtError as error:
        raise _failure(error, Command("guest-shutdown")) from error


def _domain(name: str, connection: libvirt.virConnect) -> libvirt.virDomain:
    """Raises DomainMissing and LibvirtUnreachable."""
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            raise DomainMissing("The guest does not run.") from error
        raise LibvirtUnreachable(error.get_error_message() or "no answer from libvirt") from error


def _answer(domain: libvirt.virDomain, command: Command) -> Answer:
    request: dict[str, object] = {"execute": command.execute}
    if command.arguments:
        request["arguments"] = dict(command.arguments)
    try:
        text = libvirt_qemu.qemuAgentCommand(domain, json.dumps(request), command.timeout_s, 0)
    except libvirt.libvirtError as error:
        failure = _failure(error, command)
        if command.is_confidential:  # nor is the cause to tell more than the error
            raise failure from None
        raise failure from error
    except UnicodeDecodeError:
        raise AgentFailed(
            f"The answer of the guest's agent to {command.execute} is no text."
        ) from None
    return _parsed(text, command)


def _parsed(text: str, command: Command) -> Answer:
    if command.has_printed:
        text = _PRINTED.sub(r"\1", text)
    if len(text) > _ANSWER_LIMIT_BYTES:
        raise AgentFailed(f"The answer of the guest's agent to {command.execute} is too long.")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        raise AgentFailed(
            f"The answer of the guest's agent to {command.execute} is none."
        ) from None
    if not isinstance(answer, dict) or "return" not in answer:
        raise AgentFailed(f"The answer of the guest's agent to {command.execute} is none.")
    return answer["return"]


def _failure(error: libvirt.libvirtError, command: Command) -> AgentError | DomainMissing:
    """Nothing but the agent's own refusal says that it has not done what it was asked."""
    code = error.get_error_code()
    if code in _SILENT_CODES:
        return AgentTimedOut(f"The agent of the guest does not answer to {command.execute}.")
    if code in _UNCONFIGURED_CODES:
        return AgentNotConnected("The guest has no channel to an agent.")
    if code in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
        return DomainMissing("The guest does not run.")
    words = "" if command.is_confidential else told_text(error.get_error_message(), _WORDS_LIMIT)
    after = f": {words}" if words else "."
    if code in _REFUSALS and error.get_error_domain() == libvirt.VIR_FROM_QEMU:
        return AgentRefused(f"The agent of the guest has not done {command.execute}{after}")
    return AgentFailed(f"No answer of the guest's agent to {command.execute} has come{after}")
