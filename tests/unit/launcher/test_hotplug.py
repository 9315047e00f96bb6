"""Volumes that come to a running guest and go: from the socket to the disk, and back."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain import hotplug as domain_hotplug
from podvisor_launcher.lifecycle import hotplug_plan
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.volume import FORMAT_ATTRIBUTE
from podvisor_launcher.virt import connection

from tests.unit.launcher.handing_over import (
    ATTACHED,
    AWAITED,
    MIB,
    drive,
    hand_over,
    plugged,
    reported,
    running,
    until,
    until_gone,
)
from tests.unit.launcher.launched import Launcher, launcher
from tests.unit.launcher.native import eventually
from tests.unit.launcher.plugging import Qemu, alias_of, open_here, qemu_in_place
from tests.unit.launcher.specs import spec

DETACHING = pb.DISK_ATTACHMENT_DETACHING
LABEL = "/run/podvisor/handed-over"


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Qemu]:
    with qemu_in_place(monkeypatch) as it:
        yield it


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "disk.img").touch()
    return tmp_path / "disk.img"


async def test_a_volume_comes_and_goes(
    settings: Settings, name: str, qemu: Qemu, image: Path
) -> None:
    async with running(settings, plugged(serial="S1"), name=name) as it:
        await until(it, AWAITED)
        assert (await hand_over(settings, os.open(image, os.O_RDWR))).taken
        found = await until(it, ATTACHED)
        assert (found.target, found.capacity_bytes) == ("sda", MIB)
        assert os.getxattr(image, FORMAT_ATTRIBUTE) == b"raw"
        assert open_here(str(image)) == 0
        [disk] = [each for each in qemu.devices if each.tag == "disk"]
        assert disk.findtext("serial") == "S1"
        applied = await it.machine.apply(spec(name=name, generation=2))
        assert applied.restart_required == ()
        await until_gone(it)
        assert (await it.until(lambda report: report.applied_generation == 2)).disks == []
    assert qemu.asked == ["ua-data"]


async def test_a_volume_that_may_still_come_is_not_said_to_be_gone(
    settings: Settings, name: str, qemu: Qemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attachment that takes too long goes on without us. Until it is over, that there is no such disk proves nothing."""
    monkeypatch.setattr(connection, "_CHANGE_TIMEOUT_S", 0.2)
    qemu.gate.clear()
    async with running(settings, plugged(), name=name) as it:
        await until(it, AWAITED)
        assert (await it.until(lambda report: report.devices_settled)).devices_settled
        assert (await hand_over(settings, os.open(image, os.O_RDWR))).taken
        await it.until(lambda report: not report.devices_settled)
        await it.machine.apply(spec(name=name, generation=2))
        gone = await it.until(lambda report: report.accepted_generation == 2 and not report.disks)
        assert not gone.devices_settled
        qemu.gate.set()
        await it.until(lambda _: qemu.asked == ["ua-data"])
        assert (await it.until(lambda report: report.devices_settled)).disks == []


async def test_the_controller_comes_with_the_first_disk(
    settings: Settings, name: str, qemu: Qemu, tmp_path: Path
) -> None:
    async with running(settings, name=name) as it:
        await it.machine.apply(spec(name=name, generation=2, disks=[plugged("a"), plugged("b")]))
        for disk in ("a", "b"):
            await until(it, AWAITED, disk)
            file = os.open(tmp_path / disk, os.O_RDWR | os.O_CREAT)
            assert (await hand_over(settings, file, disk=disk)).taken
            await until(it, ATTACHED, disk)
    assert [each.tag for each in qemu.devices] == ["controller", "disk", "disk"]
    units = [each.find("address").get("unit") for each in qemu.devices[1:]]  # type: ignore[union-attr]
    assert units == ["0", "1"]


