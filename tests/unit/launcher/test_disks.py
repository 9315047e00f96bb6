"""Every option of a disk: what libvirt gets for it, and what is refused before libvirt or QEMU would."""

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import (
    SPARE_ROOT_PORTS,
    ConsolePaths,
    Image,
    ResolvedDisk,
    UnbuildableSpec,
    build_domain,
    check_spec,
)
from podvisor_launcher.domain.disk_elements import BlockIo, Disk, DiskDriver
from podvisor_launcher.domain.elements import Controller
from podvisor_launcher.domain.xml import format_xml

from tests.unit.launcher.conftest import TEST_DRIVER
from tests.unit.launcher.specs import (
    block_source,
    cloud_init_disk,
    container_disk,
    interface,
    spec,
    volume_disk,
)

CONSOLES = ConsolePaths("/serial.sock", "/vnc.sock", "/serial.log", "/agent.sock")
FILE = ResolvedDisk(Image("/volumes/data/disk.img", "raw"), direct=True)
BUFFERED = ResolvedDisk(Image("/volumes/data/disk.img", "raw"))
BLOCK = ResolvedDisk(Image("/dev/podvisor/data", "raw", is_block=True), direct=True)
QCOW2 = ResolvedDisk(Image("/volumes/data/disk.img", "qcow2"), direct=True)
OVERLAY = ResolvedDisk(Image("/disks/data.qcow2", "qcow2"), Image("/below", "raw"))
DIRECT_OVERLAY = ResolvedDisk(OVERLAY.image, OVERLAY.backing, direct=True)
READ_ONLY = ResolvedDisk(Image("/images/data", "qcow2"), read_only=True, direct=True)


def built(disk: pb.DiskSpec, resolved: ResolvedDisk | None) -> Disk:
    """The element of a machine's only disk."""
    machine = spec(disks=[disk])
    check_spec(machine)
    disks = {} if resolved is None else {disk.name: resolved}
    (element,) = build_domain(machine, disks, CONSOLES).devices.disks
    return element


def driver(disk: pb.DiskSpec, resolved: ResolvedDisk) -> DiskDriver:
    found = built(disk, resolved).driver
    assert found is not None
    return found


def empty_disk(name: str = "data") -> pb.DiskSpec:
    return volume_disk(name, volume=None, empty=pb.EmptyDiskSource(capacity_bytes=1 << 20))


def lun(name: str = "data", **changes: object) -> pb.DiskSpec:
    values = {"bus": pb.DISK_BUS_SCSI, "device": pb.DISK_DEVICE_LUN, "volume": block_source(name)}
    return volume_disk(name, **(values | changes))


def cdrom(name: str = "data", **changes: object) -> pb.DiskSpec:
    """A drive without a medium."""
    values = {"bus": pb.DISK_BUS_SATA, "device": pb.DISK_DEVICE_CDROM, "volume": None}
    return volume_disk(name, **(values | changes))


