"""Block devices of a machine: what the guest takes them for, and how they are handled."""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc

_NAME = {"minLength": 1, "maxLength": 63}


class DiskTarget(ApiStruct, frozen=True):
    """A hard disk."""

    bus: Annotated[
        str, doc("Bus of the device: `virtio`, `sata`, `scsi` or `usb`. `sata` by default.")
    ] = ""
    readonly: Annotated[bool, doc("The guest cannot write to it.")] = False
    pci_address: Annotated[
        str, doc("PCI address of a disk on bus `virtio`, for example `0000:81:01.0`.")
    ] = ""


class CDRomTarget(ApiStruct, frozen=True):
    """A CD-ROM drive. One without a volume is empty."""

    bus: Annotated[str, doc("Bus of the device: `sata`, `scsi` or `usb`. `sata` by default.")] = ""
    readonly: Annotated[bool | None, doc("The guest cannot write to it. True by default.")] = None
    tray: Annotated[str, doc("`open` or `closed`. `closed` by default.")] = ""


class LunTarget(ApiStruct, frozen=True):
    """A SCSI device of which the guest sees the commands' real answers; needs a block volume."""

    bus: Annotated[str, doc("Bus of the device: `scsi`. `scsi` by default.")] = ""
    readonly: Annotated[bool, doc("The guest cannot write to it.")] = False


class CustomBlockSize(ApiStruct, frozen=True):
    """Sizes of sectors, in bytes."""

    logical: Annotated[int, doc("Smallest unit of a transfer: a power of two from 512 to 2097152.")]
    physical: Annotated[int, doc("What the device writes at once: no less than `logical`.")]
    discard_granularity: Annotated[
        int | None, doc("Smallest unit that can be given back: a multiple of `logical`.")
    ] = None


class FeatureState(ApiStruct, frozen=True):
    """A feature that is on unless told otherwise."""

    enabled: Annotated[bool | None, doc("True by default.")] = None


class BlockSize(ApiStruct, frozen=True):
    """Sector sizes that the guest sees: exactly one way to say them."""

    custom: Annotated[CustomBlockSize | None, doc("Sizes as given.")] = None
    match_volume: Annotated[FeatureState | None, doc("Sizes of the volume behind the disk.")] = None


class Disk(ApiStruct, frozen=True):
    """A block device of the guest."""

    name: Annotated[str, doc("Name of the volume behind the disk.", **_NAME)]
    boot_order: Annotated[
        int | None,
        doc("Position in the boot order, unique among disks and interfaces.", minimum=1),
    ] = None
    serial: Annotated[str, doc("Serial number the guest sees.", maxLength=256)] = ""
    disk: Annotated[DiskTarget | None, doc("Attach the volume as a hard disk.")] = None
    cdrom: Annotated[CDRomTarget | None, doc("Attach the volume as a CD-ROM.")] = None
    lun: Annotated[LunTarget | None, doc("Attach the volume as a SCSI unit.")] = None
    cache: Annotated[
        str,
        doc(
            "How the node caches: `none`, `writethrough` or `writeback`. By default `none` where the volume can do"
            " without the node's cache, else `writethrough`."
        ),
    ] = ""
    io: Annotated[str, doc("How requests are made: `native` or `threads`.")] = ""
    tag: Annotated[str, doc("Word by which cloud-init's meta-data tells the device.")] = ""
    shareable: Annotated[
        bool | None, doc("Several machines may write to the volume at the same time.")
    ] = None
    error_policy: Annotated[
        str,
        doc(
            "What an I/O error does: `stop` the guest, `ignore` it, `report` it to the guest, or `enospace`: stop"
            " where there is no space left and report the rest. `stop` by default."
        ),
    ] = ""
    dedicated_io_thread: Annotated[
        bool | None, doc("Requests are handled by a thread of their own; on bus `virtio` only.")
    ] = None
    block_size: Annotated[BlockSize | None, doc("Sector sizes that the guest sees.")] = None


class VirtiofsFilesystem(ApiStruct, frozen=True):
    """Shared by virtiofs."""


class Filesystem(ApiStruct, frozen=True):
    """A tree of files that the guest shares with the node. The guest mounts it by its name."""

    name: Annotated[str, doc("Name of the volume behind it.", **_NAME)]
    virtiofs: Annotated[VirtiofsFilesystem | None, doc("Share by virtiofs.")] = None
