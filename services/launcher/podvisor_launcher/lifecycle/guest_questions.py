"""What can be asked of a guest's agent, and done by it: each once, when somebody wants to know.

Invariant: nothing is asked where no agent is, and no agent is asked for what it does not offer.
"""

import asyncio
from collections.abc import Sequence

from podvisor.domain.v1 import guest_pb2 as pb

from podvisor_launcher.lifecycle import guest_facts as facts
from podvisor_launcher.lifecycle.guest_agent import GuestAgent
from podvisor_launcher.virt.agent import Answer, Command
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import (
    AgentCommandUnsupported,
    AgentFailed,
    AgentNotConnected,
)

_INFO = Command("guest-info")
_OS = Command("guest-get-osinfo")
_HOST_NAME = Command("guest-get-host-name")
_TIME_ZONE = Command("guest-get-timezone")
_USERS = Command("guest-get-users")
_FILESYSTEMS = Command("guest-get-fsinfo", timeout_s=10)  # a file system of a network may be slow
_FREEZE_STATUS = Command("guest-fsfreeze-status")
# Everything that is due has to be written first.
_FREEZE = Command("guest-fsfreeze-freeze", timeout_s=45)
_THAW = Command("guest-fsfreeze-thaw", timeout_s=45)
_PING = Command("guest-ping")

_DEADLINE_S = 30.0
_INFO_DEADLINE_S = 40.0
# Together the 75 seconds that a freeze may take.
_FREEZE_STATUS_DEADLINE_S = 12.0
_FREEZE_DEADLINE_S = 62.0


class GuestQuestions:
    """Of one machine. All methods raise AgentError, DomainMissing, LibvirtUnreachable and LibvirtFailed."""

    def __init__(self, agent: GuestAgent, libvirt: LibvirtConnection) -> None:
        self._agent = agent
        self._libvirt = libvirt

    async def info(self) -> pb.GuestInfo:
        """All that the agent tells, within 40 seconds. What it cannot tell is left empty."""
        commands = (_INFO, _OS, _HOST_NAME, _TIME_ZONE, _USERS, _FILESYSTEMS, _FREEZE_STATUS)
        answers = await self._ask(commands, _INFO_DEADLINE_S, by_people=True)
        about, os, host_name, zone, users, filesystems, freeze = (
            None if isinstance(each, AgentFailed) else each for each in answers
        )
        version, known = facts.agent_of(about)
        zone_name, ahead_s = facts.time_zone_of(zone)
        return pb.GuestInfo(
            agent_version=version,
            commands=known,
            os=facts.os_of(os),
            host_name=facts.host_name_of(host_name),
            time_zone=zone_name,
            time_zone_offset_s=ahead_s,
            users=facts.users_of(users),
            filesystems=facts.filesystems_of(filesystems),
            filesystems_frozen=facts.is_frozen(freeze),
        )

    async def users(self) -> list[pb.GuestUser]:
        """Who is logged in, within 30 seconds."""
        return facts.users_of(await self.do(_USERS, by_people=True))

    async def filesystems(self) -> list[pb.GuestFilesystem]:
        """What is mounted, within 30 seconds."""
        return facts.filesystems_of(await self.do(_FILESYSTEMS, by_people=True))

    async def are_filesystems_frozen(self) -> bool:
        """Whether they stand still, within 12 seconds."""
        answer = await self.do(_FREEZE_STATUS, deadline_s=_FREEZE_STATUS_DEADLINE_S)
        return facts.is_frozen(answer)

    async def freeze(self) -> None:
        """Have the file systems stand still, within 62 seconds. Where they do already, agents say that they cannot."""
        await self.do(_FREEZE, deadline_s=_FREEZE_DEADLINE_S)

    async def thaw(self) -> None:
        """Let the file systems go on, within 62 seconds. Where they do already, nothing happens."""
        await self.do(_THAW, deadline_s=_FREEZE_DEADLINE_S)

    async def ping(self, deadline_s: float) -> None:
        """Whether the agent answers at all, within that time."""
        await self.put(_PING, deadline_s)

    async def put(self, command: Command, deadline_s: float) -> Answer:
        """What the agent returns for the command, within that time. Whether it offers it is not looked at first."""
        [answer] = await self._ask([command], deadline_s)
        if isinstance(answer, AgentFailed):
            raise answer
        return answer

    async def do(
        self, command: Command, *, deadline_s: float = _DEADLINE_S, by_people: bool = False
    ) -> Answer:
        """What the agent returns for the command, if it offers it; `by_people` as for AgentQuestions.ask()."""
        [answer] = await self.do_all([command], deadline_s=deadline_s, by_people=by_people)
        if isinstance(answer, AgentFailed):
            raise answer
        return answer

    async def do_all(
        self, commands: Sequence[Command], *, deadline_s: float, by_people: bool = False
    ) -> list[Answer | AgentFailed]:
        """What the agent returns for each of the commands, if it offers all of them; else none is put to it."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + deadline_s
        [about] = await self._ask([_INFO], deadline_s, by_people=by_people)
        if isinstance(about, AgentFailed):
            raise about
        _, known = facts.agent_of(about)
        offered = {each.name for each in known if each.enabled}
        for command in commands:
            if command.execute not in offered:
                raise AgentCommandUnsupported(
                    f"The agent of the guest does not offer {command.execute}."
                    " Update it, or allow the command in its configuration."
                )
        return await self._ask(commands, until_s - loop.time(), by_people=by_people)

    async def _ask(
        self, commands: Sequence[Command], deadline_s: float, *, by_people: bool = False
    ) -> list[Answer | AgentFailed]:
        domain, known = self._agent.domain, self._agent.known
        if domain is None or known is None or not known.connected:
            raise AgentNotConnected("The guest has no agent that is connected.")
        return await self._libvirt.agent.ask(
            domain, commands, deadline_s=deadline_s, by_people=by_people
        )
