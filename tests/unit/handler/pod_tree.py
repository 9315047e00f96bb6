"""What a container sees, for real: a process with a root and mounts of its own. Needs root."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from podvisor_handler.linux.process import PinnedProcess

from tests.unit.handler.namespaces import contained

VOLUME = "/run/podvisor/volumes/data"
# With the directory of its pod's sockets it is one that holds a volume: it serves a socket there.
CONTAINER = """
import os, socket, sys
root, sockets = sys.argv[1:]
if sockets:
    os.chdir(sockets)
    holder = socket.socket(socket.AF_UNIX)
    holder.bind("holder.sock")
    holder.listen()
os.chroot(root)
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class PodTree:
    """What a container sees, and the file system of its claim."""

    root: Path
    claim: Path
    mounts: str = ""  # commands that replace the mount of the claim
    sockets: Path | None = None
    volume: str = VOLUME

    @property
    def image(self) -> Path:
        return self.claim / "disk.img"

    @property
    def device(self) -> Path:
        return self.root / "dev/podvisor/data"

    @contextlib.contextmanager
    def running(self) -> Iterator[PinnedProcess]:
        """A process in the container."""
        target = shlex.quote(f"{self.root}{self.volume}")
        mounts = self.mounts or f"mount --bind {shlex.quote(str(self.claim))} {target}"
        python = shlex.join(
            [sys.executable, "-c", CONTAINER, str(self.root), str(self.sockets or "")]
        )
        command = ["unshare", "-m", "sh", "-ec", f"{mounts}\nexec {python}"]
        with contained(command) as process:
            yield process


def tree_in(directory: Path, volume: str = VOLUME) -> PodTree:
    """A container with an empty claim."""
    root, claim = directory / "root", directory / "claim"
    (root / volume.lstrip("/")).mkdir(parents=True)
    (root / "dev/podvisor").mkdir(parents=True)
    claim.mkdir()
    return PodTree(root, claim, volume=volume)


@contextlib.contextmanager
def mounted(directory: Path, file_system: str) -> Iterator[Path]:
    """A file system of its own, below `directory`."""
    device, mount = directory / "device", directory / "mount"
    mount.mkdir()
    source = file_system
    if file_system == "ext4":
        device.touch()
        os.truncate(device, 16 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(device)], check=True)
        source = str(device)
    options = ["-o", "loop"] if file_system == "ext4" else ["-t", file_system]
    if subprocess.run(["mount", *options, source, str(mount)], check=False).returncode:
        pytest.skip(f"no {file_system} here")
    try:
        yield mount
    finally:
        thaw(mount)
        subprocess.run(["umount", str(mount)], check=True)


def freeze(mount: Path) -> None:
    subprocess.run(["fsfreeze", "-f", str(mount)], check=True)


def thaw(mount: Path) -> None:
    subprocess.run(["fsfreeze", "-u", str(mount)], check=False, stderr=subprocess.DEVNULL)
