"""What is wrong with the board of a machine: clocks, features, firmware, tables, what a reboot does. Pure."""

import re
from collections.abc import Iterator

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.hyperv import HYPERV_NEEDS, LACKING, NEEDS_TIMER, NEEDS_VMX, VMX

from podvisor_controller.webhooks.validation_fields import (
    FILE_PATH_RULE,
    Cause,
    CauseReason,
    has_control,
    invalid,
    is_file_path,
    quoted,
    word_causes,
)
from podvisor_controller.webhooks.validation_images import image_causes

_TABLE_TEXT = re.compile(r"[ -~]{0,256}")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,3}")
_VENDOR_ID = re.compile(r"[ -+\--~]{1,12}")
_MOST_SECONDS = 2**31 - 1
_LEAST_RETRIES, _MOST_RETRIES = 4095, 2**31 - 1
_MOST_ARGUMENTS = 2048
_REBOOT_POLICIES = ("Reboot", "Terminate")
_HPET_POLICIES = ("delay", "catchup", "merge", "discard")
_PIT_POLICIES = ("delay", "catchup", "discard")
_RTC_POLICIES = ("delay", "catchup")
_TRACKS = ("guest", "wall")


def board_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    """Checks everything about `domain` but processors, memory and devices."""
    yield from word_causes(domain.reboot_policy, f"{path}.rebootPolicy", _REBOOT_POLICIES)
    if domain.clock is not None:
        yield from _clock_causes(domain.clock, f"{path}.clock")
    if domain.features is not None:
        yield from _feature_causes(domain, path)
    if domain.chassis is not None:
        for field in msgspec.structs.fields(v1.Chassis):
            if not _TABLE_TEXT.fullmatch(getattr(domain.chassis, field.name)):
                text = "must be made up of at most 256 printable ASCII characters."
                yield invalid(f"{path}.chassis.{field.encode_name}", text)
    firmware = domain.firmware or v1.Firmware()
    if firmware.bootloader is not None:
        yield from _bootloader_causes(domain, firmware.bootloader, path)
    if firmware.kernel_boot is not None:
        yield from _kernel_causes(firmware.kernel_boot, f"{path}.firmware.kernelBoot")


def _clock_causes(clock: v1.Clock, field: str) -> Iterator[Cause]:
    if clock.utc is not None and clock.timezone:
        yield invalid(field, "must have one of utc and timezone, not both.")
    if clock.timezone and not _ZONE.fullmatch(clock.timezone):
        yield invalid(f"{field}.timezone", f"{quoted(clock.timezone)} is not a time zone.")
    offset_s = clock.utc.offset_seconds if clock.utc is not None else None
    if offset_s is not None and abs(offset_s) > _MOST_SECONDS:
        text = f"must be between -{_MOST_SECONDS} and {_MOST_SECONDS}."
        yield invalid(f"{field}.utc.offsetSeconds", text)
    timer = clock.timer or v1.Timer()
    for name, policy, allowed in (
        ("hpet", timer.hpet.tick_policy if timer.hpet else "", _HPET_POLICIES),
        ("pit", timer.pit.tick_policy if timer.pit else "", _PIT_POLICIES),
        ("rtc", timer.rtc.tick_policy if timer.rtc else "", _RTC_POLICIES),
    ):
        yield from word_causes(policy, f"{field}.timer.{name}.tickPolicy", allowed)
    if timer.rtc is not None:
        yield from word_causes(timer.rtc.track, f"{field}.timer.rtc.track", _TRACKS)


