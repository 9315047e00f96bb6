"""What libvirt's test driver does not have of a QEMU: devices that come and go, and files that are open already."""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from xml.etree import ElementTree as ET

import libvirt
import libvirt_qemu  # type: ignore[import-untyped]
import pytest

REAL_XML = libvirt.virDomain.XMLDesc
REAL_REGISTER = libvirt.virConnect.domainEventRegisterAny


def _open_gate() -> threading.Event:
    gate = threading.Event()
    gate.set()
    return gate


@dataclass
class Qemu:
    """A machine's devices beside those that it was started with. A SCSI disk goes when it is asked to; others wait for the guest."""

    devices: list[ET.Element] = field(default_factory=list)
    media: dict[str, ET.Element] = field(default_factory=dict)  # drives that were changed, by alias
    changed: dict[str, ET.Element] = field(default_factory=dict)  # interfaces, likewise
    gone: set[str] = field(default_factory=set)  # aliases of what the machine was started with
    groups: dict[str, int] = field(default_factory=dict)  # files that libvirt has open
    sets: dict[int, int] = field(default_factory=dict)  # files that QEMU has open
    sizes: dict[str, int] = field(default_factory=dict)
    flags: list[int] = field(default_factory=list)  # of the files that were used
    threads: list[int] = field(default_factory=list)  # for I/O, that were added
    asked: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # words that the next attachments end with
    is_stubborn: bool = False
    gate: threading.Event = field(default_factory=_open_gate)  # what attaching a device waits for
    has_waited: threading.Event = field(default_factory=threading.Event)  # for such a job
    removed: list[Callable[[], None]] = field(default_factory=list)

    def let_go(self, alias: str) -> None:
        """The guest does so."""
        self.devices = [each for each in self.devices if alias_of(each) != alias]
        self.gone.add(alias)
        for tell in self.removed:
            tell()

    def attach(self, description: str, flags: int) -> int:
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        device = ET.fromstring(description)
        if self.failures and device.tag in ("disk", "interface"):
            raise failure(self.failures.pop())
        if device.tag in ("disk", "interface"):
            assert self.gate.wait(10)
        if device.tag == "disk":
            self._use(device)
        self.gone.discard(alias_of(device))
        self.devices.append(device)
        return 0

    def update(self, description: str, flags: int) -> int:
        drive = ET.fromstring(description)
        if drive.tag == "interface":
            assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
            if self.failures:
                raise failure(self.failures.pop())
            self.changed[alias_of(drive)] = drive
            return 0
        force = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
        is_empty = drive.find("source") is None
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE | (force if is_empty else 0)
        if not is_empty:
            self._use(drive)
        self.media[alias_of(drive)] = drive
        return 0

    def detach(self, alias: str, flags: int) -> int:
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        self.asked.append(alias)
        if not self.is_stubborn:
            self.let_go(alias)
        return 0

    def monitor(self, command: str, files: list[int]) -> tuple[str, list[object]]:
        request, answer = json.loads(command), {}
        match request["execute"]:
            case "add-fd":
                self.sets[request["arguments"]["fdset-id"]] = files[0]
            case "remove-fd":
                del self.sets[request["arguments"]["fdset-id"]]
            case "query-fdsets":
                answer = {"return": [{"fdset-id": number, "fds": []} for number in self.sets]}
        return json.dumps(answer), []

    def change_nothing(self, *_: object) -> int:
        """It takes a job of the domain, as attaching a disk does."""
        self.has_waited.set()
        assert self.gate.wait(10)
        return 0

    def add_thread(self, number: int, flags: int) -> int:
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        self.threads.append(number)
        return 0

    def describe(self, plain: str) -> str:
        root = ET.fromstring(plain)
        devices = root.find("devices")
        assert devices is not None
        changed = self.media | self.changed
        kept = [each for each in devices if not alias_of(each) or alias_of(each) not in self.gone]
        devices[:] = [changed.get(alias_of(each), each) for each in (*kept, *self.devices)]
        if self.threads:
            known = root.find("iothreads")
            known = known if known is not None else ET.SubElement(root, "iothreads")
            known.text = str(max(self.threads))
        return ET.tostring(root, encoding="unicode")

    def statistics(self) -> dict[str, object]:
        disks = [*self.devices, *self.media.values()]
        names = [each.find("target").get("dev", "") for each in disks if each.tag == "disk"]  # type: ignore[union-attr]
        found: dict[str, object] = {}
        for number, name in enumerate(names):
            found[f"block.{number}.name"] = name
            found[f"block.{number}.capacity"] = self.sizes.get(name, 0)
        return found

    def resize(self, target: str, size: int, flags: int) -> None:
        assert flags == libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        self.sizes[target] = size

    def _use(self, disk: ET.Element) -> None:
        source, target = disk.find("source"), disk.find("target")
        assert source is not None
        assert target is not None
        group = source.get("fdgroup")
        file = self.groups[group] if group is not None else self.sets[1000]
        self.flags.append(os.O_DIRECT & flags_of(file))
        self.sizes[target.get("dev", "")] = os.lseek(file, 0, os.SEEK_END)


def failure(words: str) -> libvirt.libvirtError:
    """What libvirt raises for most things that go wrong."""
    error = libvirt.libvirtError(words)
    error.err = (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_DOMAIN, words)
    return error


def alias_of(device: ET.Element) -> str:
    alias = device.find("alias")
    return alias.get("name", "") if alias is not None else ""


def flags_of(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_GETFL)


def open_here(path: str) -> int:
    """How many descriptors of this process are of that file."""
    count = 0
    for each in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{each}") == path
        except OSError:
            continue
    return count


@contextmanager
def qemu_in_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Qemu]:
    """Puts it into the test driver's domains."""
    it = Qemu()
    lock = threading.Lock()

    def associate(_domain: object, group: str, files: list[int], flags: int) -> None:
        assert flags == 0
        with lock:
            it.groups = {group: files[0]}

    def register(
        connection: object,
        domain: object,
        event: int,
        callback: Callable[..., None],
        opaque: object,
    ) -> int:
        if event == libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED:
            it.removed.append(lambda: callback(connection, domain, "", opaque))
        number: int = REAL_REGISTER(connection, domain, event, callback, opaque)
        return number

    patch = monkeypatch.setattr
    patch(libvirt.virDomain, "FDAssociate", associate)
    patch(libvirt.virDomain, "attachDeviceFlags", lambda _domain, *args: it.attach(*args))
    patch(libvirt.virDomain, "updateDeviceFlags", lambda _domain, *args: it.update(*args))
    patch(libvirt.virDomain, "detachDeviceAlias", lambda _domain, *args: it.detach(*args))
    patch(
        libvirt.virDomain, "XMLDesc", lambda domain, flags=0: it.describe(REAL_XML(domain, flags))
    )
    patch(libvirt.virDomain, "addIOThread", lambda _domain, *args: it.add_thread(*args))
    patch(libvirt.virDomain, "setMetadata", it.change_nothing)
    patch(libvirt.virDomain, "blockResize", lambda _domain, *args: it.resize(*args))
    patch(libvirt.virConnect, "domainListGetStats", lambda *_: [(None, it.statistics())])
    patch(libvirt.virConnect, "domainEventRegisterAny", register)
    patch(
        libvirt_qemu,
        "qemuMonitorCommandWithFiles",
        lambda _domain, command, files, _flags: it.monitor(command, files),
    )
    yield it