@pytest.mark.parametrize(
    ("disk", "resolved", "cache", "io"),
    [
        (volume_disk(), FILE, "none", None),
        (volume_disk(), BUFFERED, "writethrough", None),
        (volume_disk(), BLOCK, "none", "native"),
        (volume_disk(read_only=True), READ_ONLY, "none", None),
        (volume_disk(), OVERLAY, "unsafe", None),
        (container_disk("data"), OVERLAY, "unsafe", None),
        (container_disk("data"), READ_ONLY, None, None),
        (cloud_init_disk("data"), READ_ONLY, None, None),
        (empty_disk(), QCOW2, "unsafe", None),
        (volume_disk(cache=pb.DISK_CACHE_WRITEBACK), BLOCK, "writeback", None),
        (volume_disk(cache=pb.DISK_CACHE_WRITETHROUGH), FILE, "writethrough", None),
        (volume_disk(cache=pb.DISK_CACHE_NONE), FILE, "none", None),
        (container_disk("data", cache=pb.DISK_CACHE_NONE), DIRECT_OVERLAY, "none", None),
        (container_disk("data", cache=pb.DISK_CACHE_WRITEBACK), OVERLAY, "writeback", None),
        (volume_disk(io=pb.DISK_IO_NATIVE), FILE, "none", "native"),
        (volume_disk(io=pb.DISK_IO_THREADS), BLOCK, "none", "threads"),
        (volume_disk(io=pb.DISK_IO_THREADS), BUFFERED, "writethrough", "threads"),
        (volume_disk(shareable=True), FILE, "none", None),
    ],
)
def test_caches_and_how_requests_are_made(
    disk: pb.DiskSpec, resolved: ResolvedDisk, cache: str | None, io: str | None
) -> None:
    found = driver(disk, resolved)
    assert (found.cache, found.io) == (cache, io)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (pb.DISK_ERROR_POLICY_UNSPECIFIED, "stop"),
        (pb.DISK_ERROR_POLICY_STOP, "stop"),
        (pb.DISK_ERROR_POLICY_IGNORE, "ignore"),
        (pb.DISK_ERROR_POLICY_REPORT, "report"),
        (pb.DISK_ERROR_POLICY_ENOSPACE, "enospace"),
    ],
)
def test_what_an_error_does(policy: "pb.DiskErrorPolicy.ValueType", told: str) -> None:
    assert driver(volume_disk(error_policy=policy), FILE).error_policy == told


@pytest.mark.parametrize(
    ("disk", "resolved", "discard"),
    [
        (volume_disk(), FILE, "unmap"),
        (volume_disk(), BLOCK, "unmap"),
        (container_disk("data"), OVERLAY, "unmap"),
        (volume_disk(read_only=True), READ_ONLY, None),
    ],
)
def test_what_is_given_back_is_given_back_where_it_can_be_written(
    disk: pb.DiskSpec, resolved: ResolvedDisk, discard: str | None
) -> None:
    assert driver(disk, resolved).discard == discard


MATCHED = ResolvedDisk(
    BLOCK.image, direct=True, logical_block_bytes=4096, physical_block_bytes=8192
)


@pytest.mark.parametrize(
    ("disk", "resolved", "sizes"),
    [
        (volume_disk(), FILE, None),
        (
            volume_disk(block_sizes=pb.BlockSizes(logical_bytes=512, physical_bytes=4096)),
            FILE,
            BlockIo(logical_block_size=512, physical_block_size=4096),
        ),
        (
            volume_disk(
                block_sizes=pb.BlockSizes(
                    logical_bytes=512, physical_bytes=512, discard_granularity_bytes=65536
                )
            ),
            FILE,
            BlockIo(logical_block_size=512, physical_block_size=512, discard_granularity=65536),
        ),
        (
            volume_disk(match_volume_block_sizes=True),
            MATCHED,
            BlockIo(logical_block_size=4096, physical_block_size=8192),
        ),
        (lun(serial="S", match_volume_block_sizes=True), MATCHED, None),
    ],
)
def test_sizes_of_sectors(disk: pb.DiskSpec, resolved: ResolvedDisk, sizes: BlockIo | None) -> None:
    assert built(disk, resolved).block_io == sizes


def test_a_shareable_disk_is_so_where_it_is_written() -> None:
    assert built(volume_disk(shareable=True), FILE).shareable
    read_only = built(volume_disk(shareable=True, read_only=True), READ_ONLY)
    assert (read_only.shareable, read_only.read_only) == (False, True)


def test_a_block_device_is_one_and_below_an_overlay_too() -> None:
    plain = built(volume_disk(volume=block_source()), BLOCK)
    assert plain.source is not None
    assert (plain.type, plain.source.dev, plain.source.file) == ("block", BLOCK.image.path, None)
    below = built(volume_disk(), ResolvedDisk(OVERLAY.image, BLOCK.image)).backing_store
    assert below is not None
    assert below.source is not None
    assert (below.type, below.source.dev) == ("block", BLOCK.image.path)
    assert below.end is not None


