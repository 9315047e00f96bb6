"""Everything between a specification and its guest: disks that are made, a start that is tried, and what either waits for."""

from collections.abc import Mapping

import structlog
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.errors import Terminal

from podvisor_launcher.domain.build import ResolvedDisk
from podvisor_launcher.lifecycle.disk import MachineDisk
from podvisor_launcher.lifecycle.in_use import message_of_use
from podvisor_launcher.lifecycle.plan import NO_SPACE, START_RETRY_MS
from podvisor_launcher.lifecycle.situation import Blocked, StartFailure, Why
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.bulkheads import Bulkheads
from podvisor_launcher.storage.errors import DiskUnavailable, MissingSecret
from podvisor_launcher.storage.prepare import prepare_disks

_log = structlog.stdlib.get_logger(__name__)

_DISK_RETRY_MS = 50  # doubled up to the limit: a link to a container image comes within a moment
_DISK_RETRY_MAX_MS = 5_000
_IN_USE_RETRY_MAX_MS = 30_000  # every attempt is a QEMU


class Preparation:
    """For one specification, until begin_anew(). Times are milliseconds of CLOCK_BOOTTIME."""

    def __init__(self, settings: Settings, files: MachineDisk, bulkheads: Bulkheads) -> None:
        self._settings = settings
        self._files = files
        self._bulkheads = bulkheads
        self.begin_anew()

    def begin_anew(self) -> None:
        """There is another specification."""
        self.disks: Mapping[str, ResolvedDisk] | None = None  # once all of them are made
        self.blocked: Blocked | None = None
        self.failure: StartFailure | None = None
        self._disk_attempts = 0
        self._attempts_in_use = 0

    async def make_disks(
        self, spec: pb.DomainSpec, now_ms: int
    ) -> Mapping[str, ResolvedDisk] | None:
        """The disks of `spec`; None when something is missing, and `blocked` says what."""
        try:
            return await prepare_disks(
                spec,
                overlays=self._settings.disks,
                cloud_init=self._settings.cloud_init,
                bulkheads=self._bulkheads,
            )
        except DiskUnavailable as error:
            missing = isinstance(error, MissingSecret)
            why = Why.MISSING_SECRET if missing else Why.INVALID_DISK
            await self._block(why, str(error), now_ms)
            return None

    def disks_made(self, disks: Mapping[str, ResolvedDisk]) -> None:
        """These are the disks of the specification."""
        self.disks, self.blocked = disks, None

    async def start_failed(self, error: Exception, now_ms: int) -> None:
        """The start failed: a full node and an image that is in use are waited for; of anything else there are so many attempts."""
        attempts = self.failure.attempts if self.failure else 0
        in_use = message_of_use(str(error), self.disks or {})
        if in_use is not None:
            pause_ms = min(START_RETRY_MS << min(self._attempts_in_use, 10), _IN_USE_RETRY_MAX_MS)
            self._attempts_in_use += 1
            if self.failure is None or self.failure.message != in_use:
                _log.warning("waiting for a disk", message=in_use, error=str(error))
            self.failure = StartFailure(
                in_use, attempts, now_ms + pause_ms, final=False, why=Why.INVALID_DISK
            )
            return
        if not await self._files.has_room():
            await self._block(Why.NO_SPACE, NO_SPACE, now_ms)
            return
        final = isinstance(error, Terminal)
        pause_ms = START_RETRY_MS << attempts
        _log.warning("the guest did not start", attempt=attempts + 1, final=final, error=str(error))
        self.failure = StartFailure(str(error), attempts + 1, now_ms + pause_ms, final)

    async def _block(self, why: Why, message: str, now_ms: int) -> None:
        if why is Why.INVALID_DISK and not await self._files.has_room():
            why, message = Why.NO_SPACE, NO_SPACE
        if self.blocked is None or self.blocked.message != message:
            _log.warning("waiting for a disk", reason=why.value, message=message)
        pause_ms = min(_DISK_RETRY_MS << min(self._disk_attempts, 10), _DISK_RETRY_MAX_MS)
        self._disk_attempts += 1
        self.blocked = Blocked(why, message, now_ms + pause_ms)
