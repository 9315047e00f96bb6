"""What the build needs from the machine it runs on: programs, their packages, progress lines.

Invariant: nothing is installed without a line that says so first.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

# Debian keeps some of these in sbin, which is not on a plain user's PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

PACKAGE_OF = {
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "ssh": "openssh-client",
    "syslinux": "syslinux",
}


class BuildError(Exception):
    """The guest cannot be built or tested here; the text says what a person can do about it."""


def say(line: str) -> None:
    """One progress line for the person who waits."""
    print(f"» {line}", flush=True)


def run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command; BuildError with its messages when it fails."""
    full_env = {**os.environ, "PATH": SEARCH_PATH, **(env or {})}
    done = subprocess.run(command, cwd=cwd, env=full_env, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def require(programs: Iterable[str]) -> None:
    """Make these programs available, installing their Debian packages when they are missing."""
    missing = sorted({PACKAGE_OF[p] for p in programs if not shutil.which(p, path=SEARCH_PATH)})
    if not missing:
        return
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
    if os.geteuid() != 0:
        if not shutil.which("sudo"):
            raise BuildError(f"missing on this machine; as root run: {' '.join(install)}")
        install.insert(0, "sudo")
    say(f"installing Debian packages on this machine: {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(*install, env=quiet)
    except BuildError:
        run(*[word for word in install[:1] if word == "sudo"], "apt-get", "update", "-q")
        run(*install, env=quiet)