async def test_a_medium_comes_and_goes(
    settings: Settings, name: str, qemu: Qemu, image: Path
) -> None:
    os.truncate(image, 2 * MIB)
    async with running(settings, drive(with_volume=False), name=name) as it:
        wanted = spec(name=name, generation=2, disks=[drive(with_volume=True)])
        assert (await it.machine.apply(wanted)).restart_required == ()
        await until(it, AWAITED, "cd")
        # For a drive whose manifest says that it can be written to.
        assert (await hand_over(settings, os.open(image, os.O_RDWR), disk="cd")).taken
        found = await until(it, ATTACHED, "cd")
        assert (found.target, found.capacity_bytes) == ("sda", 2 * MIB)
        source = qemu.media["ua-cd"].find("source")
        assert source is not None
        assert source.get("file") == f"{LABEL}/cd"
        await it.machine.apply(spec(name=name, generation=3, disks=[drive(with_volume=False)]))
        await until(it, pb.DISK_ATTACHMENT_UNSPECIFIED, "cd")
        assert qemu.media["ua-cd"].find("source") is None


async def test_what_is_plugged_is_known_to_the_next_launcher(
    settings: Settings, name: str, qemu: Qemu, image: Path
) -> None:
    async with running(settings, plugged(), name=name) as it:
        await until(it, AWAITED)
        await hand_over(settings, os.open(image, os.O_RDWR))
        await until(it, ATTACHED)
    async with launcher(settings) as it:
        assert (await until(it, ATTACHED)).capacity_bytes == MIB
        await it.machine.apply(spec(name=name, generation=2))
        await until_gone(it)


async def test_the_next_launcher_waits_for_what_a_killed_one_has_begun(
    settings: Settings, name: str, qemu: Qemu, image: Path
) -> None:
    """libvirt goes on with an attachment whose client is gone, and tells of the disk only then."""
    async with running(settings, plugged(), name=name) as it:
        await until(it, AWAITED)
        await it.until(lambda report: report.devices_settled)
    qemu.gate.clear()
    qemu.has_waited.clear()
    async with launcher(settings) as it:
        assert await asyncio.to_thread(qemu.has_waited.wait, 10)
        report = await it.until_state(pb.DOMAIN_STATE_RUNNING)
        assert not report.devices_settled
        assert it.machine.take_volume("data", MIB, os.open(image, os.O_RDWR)) == ""
        source, target = f"<source file='{LABEL}/data'/>", "<target dev='sda' bus='scsi'/>"
        disk = f"<disk type='file'>{source}{target}<alias name='ua-data'/></disk>"
        qemu.devices.append(ET.fromstring(disk))
        qemu.gate.set()
        report = await it.until(lambda report: report.devices_settled)
        assert reported(report, "data").attachment == ATTACHED
        # The guest may have its disk before the launcher has done looking at what it does not need.
        await asyncio.to_thread(eventually, lambda: open_here(str(image)) == 0)
    assert [alias_of(each) for each in qemu.devices if each.tag == "disk"] == ["ua-data"]


async def test_a_disk_has_an_io_thread_of_its_own(
    settings: Settings, name: str, qemu: Qemu, tmp_path: Path
) -> None:
    """One that is left over of a disk that has gone, or another."""

    def on_virtio(name: str) -> pb.DiskSpec:
        return plugged(name, bus=pb.DISK_BUS_VIRTIO, dedicated_io_thread=True)

    async def plug(it: Launcher, disk: str) -> None:
        await until(it, AWAITED, disk)
        file = os.open(tmp_path / disk, os.O_RDWR | os.O_CREAT)
        assert (await hand_over(settings, file, disk=disk)).taken
        await until(it, ATTACHED, disk)

    async with running(settings, on_virtio("a"), on_virtio("b"), name=name) as it:
        await plug(it, "a")
        await plug(it, "b")
        assert qemu.threads == [1, 2]
        await it.machine.apply(spec(name=name, generation=2, disks=[on_virtio("b")]))
        await until_gone(it, "a")
        third = [on_virtio("b"), on_virtio("c")]
        await it.machine.apply(spec(name=name, generation=3, disks=third))
        await plug(it, "c")
    threads = {alias_of(disk): disk.find("driver").get("iothread") for disk in qemu.devices}  # type: ignore[union-attr]
    assert threads == {"ua-b": "2", "ua-c": "1"}
    assert qemu.threads == [1, 2]


