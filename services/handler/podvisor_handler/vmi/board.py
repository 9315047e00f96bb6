"""The board of a manifest → clocks, features, tables and firmware of a DomainSpec.

Invariant: pure. What the manifest leaves to its defaults is said here, so that a launcher needs none; what it does not speak of
stays unset.
"""

from collections.abc import Iterator

import msgspec
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.api.hyperv import HYPERV_NEEDS, NEEDS_TIMER, NEEDS_VMX, VMX
from podvisor_common.api.quantity import QuantityError, quantity_to_int
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import IMAGES_DIRECTORY, KERNEL_IMAGE

from podvisor_handler.vmi.errors import SpecRefused

DEFAULT_SPINLOCK_RETRIES = 4096
_TERMINATE = "Terminate"
# By the manifest's names.
_HYPERV_NAMES = {"synictimer": "stimer", "vendorid": "vendor_id"}
_HYPERV_TIMER = "hypervclock"
_SYSTEM = ("manufacturer", "product", "version", "sku", "family")
_CHASSIS = ("manufacturer", "version", "serial", "asset", "sku")
_TABLE_TEXT_LIMIT = 256


def set_board(spec: domain_pb2.DomainSpec, vmi: v1.VirtualMachineInstance, pod: core.Pod) -> None:
    """Complete `spec` by what `vmi` says of its board, and the cluster's settings, in `pod`. Raises SpecRefused."""
    domain = vmi.spec.domain
    firmware = domain.firmware or v1.Firmware()
    # What says nothing but the defaults stays unset: a launcher of an earlier release, which knows none of it, does the same.
    if domain.clock is not None and (clock := _clock(domain.clock)).ByteSize():
        spec.clock.CopyFrom(clock)
    if domain.features is not None and (features := _features(domain.features)).ByteSize():
        spec.features.CopyFrom(features)
    if domain.chassis is not None and any(getattr(domain.chassis, name) for name in _CHASSIS):
        given = {name: getattr(domain.chassis, name) for name in _CHASSIS}
        spec.chassis.CopyFrom(domain_pb2.ChassisSpec(**given))
    _set_system(spec, pod)
    if firmware.bootloader is not None:
        _set_bootloader(spec, firmware.bootloader)
    if firmware.kernel_boot is not None:
        spec.kernel_boot.CopyFrom(_kernel_boot(firmware.kernel_boot))
    spec.ends_on_reboot = domain.reboot_policy == _TERMINATE
    for feature in (domain.cpu.features if domain.cpu else None) or ():
        spec.cpu_features.add(name=feature.name, policy=feature.policy or "require")
    if domain.features is not None and domain.features.hyperv is not None:
        _complete_for_hyperv(spec, domain.features.hyperv)
    if domain.memory is not None and domain.memory.hugepages is not None:
        spec.hugepage_bytes = _page_bytes(domain.memory.hugepages)


def _complete_for_hyperv(spec: domain_pb2.DomainSpec, hyperv: v1.FeatureHyperv) -> None:
    """What the interfaces of Hyper-V need of clock and processors, where admission has not said it."""
    has_timer = any(each.name == _HYPERV_TIMER for each in spec.clock.timers)
    if _is_wanted(hyperv, NEEDS_TIMER) and not has_timer:
        spec.clock.timers.add(name=_HYPERV_TIMER)
    has_vmx = any(each.name == VMX for each in spec.cpu_features)
    if _is_wanted(hyperv, NEEDS_VMX) and not has_vmx:
        spec.cpu_features.add(name=VMX, policy="require")


def _is_wanted(hyperv: v1.FeatureHyperv, name: str) -> bool:
    state = getattr(hyperv, name)
    return state is not None and _is_on(state)


def _clock(clock: v1.Clock) -> domain_pb2.ClockSpec:
    timer = clock.timer or v1.Timer()
    hpet, pit, rtc = timer.hpet, timer.pit, timer.rtc
    spec = domain_pb2.ClockSpec(
        timezone=clock.timezone or "",
        offset_s=(clock.utc.offset_seconds or 0) if clock.utc is not None else 0,
    )
    if hpet is not None:
        spec.timers.add(name="hpet", absent=hpet.present is False, tick_policy=hpet.tick_policy)
    if pit is not None:
        spec.timers.add(name="pit", absent=pit.present is False, tick_policy=pit.tick_policy)
    if rtc is not None:
        spec.timers.add(
            name="rtc",
            absent=rtc.present is False,
            tick_policy=rtc.tick_policy,
            track=rtc.track,
        )
    for name, plain in (("kvmclock", timer.kvm), (_HYPERV_TIMER, timer.hyperv)):
        if plain is not None:
            spec.timers.add(name=name, absent=plain.present is False)
    return spec


