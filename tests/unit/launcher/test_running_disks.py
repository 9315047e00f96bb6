"""The disks of a guest that runs already when its launcher comes: they grow, and stop it."""

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import ConsolePaths, Image, ResolvedDisk, build_domain
from podvisor_launcher.domain.xml import format_xml
from podvisor_launcher.lifecycle import growth as growth_module
from podvisor_launcher.lifecycle.io_errors import worst_of
from podvisor_launcher.lifecycle.record import Record, Start, load_record, save_record
from podvisor_launcher.lifecycle.situation import DiskTrouble
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage import room

from tests.unit.launcher.conftest import TEST_DRIVER
from tests.unit.launcher.launched import launcher, outside
from tests.unit.launcher.specs import spec, volume_disk

CONSOLES = ConsolePaths("/serial.sock", "/vnc.sock", "/serial.log", "/agent.sock")
MIB = 1 << 20


@dataclass
class Qemu:
    """What the test driver does not have of a QEMU: disks with a size, and with errors."""

    capacities: dict[str, int] = field(default_factory=dict)
    resized: list[tuple[str, int]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)  # codes that the next resizes end with
    errors: dict[str, int] = field(default_factory=dict)
    has_resized: threading.Event = field(default_factory=threading.Event)

    def statistics(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for number, (name, size) in enumerate(self.capacities.items()):
            found[f"block.{number}.name"], found[f"block.{number}.capacity"] = name, size
        return found

    def resize(self, target: str, size: int, flags: int) -> None:
        assert flags == libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
        self.resized.append((target, size))
        if self.failures:
            raise libvirt.libvirtError(f"code {self.failures.pop()}")
        self.capacities[target] = size
        self.has_resized.set()

    def state(self, domain: libvirt.virDomain) -> list[int]:
        """A guest that is paused is so by an error of a disk."""
        state, reason = domain.info()[0], 0
        if state == libvirt.VIR_DOMAIN_PAUSED and self.errors:
            reason = libvirt.VIR_DOMAIN_PAUSED_IOERROR
        return [state, reason]


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Qemu:
    it = Qemu()
    patch = monkeypatch.setattr
    patch(libvirt.virDomain, "blockResize", lambda _domain, *args: it.resize(*args))
    patch(libvirt.virDomain, "diskErrors", lambda _domain: it.errors)
    patch(libvirt.virConnect, "domainListGetStats", lambda *_: [(None, it.statistics())])
    patch(libvirt.virDomain, "state", lambda domain: it.state(domain))
    return it


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"boot")
    os.truncate(path, MIB)
    return path


@pytest.fixture
def running(settings: Settings, name: str, image: Path, qemu: Qemu) -> Iterator[pb.DomainSpec]:
    """A guest that an earlier launcher of the pod has started."""
    source = pb.VolumeDiskSource(path=str(image.parent), file=image.name, capacity_bytes=MIB)
    machine = spec(name=name, disks=[volume_disk(volume=source)])
    disks = {"data": ResolvedDisk(Image(str(image), "raw"))}
    keeper = libvirt.open(TEST_DRIVER)
    keeper.defineXML(format_xml(build_domain(machine, disks, CONSOLES))).create()
    (settings.spec).write_bytes(machine.SerializeToString())
    save_record(settings.record, Record(start=Start.DONE, generation=1))
    qemu.capacities["vda"] = MIB
    yield machine
    keeper.close()


def grown(machine: pb.DomainSpec, capacity_bytes: int) -> pb.DomainSpec:
    wanted = pb.DomainSpec()
    wanted.CopyFrom(machine)
    wanted.generation += 1
    wanted.disks[0].volume.capacity_bytes = capacity_bytes
    return wanted


def capacity(report: pb.DomainReport) -> int:
    return report.disks[0].capacity_bytes if report.disks else 0


def assert_grown(image: Path, size_bytes: int) -> None:
    assert image.stat().st_size == size_bytes
    assert image.read_bytes()[:4] == b"boot"


async def test_a_disk_grows_with_its_volume(
    settings: Settings, running: pb.DomainSpec, image: Path, qemu: Qemu
) -> None:
    async with launcher(settings) as it:
        await it.until(lambda report: capacity(report) == MIB)
        assert (await it.machine.apply(grown(running, 3 * MIB))).restart_required == ()
        report = await it.until(lambda report: capacity(report) == 3 * MIB)
        assert (report.state, report.applied_generation) == (pb.DOMAIN_STATE_RUNNING, 2)
        # Nothing shrinks.
        await it.machine.apply(grown(grown(running, 0), 2 * MIB))
        await it.until(lambda report: report.applied_generation == 3)
    assert qemu.resized[-1] == ("vda", 3 * MIB)
    assert_grown(image, 3 * MIB)


async def test_a_disk_that_grew_while_nobody_told_its_guest_is_told_of(
    settings: Settings, running: pb.DomainSpec, image: Path, qemu: Qemu
) -> None:
    """The launcher ended between the two steps."""
    os.truncate(image, 3 * MIB)
    settings.spec.write_bytes(grown(running, 3 * MIB).SerializeToString())
    async with launcher(settings) as it:
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        assert await asyncio.to_thread(qemu.has_resized.wait, 10)
    assert qemu.capacities == {"vda": 3 * MIB}


