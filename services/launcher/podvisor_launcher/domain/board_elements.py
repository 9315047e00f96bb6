"""What a board has besides devices: firmware, tables, clocks, features of board and hypervisor.

Pure form, as elements.py.
"""

from podvisor_launcher.domain.hyperv_elements import Hyperv
from podvisor_launcher.domain.xml import attribute, child, children, element, flag, leaf, text


@element("type")
class OsType:
    """What kind of guest code runs, on which machine."""

    arch: str | None = attribute(default=None)
    machine: str | None = attribute(default=None)
    value: str = text()


@element("smbios")
class SmBios:
    """Where the guest's SMBIOS table comes from."""

    mode: str = attribute()


@element("loader")
class Loader:
    """A firmware image; `secure` when its variables are open to system management mode alone."""

    read_only: bool | None = attribute("readonly", default=None)
    secure: bool | None = attribute(default=None)
    type: str | None = attribute(default=None)
    path: str = text()


@element("nvram")
class Nvram:
    """The file with the firmware's variables, and what it is a copy of at first."""

    template: str | None = attribute(default=None)
    path: str = text()


@element("bios")
class Bios:
    """Settings of a BIOS."""

    use_serial: bool | None = attribute("useserial", default=None)


@element("os")
class Os:
    """Machine type, firmware, and the kernel that is started without a boot loader."""

    type: OsType = child()
    loader: Loader | None = child(default=None)
    nvram: Nvram | None = child(default=None)
    kernel: str | None = leaf(default=None)
    initrd: str | None = leaf(default=None)
    command_line: str | None = leaf("cmdline", default=None)
    smbios: SmBios | None = child(default=None)
    bios: Bios | None = child(default=None)


@element("entry")
class SysinfoEntry:
    """One value of the SMBIOS table."""

    name: str = attribute()
    value: str = text()


@element("system")
class SysinfoSystem:
    """The SMBIOS system block."""

    entries: tuple[SysinfoEntry, ...] = children()


@element("chassis")
class SysinfoChassis:
    """The SMBIOS chassis block."""

    entries: tuple[SysinfoEntry, ...] = children()


@element("sysinfo")
class Sysinfo:
    """Values for the guest's SMBIOS table."""

    type: str = attribute()
    system: SysinfoSystem | None = child(default=None)
    chassis: SysinfoChassis | None = child(default=None)


@element("tb-cache")
class TranslationCache:
    """Upper bound of QEMU's translation cache."""

    unit: str = attribute()
    size: int = text()


@element("tcg")
class Tcg:
    """Settings of QEMU's translator."""

    cache: TranslationCache | None = child(default=None)


@element("apic")
class Apic:
    """The interrupt controller of processors; `eoi` says whether the end of an interrupt is told by memory."""

    eoi: str | None = attribute(default=None)


@element("smm")
class Smm:
    """System management mode."""

    state: str = attribute()


@element("pvspinlock")
class PvSpinlock:
    """Locks that tell KVM when they wait."""

    state: str = attribute()


@element("hidden")
class KvmHidden:
    """Whether KVM keeps silent about itself."""

    state: str = attribute()


@element("kvm")
class Kvm:
    """How KVM shows itself."""

    hidden: KvmHidden | None = child(default=None)


@element("features")
class Features:
    """What the machine has beside processors and devices."""

    acpi: bool = flag()
    apic: Apic | None = child(default=None)
    smm: Smm | None = child(default=None)
    pv_spinlock: PvSpinlock | None = child(default=None)
    kvm: Kvm | None = child(default=None)
    hyperv: Hyperv | None = child(default=None)
    tcg: Tcg | None = child(default=None)


@element("timer")
class Timer:
    """A source of ticks."""

    name: str = attribute()
    tick_policy: str | None = attribute("tickpolicy", default=None)
    track: str | None = attribute(default=None)
    present: bool | None = attribute(default=None)


@element("clock")
class Clock:
    """What the guest's clock starts from, and by what it tells time; `adjustment` in seconds."""

    offset: str = attribute()
    basis: str | None = attribute(default=None)
    adjustment: int | None = attribute(default=None)
    timezone: str | None = attribute(default=None)
    timers: tuple[Timer, ...] = children()