def test_a_lun_answers_for_itself() -> None:
    element = built(lun(serial="S1"), BLOCK)
    assert (element.device, element.type, element.serial) == ("lun", "block", None)


@pytest.mark.parametrize("tray", [None, "open"])
def test_a_drive_may_be_empty(tray: str | None) -> None:
    element = built(cdrom(tray_open=tray is not None), None)
    assert (element.device, element.type, element.source) == ("cdrom", "file", None)
    assert (element.read_only, element.target.tray) == (True, tray)


def test_a_drive_whose_medium_comes_later_is_there() -> None:
    assert built(cdrom(hotpluggable=True), None).source is None


def test_an_image_of_the_launchers_own_is_a_hard_disk_on_sata() -> None:
    """That bus has none that are read-only."""
    seed = cloud_init_disk("seed")
    seed.bus = pb.DISK_BUS_SATA
    resolved = ResolvedDisk(Image("/seed.iso", "raw"), read_only=True)
    assert not built(seed, resolved).read_only
    seed.bus = pb.DISK_BUS_USB
    assert built(seed, resolved).read_only


def test_an_io_thread_for_every_disk_that_asks() -> None:
    machine = spec(
        disks=[
            volume_disk("a", dedicated_io_thread=True),
            volume_disk("b"),
            volume_disk("c", dedicated_io_thread=True),
        ]
    )
    domain = build_domain(machine, dict.fromkeys("abc", FILE), CONSOLES)
    assert domain.io_threads == 2
    threads = [disk.driver.iothread for disk in domain.devices.disks if disk.driver]
    assert threads == [1, None, 2]


def root_ports(controllers: tuple[Controller, ...]) -> int:
    return sum(each.model == "pcie-root-port" for each in controllers)


def test_a_chosen_address_is_kept_and_given_to_nobody_else() -> None:
    machine = spec(
        disks=[volume_disk("a"), volume_disk("b", pci_address="0000:02:00.0"), volume_disk("c")],
        interfaces=[interface()],
    )
    check_spec(machine)
    devices = build_domain(machine, dict.fromkeys("abc", FILE), CONSOLES).devices
    behind = [each.address.bus for each in devices.disks if each.address]
    assert [each.address.bus for each in devices.interfaces if each.address] == ["0x01"]
    assert behind == ["0x03", "0x02", "0x04"]
    assert root_ports(devices.controllers) == 4 + SPARE_ROOT_PORTS


def test_a_chosen_address_far_away_has_all_ports_up_to_it() -> None:
    machine = spec(disks=[volume_disk(pci_address="0000:81:00.0")])
    devices = build_domain(machine, {"data": FILE}, CONSOLES).devices
    assert [each.address.bus for each in devices.disks if each.address] == ["0x81"]
    assert root_ports(devices.controllers) == 0x81


def test_a_disk_that_comes_later_is_left_out_and_has_a_place() -> None:
    scsi = volume_disk("later", bus=pb.DISK_BUS_SCSI, hotpluggable=True, boot_order=1)
    now = build_domain(spec(disks=[volume_disk("a")]), {"a": FILE}, CONSOLES).devices
    later = build_domain(spec(disks=[volume_disk("a"), scsi]), {"a": FILE}, CONSOLES).devices
    assert [disk.target.dev for disk in later.disks] == ["vda"]
    assert root_ports(now.controllers) == 1 + SPARE_ROOT_PORTS
    assert root_ports(later.controllers) == 1 + 1 + SPARE_ROOT_PORTS  # the controller has its own
    assert "virtio-scsi" in [each.model for each in later.controllers]


