"""The parts of <disk>: https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms.

Pure form, as in elements.py. disks.py decides.
"""

from podvisor_launcher.domain.place_elements import Address, Alias, Boot
from podvisor_launcher.domain.xml import attribute, child, children, element, flag, leaf


@element("iothread")
class DiskIoThread:
    """The number of a thread that handles requests."""

    id: int = attribute()


@element("iothreads")
class DiskIoThreads:
    """The threads among which the queues of a disk are shared out."""

    threads: tuple[DiskIoThread, ...] = children()


@element("driver")
class DiskDriver:
    """How QEMU handles an image."""

    name: str | None = attribute(default=None)
    type: str | None = attribute(default=None)
    cache: str | None = attribute(default=None)
    error_policy: str | None = attribute(default=None)
    io: str | None = attribute(default=None)
    iothread: int | None = attribute(default=None)
    queues: int | None = attribute(default=None)
    discard: str | None = attribute(default=None)
    iothreads: DiskIoThreads | None = child(default=None)


@element("source")
class DiskSource:
    """A file or a block device that backs a disk. A file with a `fdgroup` is not opened by its name."""

    file: str | None = attribute(default=None)
    fdgroup: str | None = attribute(default=None)
    dev: str | None = attribute(default=None)


@element("format")
class ImageFormat:
    """The format of a backing image."""

    type: str = attribute()


@element("backingStore")
class BackingStore:
    """The image below an overlay. An empty one ends the chain, so that nobody guesses how it goes on."""

    type: str | None = attribute(default=None)
    format: ImageFormat | None = child(default=None)
    source: DiskSource | None = child(default=None)
    end: "BackingStoreEnd | None" = child(default=None)


@element("backingStore")
class BackingStoreEnd:
    """The end of a chain of images."""


@element("target")
class DiskTarget:
    """Bus and name of a disk, and whether the tray of a CD-ROM drive is `open`."""

    dev: str = attribute()
    bus: str | None = attribute(default=None)
    tray: str | None = attribute(default=None)


@element("blockio")
class BlockIo:
    """Sizes of sectors that the guest sees, in bytes."""

    logical_block_size: int | None = attribute(default=None)
    physical_block_size: int | None = attribute(default=None)
    discard_granularity: int | None = attribute(default=None)


@element("disk")
class Disk:
    """A disk, a SCSI unit or a CD-ROM drive, which may be empty."""

    type: str = attribute()
    device: str | None = attribute(default=None)
    model: str | None = attribute(default=None)
    driver: DiskDriver | None = child(default=None)
    source: DiskSource | None = child(default=None)
    backing_store: BackingStore | None = child(default=None)
    block_io: BlockIo | None = child(default=None)
    target: DiskTarget = child()
    read_only: bool = flag("readonly")
    shareable: bool = flag()
    serial: str | None = leaf(default=None)
    boot: Boot | None = child(default=None)
    alias: Alias | None = child(default=None)
    address: Address | None = child(default=None)
