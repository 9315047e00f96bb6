"""virtiofsd, one process for every tree of files that a guest shares: started before QEMU, it ends when QEMU lets go of it.

Invariants: nobody needs this launcher, nor libvirtd, for a tree to be served. Each process is started by `confine`, after which
it reaches its tree and no other file, whatever a guest asks of it. One that dies takes its tree from the guest until the guest's
next start: QEMU does not connect anew, and only the dead process knew what the guest had open.
"""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.errors import Retryable, Terminal

from podvisor_launcher.domain.filesystems import share_socket
from podvisor_launcher.storage.errors import InvalidDisk, MissingSecret

_log = structlog.stdlib.get_logger(__name__)

_CHECK_TIMEOUT_S = 10.0
_NO_LANDLOCK = 3  # exit code of `confine`
# Ends that are no loss to a guest: QEMU has let go, or this launcher wanted no more of it.
_ORDERLY = (0, -signal.SIGTERM)


class ShareFailed(Retryable):
    """A tree of files cannot be served now. The text names it."""

    reason = "StartFailed"


class ShareRefused(Terminal):
    """A tree of files can never be served on this node. The text names it."""

    reason = "DomainRejected"


@dataclass(frozen=True, slots=True)
class Programs:
    """What is run."""

    confine: str = "/usr/libexec/podvisor/confine"
    virtiofsd: str = "/usr/libexec/virtiofsd"


def check_shares(filesystems: Iterable[pb.FilesystemSpec]) -> None:
    """Raise DiskUnavailable for the first tree that is not there yet."""
    for filesystem in filesystems:
        try:
            # What begins with two dots is the kubelet's: it swaps the whole content of a ConfigMap or Secret by one link.
            names = [name for name in os.listdir(filesystem.directory) if not name.startswith("..")]
        except FileNotFoundError:
            names = None
        except OSError as error:
            raise InvalidDisk(f'Volume "{filesystem.name}": {error.strerror}.') from error
        if filesystem.awaited and not names:
            raise MissingSecret(
                f'Volume "{filesystem.name}": what it is made of does not exist or is empty.'
                " The machine starts when it is there."
            )
        if names is None:
            raise InvalidDisk(f'Volume "{filesystem.name}" is not mounted in the launcher.')


async def start_shares(
    filesystems: Iterable[pb.FilesystemSpec], directory: Path, programs: Programs | None = None
) -> None:
    """Serve each tree on its socket in `directory`. Whatever was served before is served no more, so this must not be called
    while a guest runs. Raises ShareFailed and ShareRefused."""
    programs = programs or Programs()
    await asyncio.to_thread(_end_leftovers, directory, programs.virtiofsd)
    for filesystem in filesystems:
        try:
            process = await asyncio.to_thread(_start, filesystem, directory, programs)
        except (OSError, subprocess.TimeoutExpired) as error:
            words = error.strerror if isinstance(error, OSError) else "virtiofsd does not start"
            raise ShareFailed(f'File system "{filesystem.name}": {words}.') from error
        _watch(filesystem.name, process)


def virtiofsd_command(
    filesystem: pb.FilesystemSpec, listener: int, programs: Programs
) -> list[str]:
    """How a tree is served on the listening socket with the number `listener`."""
    return [
        *_confined(filesystem, programs),
        programs.virtiofsd,
        f"--fd={listener}",
        f"--shared-dir={filesystem.directory}",
        "--sandbox=none",  # the others need a privilege; see native/confine.c for what there is instead
        # The node and other pods may change the tree too: a guest believes what it has seen for a second.
        "--cache=auto",
        "--log-level=error",
        *(["--readonly"] if filesystem.read_only else []),
    ]


def _confined(filesystem: pb.FilesystemSpec, programs: Programs) -> list[str]:
    read_only = ["--read-only"] if filesystem.read_only else []
    return [programs.confine, *read_only, filesystem.directory]


def _start(
    filesystem: pb.FilesystemSpec, directory: Path, programs: Programs
) -> "subprocess.Popen[bytes]":
    _check_confinement(filesystem, programs)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = share_socket(str(directory), filesystem.name)
    with suppress(FileNotFoundError):
        os.unlink(path)
    # It listens before anybody is there to answer, so QEMU may come at once.
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        return subprocess.Popen(
            virtiofsd_command(filesystem, listener.fileno(), programs),
            stdin=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )


def _check_confinement(filesystem: pb.FilesystemSpec, programs: Programs) -> None:
    """Try it on a program that does nothing: QEMU would have no words for why nobody answers."""
    tried = subprocess.run(
        [*_confined(filesystem, programs), "/usr/bin/true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_CHECK_TIMEOUT_S,
        check=False,
    )
    if tried.returncode == _NO_LANDLOCK:
        raise ShareRefused(
            f'File system "{filesystem.name}" cannot be shared for writing: the kernel of this node has no Landlock, by which'
            " the guest is kept from every other file of the pod. Make its volume read-only, or use another node."
        )
    if tried.returncode != 0:
        words = tried.stderr.decode(errors="replace").strip() or "confine failed"
        raise ShareFailed(f'File system "{filesystem.name}": {words}.')


def _end_leftovers(directory: Path, program: str) -> None:
    """Those of a start that failed, also of an earlier launcher's, still wait for their QEMU."""
    for pid in _running(program) if directory.exists() else ():
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)


def _running(program: str) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if (entry / "cmdline").read_bytes().startswith(program.encode() + b"\0"):
                yield int(entry.name)


def _watch(name: str, process: "subprocess.Popen[bytes]") -> None:
    """Reap the process when it ends, and tell of a loss."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(process.pid)

    def ended() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        code = process.wait()
        if code not in _ORDERLY:
            _log.error(
                "virtiofsd died; the guest has lost a file system until its next start",
                filesystem=name,
                exit_code=code,
            )

    loop.add_reader(descriptor, ended)
