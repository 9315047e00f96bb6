"""Devices that are neither disks nor interfaces: which there are, and where.

Invariant: pure. Those on the PCI bus have places of their own on slot 30, one for each kind, where no port costs time: none moves
another, nor any disk or interface, when it comes or goes with the next start. Only inputs on bus virtio, of which there can be
several, have ports, behind all other devices.
"""

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain import device_elements as xml
from podvisor_launcher.domain import elements
from podvisor_launcher.domain.disks import ALIAS_PREFIX
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.pci import PciBus
from podvisor_launcher.domain.place_elements import Alias
from podvisor_launcher.domain.virtio import fixed_model

VIDEO_MEMORY_KIB = 16384

_VGA = "vga"
# Those that have memory of a size that can be chosen.
_VIDEO_WITH_MEMORY = (_VGA, "cirrus", "bochs")
_VIDEO_MODELS = (*_VIDEO_WITH_MEMORY, "virtio", "ramfb")
_ACTIONS = ("poweroff", "shutdown", "reset")
_SOUND_MODELS = ("ich9", "ac97")
_INPUT_BUSES = ("usb", "virtio")
_PVPANIC = "pvpanic"
_PANIC_MODELS = ("isa", "hyperv", _PVPANIC)
_POLICIES = ("force", "require", "optional", "disable", "forbid")


def check_peripherals(spec: pb.DomainSpec) -> None:
    """Raise UnbuildableSpec when no machine can ever have these devices and features of processors."""
    for what, values, allowed in (
        ("video card", [spec.video_model] if spec.video_model else [], _VIDEO_MODELS),
        ("watchdog", [spec.watchdog.action] if spec.HasField("watchdog") else [], _ACTIONS),
        ("sound card", [spec.sound.model] if spec.HasField("sound") else [], _SOUND_MODELS),
        ("input", [each.bus for each in spec.inputs], _INPUT_BUSES),
        ("input", [each.type for each in spec.inputs], ("tablet",)),
        ("panic device", spec.panic_models, _PANIC_MODELS),
        ("processor feature", [each.policy for each in spec.cpu_features], _POLICIES),
    ):
        for value in values:
            if value not in allowed:
                raise UnbuildableSpec(f'{what}: "{value}" is none of {", ".join(allowed)}')
    for what, names in (
        ("input", [each.name for each in spec.inputs]),
        ("processor feature", [each.name for each in spec.cpu_features]),
        ("panic device", list(spec.panic_models)),
    ):
        if len(set(names)) != len(names) or not all(names):
            raise UnbuildableSpec(f"every {what} needs a name of its own")
    if spec.io_threads.shared and spec.io_threads.pool:
        raise UnbuildableSpec("I/O threads are either given in turn or used by all disks")


def has_places(spec: pb.DomainSpec) -> bool:
    """Whether one of the devices is on slot 30, or a controller for them."""
    return bool(
        spec.rng
        or spec.HasField("watchdog")
        or spec.HasField("sound")
        or spec.HasField("memory_balloon")
        or _PVPANIC in spec.panic_models
        or any(each.bus == "usb" for each in spec.inputs)
    )


def build_video(spec: pb.DomainSpec) -> elements.Video:
    """The video card."""
    model = spec.video_model or _VGA
    return elements.Video(
        model=elements.VideoModel(
            type=model,
            vram=VIDEO_MEMORY_KIB if model in _VIDEO_WITH_MEMORY else None,
            heads=1,
            primary=True,
        ),
        address=None if model == "ramfb" else PciBus.VIDEO_ADDRESS,
    )


def build_inputs(spec: pb.DomainSpec, bus: PciBus) -> tuple[xml.Input, ...]:
    """The pointing devices. Raises TooManyDevices."""
    return tuple(
        xml.Input(
            type=each.type,
            bus=each.bus,
            alias=_alias("input", each.name),
            address=bus.next_address() if each.bus == "virtio" else None,
        )
        for each in spec.inputs
    )


def build_sounds(spec: pb.DomainSpec) -> tuple[xml.Sound, ...]:
    """The sound card, if there is one."""
    if not spec.HasField("sound"):
        return ()
    alias = _alias("sound", spec.sound.name)
    return (xml.Sound(model=spec.sound.model, alias=alias, address=PciBus.SOUND_ADDRESS),)


def build_watchdogs(spec: pb.DomainSpec) -> tuple[xml.Watchdog, ...]:
    """The watchdog, if there is one."""
    if not spec.HasField("watchdog"):
        return ()
    return (
        xml.Watchdog(
            model="i6300esb",
            action=spec.watchdog.action,
            alias=_alias("watchdog", spec.watchdog.name),
            address=PciBus.WATCHDOG_ADDRESS,
        ),
    )


def build_tpms(spec: pb.DomainSpec) -> tuple[xml.Tpm, ...]:
    """The TPM, if there is one. libvirt starts the process that is behind it, and keeps its state among its own files."""
    if not spec.tpm:
        return ()
    return (xml.Tpm(model="tpm-crb", backend=xml.TpmBackend(type="emulator", version="2.0")),)


def build_rngs(spec: pb.DomainSpec) -> tuple[xml.Rng, ...]:
    """The source of random numbers, if there is one."""
    if not spec.rng:
        return ()
    backend = xml.RngBackend(model="random", path="/dev/urandom")
    return (xml.Rng(model=fixed_model(spec), backend=backend, address=PciBus.RNG_ADDRESS),)


def build_panics(spec: pb.DomainSpec) -> tuple[xml.Panic, ...]:
    """The devices that tell of a panic. That of Hyper-V is an interface of the hypervisor, which QEMU's translator is not."""
    tcg = spec.accelerator == pb.ACCELERATOR_TCG
    return tuple(
        xml.Panic(model=model, address=PciBus.PANIC_ADDRESS if model == _PVPANIC else None)
        for model in spec.panic_models
        if not (tcg and model == "hyperv")
    )


def build_memory_balloon(spec: pb.DomainSpec) -> xml.MemoryBalloon:
    """The balloon; one of no model where there shall be none, for libvirt would add one."""
    if not spec.HasField("memory_balloon"):
        return xml.MemoryBalloon(model="none")
    period_s = spec.memory_balloon.stats_period_s
    return xml.MemoryBalloon(
        model=fixed_model(spec),
        stats=xml.BalloonStats(period=period_s) if period_s else None,
        address=PciBus.BALLOON_ADDRESS,
    )


def _alias(kind: str, name: str) -> Alias | None:
    """Names are a kind's own, aliases are the machine's. No name in a manifest has an underscore, so none of a disk is the same."""
    return Alias(name=f"{ALIAS_PREFIX}{kind}_{name}") if name else None
