"""The board of a machine: firmware, tables, clocks, and what board and hypervisor have for the guest besides devices.

Invariant: pure. What is KVM's own, there is none of where QEMU translates: a guest without it asks the hardware instead.
"""

import re
from pathlib import PurePath
from typing import Any

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain import board_elements as xml
from podvisor_launcher.domain import hyperv_elements as hyperv_xml
from podvisor_launcher.domain.errors import UnbuildableSpec

FIRMWARE_DIRECTORY = "/usr/share/OVMF"
ZONES_DIRECTORY = "/usr/share/zoneinfo"

_TABLE_TEXT = re.compile(r"[ -~]{0,256}")
_VENDOR_ID = re.compile(r"[ -+\--~]{1,12}")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}")
_LEAST_RETRIES, _MOST_RETRIES = 4095, 2**31 - 1
_MOST_OFFSET_S = 2**31 - 1
_MOST_ARGUMENTS = 2048
_TICK_POLICIES = ("", "delay", "catchup", "merge", "discard")
_TRACKS = ("", "guest", "wall")
_TIMERS_OF_KVM = ("kvmclock", "hypervclock")
_TIMERS = ("hpet", "pit", "rtc", *_TIMERS_OF_KVM)
_SYSTEM = ("manufacturer", "product", "version", "sku", "family")
_CHASSIS = ("manufacturer", "version", "serial", "asset", "sku")
_SWITCHES = {pb.SWITCH_ON: "on", pb.SWITCH_OFF: "off"}
_HYPERV = {
    "relaxed": hyperv_xml.Relaxed,
    "vapic": hyperv_xml.Vapic,
    "spinlocks": hyperv_xml.Spinlocks,
    "vpindex": hyperv_xml.Vpindex,
    "runtime": hyperv_xml.Runtime,
    "synic": hyperv_xml.Synic,
    "stimer": hyperv_xml.Stimer,
    "reset": hyperv_xml.Reset,
    "vendor_id": hyperv_xml.VendorId,
    "frequencies": hyperv_xml.Frequencies,
    "reenlightenment": hyperv_xml.Reenlightenment,
    "tlbflush": hyperv_xml.TlbFlush,
    "ipi": hyperv_xml.Ipi,
    "evmcs": hyperv_xml.Evmcs,
}


def check_board(spec: pb.DomainSpec) -> None:
    """Raise UnbuildableSpec when no board can ever be as `spec` says."""
    clock, boot = spec.clock, spec.kernel_boot
    loader = spec.bootloader
    texts = [getattr(spec.chassis, name) for name in _CHASSIS]
    texts += [getattr(spec.system, name) for name in _SYSTEM]
    for is_wrong, words in (
        (
            bool(clock.timezone) and not _ZONE.fullmatch(clock.timezone),
            f'"{clock.timezone}" is no time zone',
        ),
        (bool(clock.timezone and clock.offset_s), "a clock has a time zone or an offset"),
        (abs(clock.offset_s) > _MOST_OFFSET_S, "the clock is too far from UTC"),
        (any(not _TABLE_TEXT.fullmatch(each) for each in texts), "SMBIOS holds printable ASCII"),
        (
            loader.bios_serial and loader.HasField("efi"),
            "the firmware is either a BIOS or UEFI",
        ),
        (
            loader.efi.secure_boot and spec.features.smm != pb.SWITCH_ON,
            "secure boot needs system management mode",
        ),
        (
            loader.HasField("efi") and spec.features.without_acpi,
            "UEFI needs ACPI",
        ),
        (len(boot.kernel_args) > _MOST_ARGUMENTS, "the kernel's command line is too long"),
        (
            bool(boot.initrd_path or boot.kernel_args) and not boot.kernel_path,
            "an initial RAM disk or a command line needs a kernel",
        ),
    ):
        if is_wrong:
            raise UnbuildableSpec(words)
    for timer in clock.timers:
        _check_timer(timer)
    if len({each.name for each in clock.timers}) != len(clock.timers):
        raise UnbuildableSpec("every timer can be there once")
    for feature in spec.features.hyperv.features:
        _check_hyperv(feature)


def _check_timer(timer: pb.TimerSpec) -> None:
    for value, allowed in (
        (timer.name, _TIMERS),
        (timer.tick_policy, _TICK_POLICIES),
        (timer.track, _TRACKS),
    ):
        if value not in allowed:
            raise UnbuildableSpec(f'timer "{timer.name}": "{value}" is not known')


def _check_hyperv(feature: pb.HypervFeatureSpec) -> None:
    if feature.name not in _HYPERV:
        raise UnbuildableSpec(f'Hyper-V has no interface "{feature.name}" that is known here')
    if feature.off:
        return
    if feature.name == "spinlocks" and not _LEAST_RETRIES <= feature.retries <= _MOST_RETRIES:
        raise UnbuildableSpec(f"spinlocks are tried {_LEAST_RETRIES} times at least")
    if feature.name == "vendor_id" and not _VENDOR_ID.fullmatch(feature.vendor_id):
        raise UnbuildableSpec("a vendor_id has 1 to 12 characters and no comma")


