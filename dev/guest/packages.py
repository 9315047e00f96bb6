"""Debian packages of another architecture, without touching the host's dpkg or needing root.

apt runs in a private root below the user's cache directory. Packages are kept there by name and
version, and so is what was extracted from them: a second build, or a second clone, needs no network.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .host import BuildError, run, say

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def cache_dir() -> Path:
    """Where packages and extracted files live between builds and clones."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "podvisor" / "guest"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which packages a guest is made of, or what it is given. `kernel` is a pattern whose group 1 orders the matches."""

    architecture: str
    kernel: str | None
    packages: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Stands for this selection in file names."""
        text = "\n".join([SUITE, self.architecture, self.kernel or "", *self.packages])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def fetch(selection: Selection) -> list[Path]:
    """The selection's .deb files, downloaded unless the cache has them. BuildError without network."""
    debs = cache_dir() / "debs"
    manifest = cache_dir() / f"manifest-{selection.digest}.json"
    if manifest.exists():
        known = [debs / name for name in json.loads(manifest.read_text())]
        if all(path.exists() for path in known):
            return known
    say(f"downloading Debian {SUITE} packages for {selection.architecture} into {cache_dir()}")
    debs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_dir()) as scratch:
        names = _download(selection, Path(scratch))
        for name in names:
            os.replace(Path(scratch) / name, debs / name)
    _write(manifest, json.dumps(names, indent=1))
    return [debs / name for name in names]


def _download(selection: Selection, target: Path) -> list[str]:
    apt = {"APT_CONFIG": str(_private_apt(selection.architecture))}
    run("apt-get", "update", "-q", env=apt)
    kernel = [] if selection.kernel is None else [_latest_kernel(selection.kernel, apt)]
    run("apt-get", "download", *kernel, *selection.packages, cwd=target, env=apt)
    return sorted(path.name for path in target.glob("*.deb"))


def _latest_kernel(pattern: str, apt: dict[str, str]) -> str:
    candidates = [
        (int(found[1]), name)
        for name in run("apt-cache", "pkgnames", "linux-image-", env=apt).split()
        if (found := re.fullmatch(pattern, name))
    ]
    if not candidates:
        raise BuildError(f"no package matches {pattern} in Debian {SUITE}")
    return max(candidates)[1]


def _mirror() -> str:
    """The Debian mirror that DEBIAN_MIRROR names, else the first one this machine's apt uses."""
    if named := os.environ.get("DEBIAN_MIRROR"):
        return named
    lists = [Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")]
    for source in lists:
        text = source.read_text() if source.exists() else ""
        if found := re.search(r"^(?:URIs:|deb\b.*?)\s*(https?://\S+)", text, re.MULTILINE):
            return found[1]
    raise BuildError("apt knows no Debian mirror on this machine; name one in DEBIAN_MIRROR")


def _private_apt(architecture: str) -> Path:
    root = cache_dir() / f"apt-{architecture}"
    for directory in ("lists/partial", "cache/archives/partial", "none"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    _write(root / "sources.list", f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n")
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
        "Dir::State": str(root),
        "Dir::State::lists": str(root / "lists"),
        "Dir::State::status": str(root / "status"),
        "Dir::Cache": str(root / "cache"),
        "Dir::Etc::parts": str(root / "none"),
        "Dir::Etc::sourcelist": str(root / "sources.list"),
        "Dir::Etc::sourceparts": str(root / "none"),
        "Dir::Etc::preferencesparts": str(root / "none"),
    }
    config = root / "apt.conf"
    _write(config, "".join(f'{key} "{value}";\n' for key, value in settings.items()))
    return config


def extract(deb: Path, wanted: re.Pattern[str]) -> Path:
    """A directory with the package's files and links whose path (`usr/bin/x`) matches `wanted`."""
    key = hashlib.sha256(wanted.pattern.encode()).hexdigest()[:12]
    target = cache_dir() / "extracted" / f"{deb.stem}-{key}"
    if target.exists():
        return target
    if deb.stat().st_size > 10_000_000:
        say(f"unpacking {deb.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        _unpack(deb, wanted, tree)
        try:
            tree.rename(target)
        except OSError:
            if not target.exists():  # otherwise another build was faster with the same content
                raise
    return target


def _unpack(deb: Path, wanted: re.Pattern[str], tree: Path) -> None:
    with (
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE
        ) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = member.name.removeprefix("./")
            if not wanted.fullmatch(name) or not (member.isfile() or member.issym()):
                continue
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                path.symlink_to(member.linkname)
                continue
            source = archive.extractfile(member)
            assert source is not None
            with path.open("wb") as out:
                shutil.copyfileobj(source, out)
    if process.returncode != 0:
        raise BuildError(f"dpkg-deb could not read {deb}; delete it and try again")


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a build that is killed leaves no half of it."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(text)
    os.replace(scratch, path)