def _feature_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    field = f"{path}.features"
    features = domain.features or v1.Features()
    passthrough = features.hyperv_passthrough
    if features.hyperv is None:
        return
    if passthrough is not None and passthrough.enabled:
        text = "cannot be on with hyperv: it has all of it."
        yield invalid(f"{field}.hypervPassthrough.enabled", text)
    yield from _hyperv_causes(features.hyperv, f"{field}.hyperv")
    for index, each in enumerate((domain.cpu.features if domain.cpu else None) or ()):
        if _asks_for(features.hyperv, NEEDS_VMX) and each.name == VMX and each.policy in LACKING:
            text = f"is {each.policy}, and {NEEDS_VMX} of features.hyperv cannot do without {VMX}."
            yield invalid(f"{path}.cpu.features[{index}].policy", text)
    timer = domain.clock.timer.hyperv if domain.clock and domain.clock.timer else None
    if _asks_for(features.hyperv, NEEDS_TIMER) and timer is not None and timer.present is False:
        text = f"is false, which {NEEDS_TIMER} of features.hyperv cannot do without."
        yield invalid(f"{path}.clock.timer.hyperv.present", text)


def _hyperv_causes(hyperv: v1.FeatureHyperv, field: str) -> Iterator[Cause]:
    for name, needed in HYPERV_NEEDS:
        other = getattr(hyperv, needed)
        if _asks_for(hyperv, name) and other is not None and other.enabled is False:
            yield invalid(f"{field}.{needed}.enabled", f"is false, which {name} cannot do without.")
    spinlocks = hyperv.spinlocks.spinlocks if hyperv.spinlocks is not None else None
    if spinlocks is not None and not _LEAST_RETRIES <= spinlocks <= _MOST_RETRIES:
        text = f"must be between {_LEAST_RETRIES} and {_MOST_RETRIES}."
        yield invalid(f"{field}.spinlocks.spinlocks", text)
    vendor = hyperv.vendorid
    if (
        vendor is not None
        and vendor.enabled is not False
        and not _VENDOR_ID.fullmatch(vendor.vendorid)
    ):
        text = "must be 1 to 12 printable ASCII characters without a comma."
        yield invalid(f"{field}.vendorid.vendorid", text)


def _asks_for(hyperv: v1.FeatureHyperv, name: str) -> bool:
    state = getattr(hyperv, name)
    return state is not None and state.enabled is not False


def _bootloader_causes(domain: v1.Domain, bootloader: v1.Bootloader, path: str) -> Iterator[Cause]:
    features, field = domain.features or v1.Features(), f"{path}.firmware.bootloader"
    has_serial = domain.devices.autoattach_serial_console is not False
    if bootloader.bios is not None and bootloader.bios.use_serial and not has_serial:
        text = "is true, and devices.autoattachSerialConsole is false: there is no serial console."
        yield invalid(f"{field}.bios.useSerial", text)
    if bootloader.efi is None:
        return
    if features.acpi is not None and features.acpi.enabled is False:
        text = "is false, which firmware.bootloader.efi cannot do without."
        yield invalid(f"{path}.features.acpi.enabled", text)
    if bootloader.bios is not None:
        yield invalid(field, "must have one of bios and efi, not both.")
    smm = features.smm
    if bootloader.efi.secure_boot is not False and (smm is None or smm.enabled is False):
        text = "is true unless it is set to false, and needs domain.features.smm."
        yield invalid(f"{field}.efi.secureBoot", text)


def _kernel_causes(boot: v1.KernelBoot, field: str) -> Iterator[Cause]:
    if has_control(boot.kernel_args):
        yield invalid(f"{field}.kernelArgs", "must not have control characters.")
    if len(boot.kernel_args) > _MOST_ARGUMENTS:
        text = f"has {len(boot.kernel_args)} characters, at most {_MOST_ARGUMENTS} are possible."
        yield invalid(f"{field}.kernelArgs", text)
    image, field = boot.container, f"{field}.container"
    if image is None:
        text = "is required: it names the image that the kernel is in."
        yield invalid(field, text, CauseReason.REQUIRED)
        return
    yield from image_causes(image.image, image.image_pull_policy, image.image_pull_secret, field)
    if not image.kernel_path:
        text = "is required: an initial RAM disk alone starts nothing."
        yield invalid(f"{field}.kernelPath", text, CauseReason.REQUIRED)
    for name, path in (("kernelPath", image.kernel_path), ("initrdPath", image.initrd_path)):
        if path and not is_file_path(path):
            yield invalid(f"{field}.{name}", f"{quoted(path)} {FILE_PATH_RULE}.")
