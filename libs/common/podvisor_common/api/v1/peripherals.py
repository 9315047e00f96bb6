"""Devices of a machine that are neither disks nor interfaces."""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc

_NAME = {"minLength": 1, "maxLength": 63}


class Rng(ApiStruct, frozen=True):
    """A virtio device that gives the guest random numbers of the node's."""


class I6300ESBWatchdog(ApiStruct, frozen=True):
    """A watchdog on the PCI bus."""

    action: Annotated[
        str,
        doc(
            "What it does once the guest does not answer: `poweroff`, `shutdown` or `reset`."
            " `reset` by default."
        ),
    ] = ""


class Watchdog(ApiStruct, frozen=True):
    """A timer that acts when the guest does not reset it any more."""

    name: Annotated[str, doc("Name of the device.", maxLength=63)] = ""
    i6300esb: Annotated[I6300ESBWatchdog | None, doc("Model i6300esb.")] = None


class SoundDevice(ApiStruct, frozen=True):
    """A sound card. What it plays is heard by nobody."""

    name: Annotated[str, doc("Name of the device.", **_NAME)]
    model: Annotated[str, doc("`ich9` or `ac97`. `ich9` by default.")] = ""


class Input(ApiStruct, frozen=True):
    """A pointing device."""

    name: Annotated[str, doc("Name of the device.", **_NAME)]
    bus: Annotated[str, doc("`usb` or `virtio`. `usb` by default.")] = ""
    type: Annotated[str, doc("`tablet`, the default.")] = ""


class VideoDevice(ApiStruct, frozen=True):
    """The video card."""

    type: Annotated[
        str,
        doc("Model: `vga`, `cirrus`, `virtio`, `ramfb` or `bochs`. `vga` by default."),
    ] = ""


class PanicDevice(ApiStruct, frozen=True):
    """A device by which the guest tells of its panic."""

    model: Annotated[str | None, doc("`isa`, `hyperv` or `pvpanic`. `isa` by default.")] = None


class TPMDevice(ApiStruct, frozen=True):
    """A TPM 2.0, whose state lives as long as the pod."""

    enabled: Annotated[bool | None, doc("True by default.")] = None


class DiskIOThreads(ApiStruct, frozen=True):
    """Threads that disks share by the policy `supplementalPool`."""

    supplemental_pool_thread_count: Annotated[
        int | None, doc("How many there are.", minimum=1, format="int32")
    ] = None
