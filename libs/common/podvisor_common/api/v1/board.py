"""The board of a machine: clocks, what it has for the guest besides devices, its firmware, and what its tables say."""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc
from podvisor_common.api.quantity import Quantity
from podvisor_common.api.v1.disks import FeatureState

_TABLE_TEXT = {"maxLength": 256}


class ClockUTC(ApiStruct, frozen=True):
    """A clock in UTC."""

    offset_seconds: Annotated[
        int | None, doc("By how much the clock is ahead of UTC, in seconds. 0 by default.")
    ] = None


class PresentTimer(ApiStruct, frozen=True):
    """A timer that is either there or not."""

    present: Annotated[bool | None, doc("True by default.")] = None


class HPETTimer(ApiStruct, frozen=True):
    """The High Precision Event Timer."""

    tick_policy: Annotated[
        str, doc("What becomes of missed ticks: `delay`, `catchup`, `merge` or `discard`.")
    ] = ""
    present: Annotated[bool | None, doc("True by default.")] = None


class PITTimer(ApiStruct, frozen=True):
    """The Programmable Interval Timer."""

    tick_policy: Annotated[
        str, doc("What becomes of missed ticks: `delay`, `catchup` or `discard`.")
    ] = ""
    present: Annotated[bool | None, doc("True by default.")] = None


class RTCTimer(ApiStruct, frozen=True):
    """The Real Time Clock."""

    tick_policy: Annotated[str, doc("What becomes of missed ticks: `delay` or `catchup`.")] = ""
    present: Annotated[bool | None, doc("True by default.")] = None
    track: Annotated[str, doc("What it follows: `guest` or `wall`.")] = ""


class Timer(ApiStruct, frozen=True):
    """The guest's sources of ticks."""

    hpet: Annotated[HPETTimer | None, doc("High Precision Event Timer.")] = None
    kvm: Annotated[PresentTimer | None, doc("Clock of KVM; under KVM only.")] = None
    pit: Annotated[PITTimer | None, doc("Programmable Interval Timer.")] = None
    rtc: Annotated[RTCTimer | None, doc("Real Time Clock.")] = None
    hyperv: Annotated[PresentTimer | None, doc("Clock of Hyper-V; under KVM only.")] = None


class Clock(ApiStruct, frozen=True):
    """What the guest's clock shows, and by what the guest tells time."""

    utc: Annotated[ClockUTC | None, doc("The clock is in UTC. The default.")] = None
    timezone: Annotated[
        str | None, doc("Time zone in which the clock is instead, for example `Europe/Paris`.")
    ] = None
    timer: Annotated[Timer | None, doc("Sources of ticks.")] = None


class FeatureAPIC(ApiStruct, frozen=True):
    """The interrupt controller of processors."""

    enabled: Annotated[bool | None, doc("True by default.")] = None
    end_of_interrupt: Annotated[
        bool | None, doc("The end of an interrupt is told by memory; under KVM only.")
    ] = None


class FeatureKVM(ApiStruct, frozen=True):
    """How KVM shows itself."""

    hidden: Annotated[bool | None, doc("The guest is not told of KVM. False by default.")] = None


class FeatureSpinlocks(ApiStruct, frozen=True):
    """Locks that tell the hypervisor when they wait."""

    enabled: Annotated[bool | None, doc("True by default.")] = None
    spinlocks: Annotated[
        int | None,
        doc("How often a lock is tried before: 4095 to 2147483647. 4096 by default."),
    ] = None


class FeatureVendorID(ApiStruct, frozen=True):
    """By what name the hypervisor shows itself."""

    enabled: Annotated[bool | None, doc("True by default.")] = None
    vendorid: Annotated[str, doc("The name: 1 to 12 characters, and no comma.")] = ""


class SyNICTimer(ApiStruct, frozen=True):
    """Timers of Hyper-V."""

    enabled: Annotated[bool | None, doc("True by default.")] = None
    direct: Annotated[FeatureState | None, doc("Their expiry comes as an interrupt.")] = None


class TLBFlush(ApiStruct, frozen=True):
    """Flushing of other processors' translation buffers by the hypervisor."""

    enabled: Annotated[bool | None, doc("True by default.")] = None


class FeatureHyperv(ApiStruct, frozen=True):
    """Interfaces of Hyper-V, which Windows knows; under KVM only. What one of them needs is on as well."""

    relaxed: Annotated[FeatureState | None, doc("No watchdog on ticks.")] = None
    vapic: Annotated[FeatureState | None, doc("Interrupts by way of memory.")] = None
    spinlocks: Annotated[FeatureSpinlocks | None, doc("Locks that tell when they wait.")] = None
    vpindex: Annotated[FeatureState | None, doc("Processors know their number.")] = None
    runtime: Annotated[FeatureState | None, doc("Processors know how long they ran.")] = None
    synic: Annotated[FeatureState | None, doc("Interrupts by messages. Needs `vpindex`.")] = None
    synictimer: Annotated[SyNICTimer | None, doc("Timers. Needs `synic`.")] = None
    reset: Annotated[FeatureState | None, doc("The guest can reset itself.")] = None
    vendorid: Annotated[FeatureVendorID | None, doc("Another name of the hypervisor.")] = None
    frequencies: Annotated[FeatureState | None, doc("Frequencies of clocks.")] = None
    reenlightenment: Annotated[FeatureState | None, doc("News of changed frequencies.")] = None
    tlbflush: Annotated[TLBFlush | None, doc("Flushing by call. Needs `vpindex`.")] = None
    ipi: Annotated[FeatureState | None, doc("Interrupts by call. Needs `vpindex`.")] = None
    evmcs: Annotated[
        FeatureState | None, doc("Nested guests. Needs `vapic` and the processor feature `vmx`.")
    ] = None


