"""What admission fills into the hardware that a machine asks for, where the manifest leaves it open. Pure.

Invariant: nothing is made that was not asked for, and a value that makes no sense is left for validation to refuse.
"""

from typing import Any

from podvisor_common.api.hyperv import HYPERV_NEEDS, NEEDS_TIMER, NEEDS_VMX, VMX

Json = dict[str, Any]

_TIMERS = ("hpet", "kvm", "pit", "rtc", "hyperv")
_FEATURES = ("acpi", "apic", "smm", "pvspinlock")
_SPINLOCK_RETRIES = 4096


def default_hardware(domain: Json) -> None:
    """Complete clock, features and devices of a specification's domain."""
    hyperv = _object(_object(domain, "features"), "hyperv")
    _default_hyperv(hyperv)
    _default_beside_hyperv(domain, hyperv)
    clock = _object(domain, "clock")
    if clock is not None and clock.get("utc") is None and not clock.get("timezone"):
        clock["utc"] = {}
    timer = _object(clock, "timer")
    for name in _TIMERS:
        _fill(_object(timer, name), present=True)
    features = _object(domain, "features")
    for name in _FEATURES:
        _fill(_object(features, name), enabled=True)
    devices = _object(domain, "devices")
    _fill(_object(_object(devices, "watchdog"), "i6300esb"), action="reset")
    inputs = devices.get("inputs") if devices is not None else None
    for each in inputs if isinstance(inputs, list) else ():
        _fill(each if isinstance(each, dict) else None, bus="usb", type="tablet")


def _default_hyperv(hyperv: Json | None) -> None:
    if hyperv is None:
        return
    for name, needed in HYPERV_NEEDS:
        if _is_on(hyperv, name):
            hyperv[needed] = hyperv.get(needed) or {}
    for name in hyperv:
        _fill(_object(hyperv, name), enabled=True)
    spinlocks = _object(hyperv, "spinlocks")
    if spinlocks is not None and spinlocks.get("enabled") is True:
        _fill(spinlocks, spinlocks=_SPINLOCK_RETRIES)


def _default_beside_hyperv(domain: Json, hyperv: Json | None) -> None:
    """What Hyper-V's interfaces need of clock and processors."""
    if _is_on(hyperv, NEEDS_TIMER):
        timer = _room(_room(domain, "clock"), "timer")
        if timer is not None and timer.get("hyperv") is None:
            timer["hyperv"] = {}
    cpu = _room(domain, "cpu") if _is_on(hyperv, NEEDS_VMX) else None
    features = (cpu.get("features") or []) if cpu is not None else None
    if cpu is not None and isinstance(features, list):
        named = [each.get("name") for each in features if isinstance(each, dict)]
        if VMX not in named:
            cpu["features"] = [*features, {"name": VMX, "policy": "require"}]


def _is_on(hyperv: Json | None, name: str) -> bool:
    feature = _object(hyperv, name)
    return feature is not None and feature.get("enabled") is not False


def _room(value: Json | None, key: str) -> Json | None:
    """The object under a key, made when there is nothing; None when something else stands there."""
    if value is not None and value.get(key) is None:
        value[key] = {}
    return _object(value, key)


def _object(value: Json | None, key: str) -> Json | None:
    child = value.get(key) if value is not None else None
    return child if isinstance(child, dict) else None


def _fill(value: Json | None, **defaults: object) -> None:
    """Give a field that is left out, null or empty its default."""
    for name, default in defaults.items():
        if value is not None and value.get(name) in (None, ""):
            value[name] = default
