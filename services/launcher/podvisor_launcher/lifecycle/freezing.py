"""Has the guest's file systems stand still for a while.

Invariants: that they will be let go on is on stable storage before they stand still, so that a guest outlives its launcher and
whoever froze it; nothing here thaws before its time. A guest whose agent has not said whether it froze is thawed.
"""

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from pathlib import Path

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.aio.threads import in_own_thread

from podvisor_launcher.lifecycle.clock import boottime_ms
from podvisor_launcher.lifecycle.guest_agent import GuestAgent
from podvisor_launcher.lifecycle.guest_questions import GuestQuestions
from podvisor_launcher.storage.files import write_durably
from podvisor_launcher.virt.errors import (
    AgentBusy,
    AgentCommandUnsupported,
    AgentError,
    AgentNotConnected,
    AgentRefused,
    DomainMissing,
    LibvirtFailed,
    LibvirtUnreachable,
)

_log = structlog.stdlib.get_logger(__name__)

_FIRST_RETRY_S = 2.0
_LONGEST_RETRY_S = 60.0
# Of a thaw that is due, before jitter: somebody waits for a guest that writes nothing.
_LONGEST_DUE_RETRY_S = 10.0
# Longer than a freeze takes that somebody hears of.
_UNCERTAIN_MS = 120_000
# A thaw, and a second one where an agent is silent. A guest that has not been thawed by then has died, perhaps.
_THAWED_WITHIN_MS = 180_000
# The agent was not asked, or has said that it cannot. Of any other outcome it is not known whether it froze.
_NOT_FROZEN = (AgentRefused, AgentCommandUnsupported, AgentNotConnected, AgentBusy)
_Failures = (AgentError, DomainMissing, LibvirtFailed, LibvirtUnreachable)


@dataclass(frozen=True, slots=True)
class Freeze:
    """The guest was told to, or is about to be. Times are milliseconds of CLOCK_BOOTTIME, which no clock setting moves."""

    thaw_at_ms: int | None  # None for never


class Stillness(Enum):
    """Whether the guest's file systems stand still, or may."""

    NONE = "none"  # or there was time enough to end it
    PASSING = "passing"  # they are let go on in a while
    ENDLESS = "endless"


class Freezing:
    """Of one machine; `path` is where it is noted. The methods raise what GuestQuestions' do, and OSError where nothing can be
    noted."""

    def __init__(
        self,
        path: Path,
        agent: GuestAgent,
        questions: GuestQuestions,
        clock_ms: Callable[[], int] = boottime_ms,
    ) -> None:
        self._path = path
        self._agent = agent
        self._questions = questions
        self._clock_ms = clock_ms
        self._noted = not_before(clock_ms(), load_freeze(path))
        self._turn = asyncio.Lock()  # of freezing and thawing
        self._wake = asyncio.Event()
        agent.has_done(filesystems_frozen=self._noted is not None)
        agent.subscribe(self._wake.set)

    @property
    def stillness(self) -> Stillness:
        """By what is noted, from before the agent is told until after the guest was thawed; but no longer than a thaw takes."""
        if self._noted is None:
            return Stillness.NONE
        if self._noted.thaw_at_ms is None:
            return Stillness.ENDLESS
        is_over = self._clock_ms() > self._noted.thaw_at_ms + _THAWED_WITHIN_MS
        return Stillness.NONE if is_over else Stillness.PASSING

    async def freeze(self, thaw_after_s: int) -> None:
        """Have the file systems stand still until thaw() or so many seconds from now; 0 for no such end. Where they do already, that
        is all that changes."""
        async with self._turn:
            is_frozen = await self._questions.are_filesystems_frozen()
            thaw_at_ms = self._clock_ms() + thaw_after_s * 1000 if thaw_after_s else None
            try:
                if is_frozen:
                    await self._note(Freeze(thaw_at_ms))
                else:
                    await self._freeze(Freeze(thaw_at_ms))
            finally:
                self._tell()
            _log.info("the guest's file systems stand still", thaw_after_s=thaw_after_s)

    async def _freeze(self, wanted: Freeze) -> None:
        """Until the agent has said so, and somebody knows, it is one that thaws soon."""
        before = self._noted
        await self._note(Freeze(self._clock_ms() + _UNCERTAIN_MS))
        self._tell()
        try:
            await self._questions.freeze()
            await self._note(wanted)
        except _NOT_FROZEN:
            await self._note(before)  # as it was
            raise
        except BaseException:
            # It may stand still by now, for one who does not know.
            self._noted = Freeze(self._clock_ms())
            raise

    async def thaw(self) -> None:
        """Let the file systems go on."""
        async with self._turn:
            await self._thaw()

    async def run(self) -> None:
        """Thaw when it is time; until cancelled."""
        backoff = Backoff(initial_s=_FIRST_RETRY_S, max_s=_LONGEST_RETRY_S)
        retry_s: float | None = None
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s(self._left_s(), retry_s)):
                    await self._wake.wait()
            self._wake.clear()
            retry_s = None
            try:
                async with self._turn:
                    await self._look()
            except (*_Failures, OSError) as error:
                _log.debug("the guest cannot be thawed now", error=str(error))
                is_due = self._left_s() == 0
                retry_s = backoff.next_s(at_most_s=_LONGEST_DUE_RETRY_S if is_due else math.inf)
            else:
                backoff.reset()

    async def _look(self) -> None:
        """A guest that was booted again, or thawed by itself, has nothing to be thawed."""
        if self._noted is None:
            return
        if self._left_s() == 0:
            await self._thaw()
        elif not await self._questions.are_filesystems_frozen():
            await self._note(None)
            self._tell()

    async def _thaw(self) -> None:
        await self._questions.thaw()
        await self._note(None)
        if self._agent.work.filesystems_frozen:
            _log.info("the guest's file systems go on")
        self._tell()

    def _tell(self) -> None:
        """Something else is noted now."""
        self._agent.has_done(filesystems_frozen=self._noted is not None)
        self._wake.set()

    async def _note(self, freeze: Freeze | None) -> None:
        await in_own_thread(partial(_save, self._path, freeze), name="freeze")
        self._noted = freeze

    def _left_s(self) -> float | None:
        """Until it is time to thaw; 0 when it is, None when it never will be."""
        if self._noted is None or self._noted.thaw_at_ms is None:
            return None
        return max(0, self._noted.thaw_at_ms - self._clock_ms()) / 1000


def pause_s(left_s: float | None, retry_s: float | None) -> float | None:
    """From one look to the next, by the time that is left until the thaw and until what has failed is tried again. Pure."""
    if left_s == 0 and retry_s is not None:
        return retry_s
    return min((each for each in (left_s, retry_s) if each is not None), default=None)


def not_before(now_ms: int, freeze: Freeze | None) -> Freeze | None:
    """The freeze, due now if it has been: somebody has the time for a thaw only from now on. Pure."""
    if freeze is None or freeze.thaw_at_ms is None:
        return freeze
    return Freeze(max(now_ms, freeze.thaw_at_ms))


def load_freeze(path: Path) -> Freeze | None:
    """What this launcher's predecessor has noted. What cannot be read is a freeze that is over."""
    try:
        thaw_at_ms = json.loads(path.read_bytes())["thaw_at_ms"]
        return Freeze(None if thaw_at_ms is None else int(thaw_at_ms))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Freeze(0)


def _save(path: Path, freeze: Freeze | None) -> None:
    if freeze is None:
        path.unlink(missing_ok=True)
    else:
        write_durably(path, json.dumps(asdict(freeze)).encode())