async def test_what_qemu_has_open_for_no_disk_is_closed(
    settings: Settings,
    name: str,
    qemu: Qemu,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A launcher was killed between giving QEMU a device and giving its guest the disk."""
    sets = tmp_path / "fdset"
    sets.mkdir()
    for number in (1000, 1001):
        (sets / str(number)).touch()
    monkeypatch.setattr(connection, "FD_SETS_DIRECTORY", str(sets))
    monkeypatch.setattr(domain_hotplug, "FD_SETS_DIRECTORY", str(sets))
    async with running(settings, name=name):
        pass
    source, target = f"<source dev='{sets}/1001'/>", "<target dev='sda' bus='scsi'/>"
    disk = f"<disk type='block'>{source}{target}<alias name='ua-other'/></disk>"
    qemu.devices.append(ET.fromstring(disk))
    qemu.sets = {0: 10, 1000: 11, 1001: 12}
    async with launcher(settings) as it:
        await it.until(lambda _: 1000 not in qemu.sets)
    assert qemu.sets == {0: 10, 1001: 12}


@pytest.fixture
def opened_elsewhere(image: Path) -> Iterator[None]:
    """Another process of this user, as QEMU is one, has the image open."""
    with image.open("r+b") as file:
        holder = subprocess.Popen(["sleep", "60"], stdin=file)
    yield
    holder.kill()
    holder.wait()


@pytest.mark.usefixtures("opened_elsewhere")
@pytest.mark.parametrize("by_the_next_launcher", [False, True])
async def test_what_is_plugged_grows_with_its_volume(
    by_the_next_launcher: bool, settings: Settings, name: str, qemu: Qemu, image: Path
) -> None:
    larger = plugged()
    larger.volume.capacity_bytes = 3 * MIB

    def has_grown(report: pb.DomainReport) -> bool:
        return bool(reported(report, "data").capacity_bytes == 3 * MIB)

    async with running(settings, plugged(), name=name) as it:
        await until(it, AWAITED)
        await hand_over(settings, os.open(image, os.O_RDWR))
        await until(it, ATTACHED)
        os.rename(image, image.with_name("nobody-knows"))
        applied = await it.machine.apply(spec(name=name, generation=2, disks=[larger]))
        assert applied.restart_required == ()
        if not by_the_next_launcher:
            await it.until(has_grown)
    async with launcher(settings) as it:
        await it.until(has_grown)
    assert os.stat(image.with_name("nobody-knows")).st_size == 3 * MIB


async def test_a_guest_that_does_not_let_go_is_asked_again(
    settings: Settings, name: str, qemu: Qemu, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hotplug_plan, "_RETRY_MS", 1)
    monkeypatch.setattr(hotplug_plan, "_RETRY_MAX_MS", 5)
    qemu.is_stubborn = True
    async with running(settings, plugged(), name=name) as it:
        await until(it, AWAITED)
        await hand_over(settings, os.open(image, os.O_RDWR))
        await until(it, ATTACHED)
        await it.machine.apply(spec(name=name, generation=2))
        await it.until(lambda report: "does not let go" in reported(report, "data").message)
        # Wanted again, it goes first: nobody can take the request back.
        await it.machine.apply(spec(name=name, generation=3, disks=[plugged()]))
        assert not (await hand_over(settings, os.open(image, os.O_RDWR))).taken
        await until(it, DETACHING)
        qemu.let_go("ua-data")
        await until(it, AWAITED)
    assert len(qemu.asked) > 3


async def test_a_disk_that_the_guest_throws_out_is_awaited(
    settings: Settings, name: str, qemu: Qemu, image: Path
) -> None:
    async with running(settings, plugged(), name=name) as it:
        await until(it, AWAITED)
        await hand_over(settings, os.open(image, os.O_RDWR))
        await until(it, ATTACHED)
        qemu.let_go("ua-data")
        await until(it, AWAITED)


@pytest.mark.parametrize(
    ("disk", "content", "failure", "words"),
    [
        (plugged(), b"KDMV" + bytes(MIB), "", "VMDK"),
        (plugged(bus=pb.DISK_BUS_SATA), b"", "", "bus sata takes no disks while"),
        (plugged(volume=pb.VolumeDiskSource(handed_over=True)), b"", "", "a device is expected"),
        (plugged(), b"", "No more available PCI slots", "No more available PCI slots"),
        (plugged(), b"", 'Failed to get "write" lock', "in use by another machine"),
    ],
)
async def test_what_cannot_be_plugged_is_told_and_awaited(
    disk: pb.DiskSpec,
    content: bytes,
    failure: str,
    words: str,
    settings: Settings,
    name: str,
    qemu: Qemu,
    image: Path,
) -> None:
    await asyncio.to_thread(image.write_bytes, content)
    qemu.failures = [failure] if failure else []
    async with running(settings, disk, name=name) as it:
        await until(it, AWAITED)
        assert (await hand_over(settings, os.open(image, os.O_RDWR))).taken
        told = await it.until(lambda report: words in reported(report, "data").message)
        assert reported(told, "data").attachment == AWAITED
        assert reported(told, "data").message.startswith('Volume "data": ')
        assert open_here(str(image)) == 0


@pytest.fixture
def device(image: Path) -> Iterator[str]:
    os.truncate(image, MIB)
    command = ["losetup", "--find", "--show", str(image)]
    try:
        made = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there are no loop devices")
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


@pytest.mark.parametrize("has_sets", [True, False])
async def test_a_device_goes_to_qemu_as_an_open_file(
    has_sets: bool,
    settings: Settings,
    name: str,
    qemu: Qemu,
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(domain_hotplug, "FD_SETS_DIRECTORY", str(tmp_path / "fdset"))
    if has_sets:
        os.mkdir(tmp_path / "fdset")
    block = plugged(volume=pb.VolumeDiskSource(handed_over=True))
    async with running(settings, block, name=name) as it:
        await until(it, AWAITED)
        assert (await hand_over(settings, os.open(device, os.O_RDWR))).taken
        if not has_sets:
            await it.until(lambda report: "fdset" in reported(report, "data").message)
            return
        assert (await until(it, ATTACHED)).capacity_bytes == MIB
        [disk] = [each for each in qemu.devices if each.tag == "disk"]
        assert disk.get("type") == "block"
        assert (qemu.sets, qemu.groups) == ({}, {})
        assert open_here(device) == 0
        # It grows by itself, which QEMU sees when it is told to look.
        larger = plugged(volume=pb.VolumeDiskSource(handed_over=True, capacity_bytes=3 * MIB))
        await it.machine.apply(spec(name=name, generation=2, disks=[larger]))
        await it.until(lambda report: reported(report, "data").capacity_bytes == 3 * MIB)


async def test_what_is_not_taken_is_closed(
    settings: Settings, name: str, qemu: Qemu, image: Path
) -> None:
    def file() -> int:
        return os.open(image, os.O_RDWR)

    async with running(settings, name=name) as it:
        assert not (await hand_over(settings, file())).taken
        assert not (await hand_over(settings, file(), file())).taken
        assert not (await hand_over(settings)).taken
        assert not (await hand_over(settings, file(), said=b"\xff")).taken
        assert open_here(str(image)) == 0
        assert it.machine.libvirt.connected


async def test_before_the_guest_runs_nothing_is_taken(settings: Settings, image: Path) -> None:
    async with launcher(settings) as it:
        assert it.machine.take_volume("data", 0, os.open(image, os.O_RDWR))
    assert open_here(str(image)) == 0
