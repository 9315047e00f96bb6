"""What admission fills into the hardware that a machine asks for, where the manifest leaves it open. Pure.

Invariant: nothing is made that was not asked for, and a value that makes no sense is left for validation to refuse.
"""

from typing import Any

Json = dict[str, Any]

_TIMERS = ("hpet", "kvm", "pit", "rtc", "hyperv")
_FEATURES = ("acpi", "apic", "smm", "pvspinlock")
# What one interface of Hyper-V needs, in an order in which nothing is needed by what comes later.
_HYPERV_NEEDS = (
    ("synictimer", "synic"),
    ("synic", "vpindex"),
    ("tlbflush", "vpindex"),
    ("ipi", "vpindex"),
    ("evmcs", "vapic"),
)
_SPINLOCK_RETRIES = 4096


def default_hardware(domain: Json) -> None:
    """Complete clock, features and devices of a specification's domain."""
    clock = _object(domain, "clock")
    if clock is not None and clock.get("utc") is None and not clock.get("timezone"):
        clock["utc"] = {}
    timer = _object(clock, "timer")
    for name in _TIMERS:
        _fill(_object(timer, name), present=True)
    features = _object(domain, "features")
    for name in _FEATURES:
        _fill(_object(features, name), enabled=True)
    _default_hyperv(_object(features, "hyperv"))
    devices = _object(domain, "devices")
    _fill(_object(_object(devices, "watchdog"), "i6300esb"), action="reset")
    inputs = devices.get("inputs") if devices is not None else None
    for each in inputs if isinstance(inputs, list) else ():
        _fill(each if isinstance(each, dict) else None, bus="usb", type="tablet")


def _default_hyperv(hyperv: Json | None) -> None:
    if hyperv is None:
        return
    for name, needed in _HYPERV_NEEDS:
        feature = _object(hyperv, name)
        if feature is not None and feature.get("enabled") is not False:
            hyperv[needed] = hyperv.get(needed) or {}
    for name in hyperv:
        _fill(_object(hyperv, name), enabled=True)
    spinlocks = _object(hyperv, "spinlocks")
    if spinlocks is not None and spinlocks.get("enabled") is True:
        _fill(spinlocks, spinlocks=_SPINLOCK_RETRIES)


def _object(value: Json | None, key: str) -> Json | None:
    child = value.get(key) if value is not None else None
    return child if isinstance(child, dict) else None


def _fill(value: Json | None, **defaults: object) -> None:
    """Give a field that is left out, null or empty its default."""
    for name, default in defaults.items():
        if value is not None and value.get(name) in (None, ""):
            value[name] = default
