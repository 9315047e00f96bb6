"""What is wrong with devices of a machine that are neither disks nor interfaces, and with the threads of disks. Pure."""

import re
from collections.abc import Iterator

from podvisor_common.api import v1

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    quoted,
    word_causes,
)

# What libvirt allows in the name of a device.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_ACTIONS = ("poweroff", "shutdown", "reset")
_SOUND_MODELS = ("ich9", "ac97")
_INPUT_BUSES = ("usb", "virtio")
_INPUT_TYPES = ("tablet",)
_VIDEO_TYPES = ("vga", "cirrus", "virtio", "ramfb", "bochs")
_PANIC_MODELS = ("isa", "hyperv", "pvpanic")
_POOL = "supplementalPool"
_THREAD_POLICIES = ("shared", "auto", _POOL)
_MOST_INPUTS = 16
_MOST_THREADS = 256


def peripheral_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    """Checks those devices, each for itself and against others of its kind."""
    devices, field = domain.devices, f"{path}.devices"
    if devices.watchdog is not None:
        yield from _watchdog_causes(devices.watchdog, f"{field}.watchdog")
    if devices.sound is not None:
        yield from _name_causes(devices.sound.name, f"{field}.sound.name")
        yield from word_causes(devices.sound.model, f"{field}.sound.model", _SOUND_MODELS)
    yield from _input_causes(devices.inputs or [], f"{field}.inputs")
    if devices.video is not None:
        yield from word_causes(devices.video.type, f"{field}.video.type", _VIDEO_TYPES)
        if devices.autoattach_graphics_device is False:
            yield invalid(
                f"{field}.video", "needs autoattachGraphicsDevice, which is set to false."
            )
    yield from _panic_causes(devices.panic_devices or [], f"{field}.panicDevices")
    yield from _thread_causes(domain, path)


def _watchdog_causes(watchdog: v1.Watchdog, field: str) -> Iterator[Cause]:
    if watchdog.name:
        yield from _name_causes(watchdog.name, f"{field}.name")
    if watchdog.i6300esb is None:
        text = "is required: it is the only model of a watchdog."
        yield invalid(f"{field}.i6300esb", text, CauseReason.REQUIRED)
    else:
        yield from word_causes(watchdog.i6300esb.action, f"{field}.i6300esb.action", _ACTIONS)


def _input_causes(inputs: list[v1.Input], base: str) -> Iterator[Cause]:
    if len(inputs) > _MOST_INPUTS:
        yield invalid(base, f"has {len(inputs)} entries; there can be {_MOST_INPUTS}.")
    seen: dict[str, int] = {}
    for index, each in enumerate(inputs):
        field = f"{base}[{index}]"
        if each.name in seen:
            text = f"{base}[{seen[each.name]}] and {field} must not have the same Name ({quoted(each.name)})."
            yield Cause(f"{field}.name", text, CauseReason.DUPLICATE)
        seen.setdefault(each.name, index)
        yield from _name_causes(each.name, f"{field}.name")
        yield from word_causes(each.bus, f"{field}.bus", _INPUT_BUSES)
        yield from word_causes(each.type, f"{field}.type", _INPUT_TYPES)


def _name_causes(name: str, field: str) -> Iterator[Cause]:
    if not name:
        yield invalid(field, "is empty: it must name the device.", CauseReason.REQUIRED)
    elif not _NAME.fullmatch(name):
        text = "must be at most 63 letters, digits, dashes and underscores."
        yield invalid(field, f"{quoted(name)} {text}")


def _panic_causes(devices: list[v1.PanicDevice], base: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, device in enumerate(devices):
        field, model = f"{base}[{index}].model", device.model or "isa"
        yield from word_causes(model, field, _PANIC_MODELS)
        if model in seen:
            text = f"{quoted(model)} is there already: a machine has one of each."
            yield invalid(field, text, CauseReason.DUPLICATE)
        seen.add(model)


def _thread_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    policy = domain.io_threads_policy
    yield from word_causes(policy, f"{path}.ioThreadsPolicy", _THREAD_POLICIES)
    count = domain.io_threads.supplemental_pool_thread_count if domain.io_threads else None
    field = f"{path}.ioThreads.supplementalPoolThreadCount"
    if policy == _POOL and (count is None or not 1 <= count <= _MOST_THREADS):
        yield invalid(field, f"must be between 1 and {_MOST_THREADS} with policy {_POOL}.")
    if policy != _POOL and count is not None:
        yield invalid(field, f"needs ioThreadsPolicy {_POOL}.")
