"""Gives the guest what lets somebody in: public keys and passwords, by its agent.

Invariants: it is given when an agent comes and when a Secret changes, which the kernel tells, and else nothing is asked or read. What
was given is known to the next launcher process, so that a key which has left its Secret leaves the guest; of passwords nothing is kept.
"""

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.aio.backoff import Backoff
from podvisor_common.aio.threads import in_own_thread

from podvisor_launcher.lifecycle.credential_plan import (
    Content,
    GivenKeys,
    all_keys,
    complaint_of,
    steps_of,
    wanted_of,
)
from podvisor_launcher.lifecycle.guest_agent import GuestAgent
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.storage.files import write_durably
from podvisor_launcher.virt.errors import (
    AgentCommandUnsupported,
    AgentError,
    AgentNotConnected,
    DomainMissing,
    LibvirtFailed,
    LibvirtUnreachable,
)

if TYPE_CHECKING:
    from podvisor_common.inotify import Inotify

_log = structlog.stdlib.get_logger(__name__)

# Between two times that the guest is given something; what happens meanwhile is in the second.
_PAUSE_S = 1.0
_FIRST_RETRY_S = 5.0
_LONGEST_RETRY_S = 300.0
_DEADLINE_S = 60.0
# The kubelet's limit of a Secret is 1 MiB.
_FILES_LIMIT = 512
_FILE_LIMIT_BYTES = 1024 * 1024


class Credentials:
    """Of one machine; `given` is where is noted which keys the guest was given."""

    def __init__(self, given: Path, agent: GuestAgent, questions: GuestQuestions) -> None:
        self._given = given
        self._agent = agent
        self._questions = questions
        self._wake = asyncio.Event()
        self._specs: list[pb.AccessCredentialSpec] = []
        agent.subscribe(self._wake.set)

    def serve(self, spec: pb.DomainSpec) -> None:
        """The specification in force. Only takes note."""
        wanted = list(spec.access_credentials)
        if wanted != self._specs:
            self._specs = wanted
            self._wake.set()

    async def run(self) -> None:
        """Give it to the guest whenever that is due; until cancelled."""
        while not self._specs:
            await self._wake.wait()
            self._wake.clear()
        self._wake.set()
        # Most machines have no credentials, and do without its third of a mebibyte.
        from podvisor_common.inotify import Inotify

        backoff = Backoff(initial_s=_FIRST_RETRY_S, max_s=_LONGEST_RETRY_S)
        retry_s: float | None = None
        with Inotify() as inotify:
            watched = _Watched(inotify, self._wake.set)
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(retry_s):
                        await self._wake.wait()
                if self._wake.is_set():
                    backoff.reset()
                self._wake.clear()
                # First the watches: what changes while it is read is read again.
                watched.watch(each.secret_dir for each in self._specs)
                is_done = await self._give()
                retry_s = None if is_done else backoff.next_s()
                await asyncio.sleep(_PAUSE_S)

    async def _give(self) -> bool:
        """Whether there is nothing more to be done until something happens."""
        if self._agent.known is None or not self._agent.known.connected:
            return True
        if self._agent.work.filesystems_frozen:
            return True  # it can write nothing; its going on is told
        try:
            unusable, complaint = await self._give_all()
        except (AgentNotConnected, DomainMissing):
            return True  # its coming is told
        except AgentCommandUnsupported as error:
            unusable, complaint = "", f"accessCredentials: {error}"
        except (AgentError, LibvirtUnreachable, LibvirtFailed, OSError) as error:
            _log.debug("the guest is not given its access credentials", error=type(error).__name__)
            unusable = ""
            complaint = (
                "accessCredentials: the agent of the guest does not answer. It is tried again."
            )
        if complaint:
            _log.info("the guest has not taken its access credentials")
        words = " ".join(filter(None, (unusable, complaint)))
        self._agent.has_done(credentials=(not words, words))
        return not complaint

    async def _give_all(self) -> tuple[str, str]:
        """Why the guest has not all of it: what is wrong with Secrets, until they are others, and what is tried again."""
        directories = list(dict.fromkeys(each.secret_dir for each in self._specs))
        contents = await in_own_thread(partial(_read_all, directories), name="secrets")
        given = await in_own_thread(partial(_load, self._given), name="given keys")
        wanted = wanted_of(self._specs, contents)
        steps = steps_of(wanted, given)
        # What may be in the guest from now on is noted first; what is gone from it, only then.
        then = wanted.given_keys(given)
        both = all_keys(given, then)
        await self._note(both, given)
        commands = [step.command for step in steps]
        answers = await self._questions.do_all(commands, deadline_s=_DEADLINE_S) if steps else []
        complaint = complaint_of(steps, answers)
        if not complaint:
            await self._note(then, both)
        return " ".join(dict.fromkeys(wanted.complaints)), complaint

    async def _note(self, keys: GivenKeys, known: GivenKeys) -> None:
        if keys != known:
            content = json.dumps(keys).encode()
            await in_own_thread(partial(write_durably, self._given, content), name="given keys")


class _Watched:
    """Directories that are watched, each once; one that comes later, once it is asked for again."""

    def __init__(self, inotify: "Inotify", changed: Callable[[], None]) -> None:
        self._inotify = inotify
        self._changed = changed
        self._known: set[str] = set()

    def watch(self, directories: Iterable[str]) -> None:
        for directory in directories:
            if directory in self._known:
                continue
            with ExitStack() as opened, suppress(OSError):
                flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
                descriptor = os.open(directory, flags)
                opened.callback(os.close, descriptor)
                self._inotify.watch_directory(descriptor, self._changed)
                self._known.add(directory)


def _read_all(directories: Sequence[str]) -> dict[str, Content | None]:
    return {directory: _read(Path(directory)) for directory in directories}


def _read(directory: Path) -> Content | None:
    """The files of a mounted Secret, all of one version of it; None where there is none to be read."""
    content: dict[str, bytes] = {}
    try:
        # The kubelet takes an old version away as soon as this link is to a new one.
        version = directory.joinpath("..data").resolve(strict=True)
        for name in sorted(os.listdir(version))[:_FILES_LIMIT]:
            path = version / name
            if path.is_file():
                with path.open("rb") as file:
                    content[name] = file.read(_FILE_LIMIT_BYTES)
        version.stat()  # what was missing had gone with it
    except OSError:
        return None
    return content


def _load(path: Path) -> GivenKeys:
    try:
        content = json.loads(path.read_bytes())
        return {str(user): tuple(str(key) for key in keys) for user, keys in content.items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}
