"""Processes of other pods: pinned by pidfd, tied to a pod by their control group.

Invariant: a PinnedProcess names one process for ever. Once it has ended, `check_alive` says so,
and no path under /proc/<pid> that was opened before the check can belong to another process.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from podvisor_common.errors import Retryable, Terminal


class ProcessEnded(Retryable):
    """The process has ended; its pod may start another one."""


class ForeignProcess(Terminal):
    """The process does not belong to the pod it should belong to."""


class PinnedProcess:
    """A process that cannot be mistaken for a later one with the same number."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd

    @classmethod
    def open(cls, pid: int) -> Self:
        """Pins the process `pid`. Raises ProcessEnded."""
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError as error:
            raise ProcessEnded(f"process {pid} has ended") from error

    def duplicate(self) -> "PinnedProcess":
        """The same process, pinned independently, for a thread that may outlive this object."""
        return PinnedProcess(self.pid, os.dup(self._pidfd))

    def close(self) -> None:
        """Lets go of the process. Safe to repeat."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def check_alive(self) -> None:
        """Raises ProcessEnded when the process is not running any more."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if poll.poll(0):
            raise ProcessEnded(f"process {self.pid} has ended")

    def kill(self) -> None:
        """Kills the process. Raises ProcessEnded when there is nothing to kill."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError as error:
            raise ProcessEnded(f"process {self.pid} has ended") from error

    def container_in_pod(self, pod_uid: str) -> str:
        """The control group of the pod's container that the process runs in. Raises ForeignProcess and ProcessEnded."""
        try:
            text = Path(f"/proc/{self.pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessEnded(f"process {self.pid} has ended") from error
        self.check_alive()
        for path in _paths(text):
            if _names_pod(path, pod_uid):
                return path
        raise ForeignProcess(f"process {self.pid} is not in a container of pod {pod_uid}")

    @contextlib.contextmanager
    def opened(self, entry: str, flags: int) -> Iterator[int]:
        """A descriptor of /proc/<pid>/`entry`, surely of this process. Raises ProcessEnded."""
        try:
            descriptor = os.open(f"/proc/{self.pid}/{entry}", flags | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise ProcessEnded(f"process {self.pid} has ended") from error
        try:
            self.check_alive()
            yield descriptor
        finally:
            os.close(descriptor)


def cgroup_names_pod(text: str, pod_uid: str) -> bool:
    """Whether a /proc/<pid>/cgroup says that the process is in a container of the pod.

    Both drivers of the kubelet are understood: `pod<uid>` and, by systemd, `pod<uid_>.slice`.
    """
    return any(_names_pod(path, pod_uid) for path in _paths(text))


def cgroup_is_within(text: str, group: str) -> bool:
    """Whether a /proc/<pid>/cgroup says that the process is in the control group, or below it."""
    return any(path == group or path.startswith(f"{group}/") for path in _paths(text))


def _paths(text: str) -> list[str]:
    return [line.split(":", 2)[-1] for line in text.splitlines()]


def _names_pod(path: str, pod_uid: str) -> bool:
    names = {f"pod{pod_uid}", f"pod{pod_uid.replace('-', '_')}"}
    stems = [component.removesuffix(".slice") for component in path.split("/")]
    return any(stem in names or stem.endswith(tuple(f"-{n}" for n in names)) for stem in stems)
