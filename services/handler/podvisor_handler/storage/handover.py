"""Hands the volume that one pod holds over to the launcher in another, as an open file.

Nobody in either pod is trusted. Whose process holds the volume the kernel says, the volume is found below that one's root as every
other is, and it is sent to no process but the launcher's.

Invariant: no attempt outlives its thread, which closes all that it opened. Doing it again is the launcher's to make nothing of.
"""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from google.protobuf.message import DecodeError
from podvisor.launcher.v1 import launcher_pb2
from podvisor_common.api.v1 import names
from podvisor_common.errors import Retryable
from podvisor_common.launcher_pod import FD_SETS_DIRECTORY

from podvisor_handler.launchers.endpoint import (
    HOLDER_SOCKET_NAME,
    VOLUMES_SOCKET_NAME,
    LauncherUnreachable,
    untrusted_connect,
    untrusted_open_endpoint,
)
from podvisor_handler.linux.file_access import files_as
from podvisor_handler.linux.process import ForeignProcess, PinnedProcess, ProcessEnded
from podvisor_handler.linux.untrusted import (
    UntrustedPathMissing,
    UntrustedPathRefused,
    untrusted_directory,
    untrusted_give_file,
    untrusted_make_directory,
    untrusted_mount,
    untrusted_open_disk,
)
from podvisor_handler.storage.attempt import Attempt
from podvisor_handler.storage.plan import Access, Device, HandOver
from podvisor_handler.storage.volumes import (
    VolumeNotReady,
    VolumeRefused,
    VolumeSilent,
    untrusted_let_at,
    volume_errors,
)

_ANSWERS_WITHIN_S = 5.0
_STEP_TIMEOUT_S = 2.0  # of connecting, sending, receiving
_RECEIPT_LIMIT_BYTES = 16 * 1024


class HandoverRefused(Retryable):
    """The launcher did not take the volume. The message is its own."""

    reason = "HotplugFailed"


@dataclass(frozen=True, slots=True)
class Receiver:
    """The launcher that gets a volume."""

    pod_uid: str
    process: PinnedProcess


class VolumeHandover:
    """One volume on its way to a launcher. Nothing stops it when it waits for a dead server."""

    def __init__(
        self,
        pods_directory: str,
        order: HandOver,
        receiver: Receiver,
        answers_within_s: float = _ANSWERS_WITHIN_S,
    ) -> None:
        self.answers_within_s = answers_within_s
        self._volume = order.access.volume
        self._attempt = Attempt()
        # The thread gets its own hold on the process: the connection may be closed meanwhile.
        pinned = Receiver(receiver.pod_uid, receiver.process.duplicate())
        self._attempt.begin(
            lambda: _hand_over(pods_directory, order, pinned), name=f"hand-over-{order.holder}"
        )

    async def arrives(self) -> None:
        """Wait for the launcher to have the volume.

        Raises VolumeRefused, VolumeNotReady or HandoverRefused when it will not. VolumeSilent says that it may do so still: then
        this can be waited for again.
        """
        if not await self._attempt.has_ended_within(self.answers_within_s):
            raise VolumeSilent(self._volume)
        self._attempt.take()


def _hand_over(pods_directory: str, order: HandOver, receiver: Receiver) -> None:
    try:
        file = _open(pods_directory, order)
        try:
            if isinstance(order.access, Device):
                _make_place_for_devices(order.access.volume, receiver)
            _send(pods_directory, order, receiver, file)
        finally:
            os.close(file)
    finally:
        receiver.process.close()


def _make_place_for_devices(volume: str, receiver: Receiver) -> None:
    """libvirt knows an open device by the path of one of QEMU's sets of open files, and wants a file there."""
    with (
        volume_errors(volume),
        receiver.process.opened("root", os.O_PATH | os.O_DIRECTORY) as root,
    ):
        relative = FD_SETS_DIRECTORY.lstrip("/")
        untrusted_make_directory(root, relative, mode=0o700, owner=names.LAUNCHER_UID)


def _open(pods_directory: str, order: HandOver) -> int:
    volume = order.access.volume
    with (
        _holder(pods_directory, order) as process,
        volume_errors(volume),
        process.opened("root", os.O_PATH | os.O_DIRECTORY) as root,
    ):
        return untrusted_open_volume(root, order.access, read_only=order.read_only)


@contextmanager
def _holder(pods_directory: str, order: HandOver) -> Iterator[PinnedProcess]:
    """The process that holds the volume."""
    volume = order.access.volume
    try:
        with untrusted_open_endpoint(pods_directory, order.holder, HOLDER_SOCKET_NAME) as endpoint:
            yield endpoint.process
    except (UntrustedPathMissing, LauncherUnreachable, ProcessEnded) as error:
        raise VolumeNotReady(
            f'Volume "{volume}": the pod that holds it does not answer.'
        ) from error
    except (UntrustedPathRefused, ForeignProcess) as error:
        raise VolumeRefused(f'Volume "{volume}": {error}.') from error


def untrusted_open_volume(root: int, access: Access, *, read_only: bool) -> int:
    """The volume below `root`, a container's, open. The caller closes it.

    An image is opened as the launcher's user, who opens every other one: root may be nobody to the volume's server, and may do
    more with it than the launcher should be given.
    Raises VolumeRefused, VolumeNotReady, UntrustedPathMissing, UntrustedPathRefused or OSError.
    """
    if isinstance(access, Device):
        path = PurePosixPath(access.path.lstrip("/"))
        with untrusted_directory(root, str(path.parent)) as directory:
            return untrusted_open_disk(directory, path.name, kind=stat.S_IFBLK, read_only=read_only)
    if not read_only:
        untrusted_let_at(root, access)
    with (
        untrusted_mount(root, access.directory.lstrip("/")) as directory,
        files_as(names.LAUNCHER_UID),
    ):
        if access.create:
            untrusted_give_file(directory, access.file, owner=names.LAUNCHER_UID, create=True)
        return untrusted_open_disk(directory, access.file, kind=stat.S_IFREG, read_only=read_only)


def _send(pods_directory: str, order: HandOver, receiver: Receiver, file: int) -> None:
    volume = order.access.volume
    said = launcher_pb2.VolumeHandover(disk=volume, capacity_bytes=order.capacity_bytes)
    try:
        with untrusted_connect(
            pods_directory,
            receiver.pod_uid,
            VOLUMES_SOCKET_NAME,
            receiver.process,
            timeout_s=_STEP_TIMEOUT_S,
        ) as connection:
            socket.send_fds(connection, [said.SerializeToString()], [file])
            answer = connection.recv(_RECEIPT_LIMIT_BYTES)
        receipt = launcher_pb2.VolumeReceipt.FromString(answer)
    except (UntrustedPathMissing, LauncherUnreachable, ProcessEnded, OSError) as error:
        raise VolumeNotReady(f'Volume "{volume}": the launcher does not take it yet.') from error
    except (UntrustedPathRefused, ForeignProcess, DecodeError) as error:
        raise HandoverRefused(f'Volume "{volume}": the launcher does not take it.') from error
    if not receipt.taken:
        why = receipt.message or "no reason given"
        raise HandoverRefused(f'Volume "{volume}": the launcher does not take it: {why}')