async def test_a_disk_that_could_not_grow_is_tried_again(
    settings: Settings,
    running: pb.DomainSpec,
    qemu: Qemu,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(growth_module, "_RETRY_MS", 10)
    async with launcher(settings) as it:
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        assert await asyncio.to_thread(qemu.has_resized.wait, 10)
        qemu.failures = [1, 1]
        await it.machine.apply(grown(running, 3 * MIB))
        await it.until(lambda report: capacity(report) == 3 * MIB)
    assert qemu.resized[1:] == [("vda", 3 * MIB)] * 3


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE, 'Volume "data" has no space left'),
        (libvirt.VIR_DOMAIN_DISK_ERROR_UNSPEC, 'Volume "data" returned an I/O error'),
    ],
)
async def test_a_guest_goes_on_when_its_disk_can(
    settings: Settings, running: pb.DomainSpec, qemu: Qemu, error: int, words: str
) -> None:
    qemu.errors = {"vda": error}
    async with launcher(settings) as it:
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        outside(running.name, "suspend")
        paused = await it.until_state(pb.DOMAIN_STATE_PAUSED)
        assert paused.reason == pb.DOMAIN_REASON_IO_ERROR
        assert paused.message.startswith(words)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)


async def test_a_guest_stays_where_it_is_while_its_volume_is_full(
    settings: Settings, running: pb.DomainSpec, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever room there is where overlays are."""
    qemu.errors = {"vda": libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE}
    monkeypatch.setattr(room, "_ENOUGH_OF_VOLUME_BYTES", 1 << 62)
    async with launcher(settings) as it:
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        outside(running.name, "suspend")
        await it.until_state(pb.DOMAIN_STATE_PAUSED)
        monkeypatch.setattr(room, "_ENOUGH_OF_VOLUME_BYTES", 1)
        it.machine.look_again()
        await it.until_state(pb.DOMAIN_STATE_RUNNING)


FULL = DiskTrouble("full", no_space=True, has_room=False)
FULL_BEFORE = DiskTrouble("was full", no_space=True, has_room=True)
BROKEN = DiskTrouble("broken", no_space=False, has_room=True)


@pytest.mark.parametrize(
    ("troubles", "worst"),
    [
        ([BROKEN], BROKEN),
        ([BROKEN, FULL_BEFORE], FULL_BEFORE),
        ([BROKEN, FULL_BEFORE, FULL], FULL),
    ],
)
def test_what_has_to_pass_first_is_told(troubles: list[DiskTrouble], worst: DiskTrouble) -> None:
    assert worst_of(troubles) == worst


@pytest.fixture
def hung(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The file system of a volume called "data" is gone until this is set."""
    server = threading.Event()
    open_for_real = os.open

    def open_or_wait(path: str, *args: int, **kwargs: int) -> int:
        if threading.current_thread().name in ("volume data", "volume"):
            server.wait(20)
        return open_for_real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_or_wait)
    yield server
    server.set()


@pytest.fixture
def two_grown(settings: Settings, running: pb.DomainSpec, qemu: Qemu, image: Path) -> pb.DomainSpec:
    """The guest has a second disk, called "other", and the volumes of both have grown."""
    other = image.with_name("other.img")
    other.write_bytes(bytes(MIB))
    source = pb.VolumeDiskSource(path=str(image.parent), file=other.name, capacity_bytes=2 * MIB)
    wanted = grown(running, 3 * MIB)
    wanted.disks.append(volume_disk("other", volume=source))
    files = {"data": image, "other": other}
    disks = {name: ResolvedDisk(Image(str(path), "raw")) for name, path in files.items()}
    connection = libvirt.open(TEST_DRIVER)
    connection.lookupByName(f"default_{running.name}").destroy()
    connection.defineXML(format_xml(build_domain(wanted, disks, CONSOLES))).create()
    settings.spec.write_bytes(wanted.SerializeToString())
    qemu.capacities["vdb"] = MIB
    return wanted


def other_has_grown(report: pb.DomainReport) -> bool:
    return any(disk.name == "other" and disk.capacity_bytes > MIB for disk in report.disks)


@pytest.mark.usefixtures("two_grown", "hung")
async def test_a_volume_that_hangs_holds_up_nothing_else(settings: Settings, qemu: Qemu) -> None:
    """Neither the state of the machine, nor its stop, nor its other disks."""
    async with launcher(settings) as it:
        await it.until(other_has_grown)
        await it.machine.shutdown(grace_period_s=0)
        await it.exit_code()
    assert load_record(settings.record).end is not None
    assert qemu.resized == [("vdb", 2 * MIB)]


@pytest.mark.usefixtures("two_grown")
async def test_a_disk_that_cannot_grow_holds_up_no_other(settings: Settings, image: Path) -> None:
    os.unlink(image)
    async with launcher(settings) as it:
        await it.until(other_has_grown)


async def test_a_machine_whose_volume_hangs_before_its_start_can_be_ended(
    settings: Settings, name: str, image: Path, hung: threading.Event
) -> None:
    source = pb.VolumeDiskSource(path=str(image.parent), file=image.name, capacity_bytes=MIB)
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name, disks=[volume_disk("data", volume=source)]))
        await it.until_state(pb.DOMAIN_STATE_PREPARING)
        await it.machine.shutdown(grace_period_s=30)
        ended = await it.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason == pb.DOMAIN_REASON_NEVER_STARTED