def test_what_can_hold_no_system_is_not_booted_from() -> None:
    disks = [cdrom("cd"), empty_disk("scratch"), cloud_init_disk("seed"), volume_disk("system")]
    machine = spec(disks=disks)
    resolved = {"scratch": QCOW2, "seed": FILE, "system": FILE}
    found = build_domain(machine, resolved, CONSOLES).devices.disks
    assert [disk.boot is not None for disk in found] == [False, False, False, True]


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (lun(bus=pb.DISK_BUS_VIRTIO), "bus scsi only"),
        (lun(volume=pb.VolumeDiskSource(path="/v", file="disk.img")), "block device"),
        (lun(volume=None, empty=pb.EmptyDiskSource()), "block device"),
        (volume_disk(volume=None), "no source"),
        (volume_disk(device=pb.DISK_DEVICE_UNSPECIFIED), "unknown device"),
        (volume_disk(bus=pb.DISK_BUS_SCSI, dedicated_io_thread=True), "I/O threads"),
        (volume_disk(bus=pb.DISK_BUS_SCSI, pci_address="0000:02:00.0"), "PCI addresses"),
        (volume_disk(pci_address="0000:81:01.0"), "slot 00"),
        (volume_disk(pci_address="0000:00:05.0"), "cannot be had"),
        (volume_disk(pci_address="0001:02:00.0"), "cannot be had"),
        (volume_disk(pci_address="0000:ff:00.0"), "cannot be had"),
    ],
)
def test_what_no_machine_can_have(disk: pb.DiskSpec, words: str) -> None:
    with pytest.raises(UnbuildableSpec, match=words):
        check_spec(spec(disks=[disk]))


def test_an_address_is_for_one_disk() -> None:
    disks = [volume_disk(name, pci_address="0000:02:00.0") for name in ("a", "b")]
    with pytest.raises(UnbuildableSpec, match=r'disk "b".*taken'):
        check_spec(spec(disks=disks))


@pytest.mark.parametrize(
    ("disk", "resolved", "words"),
    [
        (lun(), FILE, "block device"),
        (volume_disk(cache=pb.DISK_CACHE_NONE), BUFFERED, "direct I/O"),
        (volume_disk(io=pb.DISK_IO_NATIVE), BUFFERED, 'needs cache "none"'),
        (
            volume_disk(io=pb.DISK_IO_NATIVE, cache=pb.DISK_CACHE_WRITEBACK),
            FILE,
            'needs cache "none"',
        ),
        (volume_disk(shareable=True), QCOW2, "only raw"),
        (container_disk("data", shareable=True), OVERLAY, "only raw"),
        (volume_disk(shareable=True), BUFFERED, "direct I/O"),
        (
            volume_disk(shareable=True, cache=pb.DISK_CACHE_WRITETHROUGH),
            FILE,
            'shareable disk needs cache "none"',
        ),
        (volume_disk(bus=pb.DISK_BUS_SATA, read_only=True), READ_ONLY, "cannot be read-only"),
    ],
)
def test_what_cannot_be_with_what_is_behind_it(
    disk: pb.DiskSpec, resolved: ResolvedDisk, words: str
) -> None:
    with pytest.raises(UnbuildableSpec, match=f'disk "data": .*{words}'):
        built(disk, resolved)


EVERYTHING = [
    volume_disk("a", dedicated_io_thread=True, serial="S1", boot_order=1),
    volume_disk("b", shareable=True, pci_address="0000:04:00.0"),
    volume_disk("c", bus=pb.DISK_BUS_USB, error_policy=pb.DISK_ERROR_POLICY_ENOSPACE),
    volume_disk("d", bus=pb.DISK_BUS_SCSI, match_volume_block_sizes=True),
    lun("e"),
    cdrom("f", tray_open=True),
    volume_disk("g", hotpluggable=True),
    empty_disk("h"),
]


def test_libvirts_schema_knows_all_of_it(name: str) -> None:
    machine = spec(name=name, disks=EVERYTHING)
    check_spec(machine)
    resolved = {"a": BLOCK, "b": FILE, "c": OVERLAY, "d": MATCHED, "e": BLOCK, "h": QCOW2}
    description = format_xml(build_domain(machine, resolved, CONSOLES))
    keeper = libvirt.open(TEST_DRIVER)
    keeper.defineXMLFlags(description, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    keeper.close()
