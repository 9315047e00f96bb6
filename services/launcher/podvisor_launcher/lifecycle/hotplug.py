"""Disks and media that come and go: volumes that are handed over, looked at, and given to the guest; and taken from it.

Invariants: nothing of it is remembered beyond this process: what the guest has, libvirt knows, and what was on its way is asked for
again. A file is open here only from its being handed over to its being attached, and never while it is said that it is not. Files
are looked at beside the machine's loop, which waits for no file system.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain import hotplug as domain_hotplug
from podvisor_launcher.domain.disks import ALIAS_PREFIX, ResolvedDisk, comes_and_goes
from podvisor_launcher.domain.elements import Domain
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.xml import format_xml, parse_xml
from podvisor_launcher.lifecycle.hardware import Hardware
from podvisor_launcher.lifecycle.hotplug_plan import (
    Attached,
    Change,
    DiskChange,
    Disks,
    Requests,
    asked_again,
    attachments,
    next_change,
)
from podvisor_launcher.lifecycle.in_use import is_about_use
from podvisor_launcher.storage.errors import DiskUnavailable
from podvisor_launcher.storage.handed_over import OpenVolume, prepare_handed_over, set_direct
from podvisor_launcher.storage.open_elsewhere import identity_of
from podvisor_launcher.storage.resolve import is_only_read
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainMissing, LibvirtFailed
from podvisor_launcher.virt.open_files import OpenFile

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    """A volume that is open here."""

    disk: pb.DiskSpec  # as it was when the volume came
    work: asyncio.Task[None]
    ready: OpenVolume | None = None


class HotPlug:
    """`on_change` is called when a volume is ready, or turns out not to be one. Times are milliseconds of CLOCK_BOOTTIME."""

    def __init__(self, libvirt: LibvirtConnection, on_change: Callable[[], None]) -> None:
        self._libvirt = libvirt
        self._on_change = on_change
        self._held: dict[str, _Held] = {}
        self._requests: dict[str, Requests] = {}
        self._problems: dict[str, str] = {}

    def take(
        self,
        spec: pb.DomainSpec,
        hardware: Hardware,
        name: str,
        capacity_bytes: int,
        descriptor: int,
    ) -> str:
        """A volume was handed over, and `descriptor` with it. Why not, if it is not taken; the same volume once more is
        taken, and nothing comes of it."""
        disk = next((disk for disk in spec.disks if disk.name == name), None)
        if (
            disk is None
            or name not in _wanted(spec)
            or self._disks(spec, hardware).leaving & {name}
        ):
            os.close(descriptor)
            return "The machine does not wait for this volume."
        if name in self._held or name in _present(hardware):
            os.close(descriptor)
            return ""
        wanted = pb.DiskSpec()
        wanted.CopyFrom(disk)
        wanted.volume.capacity_bytes = capacity_bytes or disk.volume.capacity_bytes
        work = asyncio.create_task(self._look(wanted, descriptor), name=f"volume {name}")
        self._held[name] = _Held(disk, work)
        return ""

    def pending(self, spec: pb.DomainSpec | None, hardware: Hardware) -> DiskChange | None:
        """What is next for a guest that runs."""
        if spec is None:
            return None
        self._forget(spec, hardware)
        return next_change(self._disks(spec, hardware))

    def attachments(self, spec: pb.DomainSpec | None, hardware: Hardware) -> tuple[Attached, ...]:
        """What is to be said of the disks and media."""
        return attachments(self._disks(spec, hardware)) if spec is not None else ()

    async def carry_out(self, domain: str, change: DiskChange, now_ms: int) -> None:
        """Do it. What goes wrong is told of the disk, and tried again. Raises LibvirtUnreachable."""
        name = change.disk
        try:
            live = parse_xml(Domain, await self._libvirt.domain_xml(domain))
            if change.change is Change.PLUG:
                await self._plug(domain, live, self._held[name], now_ms)
            else:
                self._requests[name] = asked_again(self._requests.get(name), now_ms)
                await self._unplug(domain, live, name)
        except (DiskUnavailable, UnbuildableSpec, LibvirtFailed, DomainMissing, OSError) as error:
            words = (
                error.strerror or "it cannot be read" if isinstance(error, OSError) else str(error)
            )
            self._fail(name, words)
            if change.change is Change.PLUG:
                self._let_go(name)
            return
        self._problems.pop(name, None)
        _log.info("a disk was changed", volume=name, change=change.change.value)
        if change.change is Change.PLUG:
            self._let_go(name)

    async def _look(self, disk: pb.DiskSpec, descriptor: int) -> None:
        """Make the volume ready. The descriptor is closed unless that is what was made ready."""
        volume = None
        try:
            volume = await prepare_handed_over(disk, descriptor)
        except DiskUnavailable as error:
            self._fail(disk.name, str(error))
        finally:
            if volume is None or volume.descriptor != descriptor:
                os.close(descriptor)
            if volume is None:
                del self._held[disk.name]
            else:
                self._held[disk.name].ready = volume
            self._on_change()

    async def _plug(self, domain: str, live: Domain, held: _Held, now_ms: int) -> None:
        volume, disk = held.ready, held.disk
        assert volume is not None
        if volume.is_block:
            image = domain_hotplug.device_of(live)
            file = OpenFile(volume.descriptor, fd_set=image.path)
            await asyncio.to_thread(_touch, image.path)
        else:
            group = f"{disk.name}-{now_ms}{identity_of(volume.descriptor)}"
            image = domain_hotplug.file_of(disk.name, volume.format, group)
            file = OpenFile(volume.descriptor, group=group)
        drive = domain_hotplug.disk_named(live, disk.name)
        if not comes_and_goes(disk):
            if drive is None:
                raise UnbuildableSpec("its drive comes with the next start of the machine")
            description = domain_hotplug.with_medium(drive, image)
        else:
            resolved = ResolvedDisk(
                image,
                read_only=is_only_read(disk),
                direct=volume.direct,
                logical_block_bytes=volume.logical_block_bytes,
                physical_block_bytes=volume.physical_block_bytes,
            )
            thread = domain_hotplug.io_thread_for(disk, live)
            description = domain_hotplug.build_plugged(disk, resolved, live, thread)
            if thread is not None and not domain_hotplug.has_io_thread(thread, live):
                await self._libvirt.add_io_thread(domain, thread)
            controller = domain_hotplug.missing_controller(disk, live)
            if controller is not None:
                await self._libvirt.attach(domain, format_xml(controller))
        driver = description.driver
        set_direct(volume.descriptor, direct=driver is not None and driver.cache == "none")
        if drive is None:
            await self._libvirt.attach(domain, format_xml(description), file)
        else:
            await self._libvirt.change_medium(domain, format_xml(description), file)

    async def _unplug(self, domain: str, live: Domain, name: str) -> None:
        disk = domain_hotplug.disk_named(live, name)
        if disk is None:
            return
        if disk.device == "cdrom":
            await self._libvirt.change_medium(
                domain, format_xml(domain_hotplug.with_medium(disk, None))
            )
        else:
            await self._libvirt.ask_to_let_go(domain, ALIAS_PREFIX + name)

    def _disks(self, spec: pb.DomainSpec, hardware: Hardware) -> Disks:
        return Disks(
            wanted=_wanted(spec),
            present=_present(hardware),
            held={name: held.ready is not None for name, held in self._held.items()},
            requests=self._requests,
            problems=self._problems,
        )

    def _forget(self, spec: pb.DomainSpec, hardware: Hardware) -> None:
        """What is over."""
        wanted, present = _wanted(spec), _present(hardware)
        for name in [name for name in self._requests if name not in present]:
            del self._requests[name]
            self._problems.pop(name, None)
            _log.info("the guest has let go of a disk", volume=name)
        for name in [name for name in self._problems if name not in (*wanted, *present)]:
            del self._problems[name]
        for name, held in list(self._held.items()):
            is_over = name not in wanted or name in present
            if is_over and held.ready is not None:  # else its file system is waited for
                self._let_go(name)

    def _let_go(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None and held.ready is not None:
            os.close(held.ready.descriptor)

    def _fail(self, name: str, words: str) -> None:
        words = words.removeprefix(f'disk "{name}": ')
        if is_about_use(words):
            words = "it is in use by another machine"
        message = words if words.startswith("Volume ") else f'Volume "{name}": {words.rstrip(".")}.'
        if self._problems.get(name) != message:
            _log.warning("a disk was not changed", volume=name, message=message)
        self._problems[name] = message


def _wanted(spec: pb.DomainSpec) -> tuple[str, ...]:
    return tuple(d.name for d in spec.disks if d.volume.handed_over)


def _present(hardware: Hardware) -> tuple[str, ...]:
    return tuple(disk.name for disk in hardware.disks if disk.is_handed_over)


def _touch(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DiskUnavailable(
            f"a block device cannot be given to a running guest: {path}: {error.strerror}"
        ) from error