def build_os(spec: pb.DomainSpec, nvram: str) -> xml.Os:
    """Machine type and firmware, whose variables are in the file `nvram`, and the kernel that the firmware starts."""
    loader, boot = spec.bootloader, spec.kernel_boot
    has_efi = loader.HasField("efi")
    has_tables = build_sysinfo(spec) is not None
    return xml.Os(
        type=xml.OsType(arch="x86_64", machine=spec.machine_type or "q35", value="hvm"),
        loader=_loader(loader.efi) if has_efi else None,
        nvram=_nvram(loader.efi, nvram) if has_efi else None,
        kernel=path_in_image(boot, boot.kernel_path),
        initrd=path_in_image(boot, boot.initrd_path),
        command_line=boot.kernel_args or None,
        smbios=xml.SmBios(mode="sysinfo") if has_tables else None,
        bios=xml.Bios(use_serial=True) if loader.bios_serial else None,
    )


def path_in_image(boot: pb.KernelBootSpec, path: str) -> str | None:
    """Where the launcher finds the file `path` of the image; None for none."""
    return str(PurePath(boot.image_root, path.lstrip("/"))) if path else None


def _loader(efi: pb.EfiSpec) -> xml.Loader:
    name = "OVMF_CODE_4M.secboot.fd" if efi.secure_boot else "OVMF_CODE_4M.fd"
    return xml.Loader(
        read_only=True,
        secure=efi.secure_boot,
        type="pflash",
        path=f"{FIRMWARE_DIRECTORY}/{name}",
    )


def _nvram(efi: pb.EfiSpec, path: str) -> xml.Nvram:
    """With secure boot they hold Microsoft's keys from the first."""
    name = "OVMF_VARS_4M.ms.fd" if efi.secure_boot else "OVMF_VARS_4M.fd"
    return xml.Nvram(template=f"{FIRMWARE_DIRECTORY}/{name}", path=path)


def build_sysinfo(spec: pb.DomainSpec) -> xml.Sysinfo | None:
    """What the SMBIOS tables say; None for the emulator's own words."""
    system = [(name, getattr(spec.system, name)) for name in _SYSTEM]
    entries = _entries([*system[:3], ("serial", spec.firmware_serial), *system[3:]])
    chassis = _entries([(name, getattr(spec.chassis, name)) for name in _CHASSIS])
    if not entries and not chassis:
        return None
    return xml.Sysinfo(
        type="smbios",
        system=xml.SysinfoSystem(entries=entries) if entries else None,
        chassis=xml.SysinfoChassis(entries=chassis) if chassis else None,
    )


def _entries(values: list[tuple[str, str]]) -> tuple[xml.SysinfoEntry, ...]:
    return tuple(xml.SysinfoEntry(name=name, value=value) for name, value in values if value)


def build_clock(clock: pb.ClockSpec, *, tcg: bool) -> xml.Clock:
    """What the guest's clock shows, and its timers."""
    timers = tuple(
        xml.Timer(
            name=timer.name,
            tick_policy=timer.tick_policy or None,
            track=timer.track or None,
            present=not timer.absent,
        )
        for timer in clock.timers
        if not (tcg and timer.name in _TIMERS_OF_KVM)
    )
    if clock.timezone:
        return xml.Clock(offset="timezone", timezone=clock.timezone, timers=timers)
    if clock.offset_s:
        return xml.Clock(offset="variable", basis="utc", adjustment=clock.offset_s, timers=timers)
    return xml.Clock(offset="utc", timers=timers)


def build_features(
    features: pb.FeaturesSpec, translator: xml.Tcg | None, *, tcg: bool
) -> xml.Features:
    """What the machine has beside processors and devices; `translator` holds the settings of QEMU's own."""
    apic = None
    if not features.without_apic:
        apic = xml.Apic(eoi=None if tcg else _SWITCHES.get(features.apic_end_of_interrupt))
    smm = _SWITCHES.get(features.smm)
    spinlock = None if tcg else _SWITCHES.get(features.pv_spinlock)
    return xml.Features(
        acpi=not features.without_acpi,
        apic=apic,
        smm=xml.Smm(state=smm) if smm else None,
        pv_spinlock=xml.PvSpinlock(state=spinlock) if spinlock else None,
        kvm=xml.Kvm(hidden=xml.KvmHidden(state="on")) if features.kvm_hidden and not tcg else None,
        hyperv=_hyperv(features.hyperv) if features.HasField("hyperv") and not tcg else None,
        tcg=translator,
    )


def _hyperv(hyperv: pb.HypervSpec) -> hyperv_xml.Hyperv | None:
    if hyperv.passthrough:
        return hyperv_xml.Hyperv(mode="passthrough")
    found: dict[str, Any] = {feature.name: _interface(feature) for feature in hyperv.features}
    return hyperv_xml.Hyperv(**found) if found else None


def _interface(feature: pb.HypervFeatureSpec) -> object:
    values: dict[str, Any] = {"state": _state(not feature.off)}
    if not feature.off and feature.name == "spinlocks":
        values["retries"] = feature.retries
    if not feature.off and feature.name == "vendor_id":
        values["value"] = feature.vendor_id
    if not feature.off and feature.name == "stimer" and feature.direct:
        values["direct"] = hyperv_xml.Direct(state="on")
    return _HYPERV[feature.name](**values)


def _state(is_on: bool) -> str:
    return "on" if is_on else "off"