class HypervPassthrough(ApiStruct, frozen=True):
    """All of Hyper-V's interfaces that the node's KVM has."""

    enabled: Annotated[bool | None, doc("False by default.")] = None


class Features(ApiStruct, frozen=True):
    """What board and hypervisor have for the guest besides devices."""

    acpi: Annotated[FeatureState | None, doc("ACPI tables and events. On by default.")] = None
    apic: Annotated[FeatureAPIC | None, doc("Interrupt controller. On by default.")] = None
    smm: Annotated[FeatureState | None, doc("System management mode.")] = None
    pvspinlock: Annotated[FeatureState | None, doc("Locks of KVM; under KVM only.")] = None
    kvm: Annotated[FeatureKVM | None, doc("How KVM shows itself.")] = None
    hyperv: Annotated[FeatureHyperv | None, doc("Interfaces of Hyper-V, one by one.")] = None
    hyperv_passthrough: Annotated[
        HypervPassthrough | None, doc("Interfaces of Hyper-V, all there are. Excludes `hyperv`.")
    ] = None


class Chassis(ApiStruct, frozen=True):
    """What the guest's SMBIOS table says of the chassis."""

    manufacturer: Annotated[str, doc("Who made it.", **_TABLE_TEXT)] = ""
    version: Annotated[str, doc("Its version.", **_TABLE_TEXT)] = ""
    serial: Annotated[str, doc("Its serial number.", **_TABLE_TEXT)] = ""
    asset: Annotated[str, doc("Its asset tag.", **_TABLE_TEXT)] = ""
    sku: Annotated[str, doc("Its stock-keeping unit.", **_TABLE_TEXT)] = ""


class SMBios(ApiStruct, frozen=True):
    """What the SMBIOS tables of all guests say of the system."""

    manufacturer: Annotated[str, doc("Who made it.", **_TABLE_TEXT)] = ""
    product: Annotated[str, doc("What it is called.", **_TABLE_TEXT)] = ""
    version: Annotated[str, doc("Its version.", **_TABLE_TEXT)] = ""
    sku: Annotated[str, doc("Its stock-keeping unit.", **_TABLE_TEXT)] = ""
    family: Annotated[str, doc("What it is one of.", **_TABLE_TEXT)] = ""


class BIOS(ApiStruct, frozen=True):
    """A BIOS."""

    use_serial: Annotated[
        bool | None, doc("Its messages are shown on the serial console. False by default.")
    ] = None


class EFI(ApiStruct, frozen=True):
    """A UEFI firmware, whose variables live as long as the pod."""

    secure_boot: Annotated[
        bool | None,
        doc("It starts nothing but what is signed; needs `features.smm`. True by default."),
    ] = None


class Bootloader(ApiStruct, frozen=True):
    """The firmware: one of two kinds."""

    bios: Annotated[BIOS | None, doc("A BIOS. The default.")] = None
    efi: Annotated[EFI | None, doc("A UEFI firmware.")] = None


class KernelBootContainer(ApiStruct, frozen=True):
    """A container image with a kernel, an initial RAM disk, or both."""

    image: Annotated[str, doc("Reference of the image.")] = ""
    image_pull_secret: Annotated[str, doc("Secret with the registry's credentials.")] = ""
    image_pull_policy: Annotated[str, doc("`Always`, `IfNotPresent` or `Never`.")] = ""
    kernel_path: Annotated[str, doc("Absolute path of the kernel inside the image.")] = ""
    initrd_path: Annotated[str, doc("Absolute path of the RAM disk inside the image.")] = ""


class KernelBoot(ApiStruct, frozen=True):
    """A kernel that is started without a boot loader."""

    kernel_args: Annotated[str, doc("Its command line.", maxLength=2048)] = ""
    container: Annotated[KernelBootContainer | None, doc("Where it comes from.")] = None


class Firmware(ApiStruct, frozen=True):
    """What starts the guest, and what the guest finds of the system in its SMBIOS tables."""

    uuid: Annotated[
        str,
        doc("UUID of the machine. Made up once and kept when not given."),
    ] = ""
    serial: Annotated[str, doc("Serial number of the machine.")] = ""
    bootloader: Annotated[Bootloader | None, doc("Firmware. A BIOS by default.")] = None
    kernel_boot: Annotated[KernelBoot | None, doc("Kernel to start without a boot loader.")] = None


class CPUFeature(ApiStruct, frozen=True):
    """A feature that the guest's processors shall have or lack, whatever their model says."""

    name: Annotated[str, doc("libvirt's name of the feature, for example `vmx`.")]
    policy: Annotated[
        str,
        doc(
            "`force`: there, whatever the node has. `require`: there, and the node must have it; the default. `optional`:"
            " there where the node has it. `disable`: not there. `forbid`: not there, and the node must not have it."
        ),
    ] = ""


class Hugepages(ApiStruct, frozen=True):
    """Large pages of the node that the guest's memory is made of."""

    page_size: Annotated[
        Quantity, doc("Size of a page, for example `2Mi`; the guest's memory is a multiple of it.")
    ] = ""
