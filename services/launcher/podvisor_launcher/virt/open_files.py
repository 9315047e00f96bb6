"""Open files on their way to QEMU.

libvirt keeps a file that was associated with a domain open until the client that did it hangs up. So each has a connection of its
own: who waits for a volume to be free must not wait for this process to end.

libvirt, as of 11.3, knows this of plain files only: of a device it reads no `fdgroup`, and QEMU takes no device for a file. But
QEMU takes the path of one of its sets of open files for a device, and lets anyone who may talk to it fill one.
"""

import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import libvirt

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file by the name that a description gives it. A device has the path of a set of open files instead, which exists."""

    descriptor: int
    group: str = ""
    fd_set: str = ""


def with_open_file(
    uri: str, name: str, file: OpenFile, action: Callable[[libvirt.virDomain], object]
) -> None:
    """Do something to a domain that makes QEMU open `file`. Raises libvirtError."""
    connection = libvirt.open(uri)
    try:
        domain = connection.lookupByName(name)
        if file.fd_set:
            _with_fd_set(domain, file, action)
        else:
            domain.FDAssociate(file.group, [file.descriptor], 0)
            action(domain)
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()


def remove_unused_sets(domain: libvirt.virDomain, directory: Path, used: Collection[int]) -> int:
    """Remove the sets of open files that have a path in `directory` and are not `used`; how many there were. A domain that
    never had one is not asked. Raises libvirtError."""
    ours = {int(path.name) for path in directory.glob("[0-9]*")} - set(used)
    if not ours:
        return 0
    known = {each["fdset-id"] for each in json.loads(_ask_qemu(domain, "query-fdsets"))["return"]}
    for number in ours & known:
        _ask_qemu(domain, "remove-fd", {"fdset-id": number})
    return len(ours & known)


def _with_fd_set(
    domain: libvirt.virDomain, file: OpenFile, action: Callable[[libvirt.virDomain], object]
) -> None:
    number = {"fdset-id": int(Path(file.fd_set).name)}
    _ask_qemu(domain, "add-fd", number, [file.descriptor])
    try:
        action(domain)
    finally:
        # QEMU has a copy of what it has opened, and keeps the set for that copy.
        _ask_qemu(domain, "remove-fd", number)


def _ask_qemu(
    domain: libvirt.virDomain,
    command: str,
    arguments: dict[str, int] | None = None,
    files: list[int] | None = None,
) -> str:
    import libvirt_qemu  # type: ignore[import-untyped]  # most launchers never need it

    request = json.dumps({"execute": command, "arguments": arguments or {}})
    answer, _ = libvirt_qemu.qemuMonitorCommandWithFiles(domain, request, files or [], 0)
    return str(answer)