def _features(features: v1.Features) -> domain_pb2.FeaturesSpec:
    apic, kvm = features.apic or v1.FeatureAPIC(), features.kvm or v1.FeatureKVM()
    return domain_pb2.FeaturesSpec(
        without_acpi=features.acpi is not None and not _is_on(features.acpi),
        without_apic=apic.enabled is False,
        apic_end_of_interrupt=_switch(apic.end_of_interrupt),
        smm=_switch_of(features.smm),
        pv_spinlock=_switch_of(features.pvspinlock),
        kvm_hidden=kvm.hidden is True,
        hyperv=_hyperv(features),
    )


def _switch_of(state: v1.FeatureState | None) -> domain_pb2.Switch.ValueType:
    return _switch(None if state is None else _is_on(state))


def _switch(is_on: bool | None) -> domain_pb2.Switch.ValueType:
    if is_on is None:
        return domain_pb2.SWITCH_UNSPECIFIED
    return domain_pb2.SWITCH_ON if is_on else domain_pb2.SWITCH_OFF


def _is_on(state: v1.FeatureState) -> bool:
    return state.enabled is not False


def _hyperv(features: v1.Features) -> domain_pb2.HypervSpec | None:
    passthrough = features.hyperv_passthrough
    if passthrough is not None and passthrough.enabled:
        return domain_pb2.HypervSpec(passthrough=True)
    if features.hyperv is None:
        return None
    found = domain_pb2.HypervSpec(features=_hyperv_features(features.hyperv))
    return found if found.features else None


def _hyperv_features(hyperv: v1.FeatureHyperv) -> Iterator[domain_pb2.HypervFeatureSpec]:
    given = {
        field.name: value
        for field in msgspec.structs.fields(v1.FeatureHyperv)
        if (value := getattr(hyperv, field.name)) is not None
    }
    for name, needed in HYPERV_NEEDS:
        if name in given and given[name].enabled is not False:
            given.setdefault(needed, v1.FeatureState())
    for name, value in given.items():
        feature = domain_pb2.HypervFeatureSpec(
            name=_HYPERV_NAMES.get(name, name), off=value.enabled is False
        )
        if isinstance(value, v1.FeatureSpinlocks):
            retries = value.spinlocks
            feature.retries = DEFAULT_SPINLOCK_RETRIES if retries is None else retries
        elif isinstance(value, v1.FeatureVendorID):
            feature.vendor_id = value.vendorid
        elif isinstance(value, v1.SyNICTimer):
            feature.direct = value.direct is not None and _is_on(value.direct)
        yield feature


def _set_system(spec: domain_pb2.DomainSpec, pod: core.Pod) -> None:
    """What the cluster's settings were when the pod was made. What does not make sense there says nothing."""
    text = pod.metadata.annotation(names.SMBIOS_ANNOTATION)
    if text is None:
        return
    try:
        smbios = msgspec.json.decode(text, type=v1.SMBios)
    except msgspec.DecodeError:
        return
    given = {name: _printable(getattr(smbios, name)) for name in _SYSTEM}
    if any(given.values()):
        spec.system.CopyFrom(domain_pb2.SystemSpec(**given))


def _printable(text: str) -> str:
    kept = (character for character in text if " " <= character <= "~")
    return "".join(kept)[:_TABLE_TEXT_LIMIT]


def _set_bootloader(spec: domain_pb2.DomainSpec, bootloader: v1.Bootloader) -> None:
    if bootloader.efi is not None:
        secure = bootloader.efi.secure_boot is not False
        if secure and spec.features.smm != domain_pb2.SWITCH_ON:
            raise SpecRefused(
                "spec.domain.firmware.bootloader.efi: secureBoot, which is true by default, needs features.smm"
            )
        spec.bootloader.efi.CopyFrom(domain_pb2.EfiSpec(secure_boot=secure))
    elif bootloader.bios is not None and bootloader.bios.use_serial:
        spec.bootloader.bios_serial = True


def _kernel_boot(boot: v1.KernelBoot) -> domain_pb2.KernelBootSpec:
    image = boot.container
    if image is None or not image.kernel_path:
        raise SpecRefused("spec.domain.firmware.kernelBoot: it names no kernel in a container")
    return domain_pb2.KernelBootSpec(
        image_root=f"{IMAGES_DIRECTORY}/{KERNEL_IMAGE}",
        kernel_path=image.kernel_path,
        initrd_path=image.initrd_path,
        kernel_args=boot.kernel_args,
    )


def _page_bytes(hugepages: v1.Hugepages) -> int:
    try:
        size_bytes = quantity_to_int(hugepages.page_size)
    except QuantityError as error:
        raise SpecRefused(f"spec.domain.memory.hugepages.pageSize: {error}") from error
    if size_bytes <= 0:
        raise SpecRefused("spec.domain.memory.hugepages.pageSize must be more than nothing")
    return size_bytes
