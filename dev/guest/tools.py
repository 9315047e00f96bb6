"""A disk with programs that tests of the network run in a guest: a tar archive where a file system would be.

The guest unpacks it (`tar -xf /dev/vdc -C /`) and has the programs on its PATH. They bring their loader and their libraries, so that
they run in every guest here, whatever it is made of.

Invariant: the same inputs give the same bytes.
"""

import io
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path

from . import elf, initramfs, packages
from .host import BuildError

# iperf3 measures; socat answers datagrams, which busybox's nc cannot; dhcp6c asks for an IPv6 address; qemu-ga tells of the guest.
PROGRAMS = ("iperf3", "socat", "dhcp6c", "qemu-ga")
SELECTION = packages.Selection(
    "i386",
    None,
    ("iperf3", "libiperf0", "libsctp1", "socat", "libssl3", "libwrap0", "libnsl2", "libtirpc3", "libgssapi-krb5-2", "libkrb5-3",
     "libk5crypto3", "libkrb5support0", "libcom-err2", "libkeyutils1", "wide-dhcpv6-client", "libfl2",
     "qemu-guest-agent", "libglib2.0-0", "libpcre2-8-0", "libnuma1", "libudev1", "liburing2", "libc6"),
)  # fmt: skip
_FILES = re.compile(
    rf"usr/s?bin/({'|'.join(PROGRAMS)})|(usr/)?lib(32|64)?/(.*/)?[^/]*\.so[^/]*",
)
_WHERE = "opt/tools"
_WHOLE_BYTES = 1 << 20  # what a disk's size is a multiple of


def archive(debs: Sequence[Path]) -> bytes:
    """The disk, made of the packages of SELECTION."""
    trees = [packages.extract(deb, _FILES) for deb in debs]
    files: dict[str, bytes] = {}
    for name in PROGRAMS:
        image = _program(name, trees)
        loader = elf.interpreter(image)
        if loader is None:
            raise BuildError(f"{name} has no loader, which its start script names")
        files[f"{_WHERE}/bin/{name}"] = image
        files[f"usr/bin/{name}"] = _start_script(name, Path(loader).name)
        for library, content in initramfs.libraries_of(name, image, trees).items():
            files[f"{_WHERE}/lib/{library}"] = content
    return pack(files)


def _program(name: str, trees: Sequence[Path]) -> bytes:
    for tree in trees:
        for path in tree.glob(f"usr/*bin/{name}"):
            return path.read_bytes()
    raise BuildError(f"{name} is in none of the packages")


def _start_script(name: str, loader: str) -> bytes:
    lib = f"/{_WHERE}/lib"
    return (
        f'#!/bin/sh\nexec {lib}/{loader} --library-path {lib} /{_WHERE}/bin/{name} "$@"\n'.encode()
    )


def pack(files: dict[str, bytes]) -> bytes:
    """A disk with these executable files, by their path from the root."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue() + bytes(-out.tell() % _WHOLE_BYTES)
