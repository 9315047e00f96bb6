"""Lets a launcher's user at the volumes in its container. The thin shell around plan.py.

Everything is found below the root of the launcher's process, by walks that follow no link. A directory counts only if
something is mounted on it: its parents are in the image of the container, which is mounted read-only, so it is the kubelet that
put a volume there, and no process of the pod has the privilege to mount anything else. What such a process can still do is to
exchange files in a volume that it may write to, and those are the machine's own. So nothing becomes the launcher's here but
what the manifest names.

Invariant: nothing is read, written, truncated or removed; a file that is there gets another owner and nothing else. Doing it
again changes nothing.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator

import structlog
from podvisor_common.api.v1 import names
from podvisor_common.errors import Retryable

from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.linux.untrusted import (
    UntrustedPathMissing,
    UntrustedPathRefused,
    untrusted_give_block_device,
    untrusted_give_file,
    untrusted_mount,
)
from podvisor_handler.storage.attempt import Attempt
from podvisor_handler.storage.plan import Access, Device, Image

_ANSWERS_WITHIN_S = 5.0
# The node's root may be nobody to the volume's server. Whether the launcher's user is somebody, the launcher finds out.
_NOT_FOR_ROOT = (errno.EPERM, errno.EACCES, errno.EROFS)

_log = structlog.get_logger(__name__)


class VolumeRefused(Retryable):
    """A volume holds something else than an image in its place. Whoever owns the volume can change that."""

    reason = "InvalidDisk"


class VolumeNotReady(Retryable):
    """A volume is not there, does not answer, or cannot be changed now."""

    reason = "VolumeNotReady"


class VolumeSilent(VolumeNotReady):
    """The server of a volume does not answer. What was asked of it goes on."""

    def __init__(self, volume: str) -> None:
        super().__init__(f'Volume "{volume}": its file system does not answer.')


class VolumePreparation:
    """The work on the volumes of one pod. One attempt at each of them at a time: nothing stops one that waits for a dead server,
    and no volume waits for another."""

    def __init__(self, answers_within_s: float = _ANSWERS_WITHIN_S) -> None:
        self.answers_within_s = answers_within_s
        self._attempts: dict[Access, Attempt] = {}

    async def run(self, process: PinnedProcess, accesses: tuple[Access, ...]) -> None:
        """Lets the launcher's user at the volumes in the container of `process`, at each that can be had.

        Raises VolumeRefused, VolumeNotReady or ProcessEnded: of the first, in their order, that cannot.
        """
        self._attempts = {
            access: attempt for access, attempt in self._attempts.items() if attempt.is_under_way
        }
        for access in accesses:
            if access not in self._attempts:
                self._begin(process, access)
        ends_at_s = time.monotonic() + self.answers_within_s
        failures: list[Retryable] = []
        for access in accesses:
            attempt = self._attempts[access]
            try:
                if not await attempt.has_ended_within(max(0.0, ends_at_s - time.monotonic())):
                    raise VolumeSilent(access.volume)
                attempt.take()
            except Retryable as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _begin(self, process: PinnedProcess, access: Access) -> None:
        # The thread gets its own hold on the process: the connection may be closed meanwhile.
        pinned = process.duplicate()
        attempt = self._attempts[access] = Attempt()
        attempt.begin(
            lambda: _let_at(pinned, access), name=f"volumes-{process.pid}-{access.volume}"
        )


def _let_at(pinned: PinnedProcess, access: Access) -> None:
    try:
        with pinned.opened("root", os.O_PATH | os.O_DIRECTORY) as root:
            untrusted_let_at(root, access)
    finally:
        pinned.close()


def untrusted_let_at(root: int, access: Access) -> None:
    """Lets the launcher's user at one volume below `root`, its container's. Raises VolumeRefused or VolumeNotReady."""
    with volume_errors(access.volume):
        match access:
            case Image():
                _let_at_image(root, access)
            case Device(_, path, read_only):
                mode = 0o400 if read_only else 0o600
                relative = path.lstrip("/")
                untrusted_give_block_device(root, relative, owner=names.LAUNCHER_UID, mode=mode)


@contextlib.contextmanager
def volume_errors(volume: str) -> Iterator[None]:
    """What goes wrong with a volume within it becomes VolumeRefused or VolumeNotReady."""
    try:
        yield
    except UntrustedPathRefused as error:
        raise VolumeRefused(f'Volume "{volume}": {error}.') from error
    except UntrustedPathMissing as error:
        raise VolumeNotReady(f'Volume "{volume}": it is not in the pod.') from error
    except OSError as error:
        raise VolumeNotReady(f'Volume "{volume}": {error.strerror}.') from error


def _let_at_image(root: int, image: Image) -> None:
    owner = names.LAUNCHER_UID
    with untrusted_mount(root, image.directory.lstrip("/")) as directory:
        try:
            untrusted_give_file(directory, image.file, owner=owner, create=image.create)
        except UntrustedPathMissing:
            return  # the launcher says so, if it may not make one
        except OSError as error:
            if error.errno not in _NOT_FOR_ROOT:
                raise
            _log.info("volume left as it is", volume=image.volume, error=error.strerror)
