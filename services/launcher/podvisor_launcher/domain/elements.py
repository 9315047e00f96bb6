"""The parts of libvirt's domain XML that podvisor speaks, one class per element: https://libvirt.org/formatdomain.html.

Pure form: no defaults that decide anything, no policy. build.py decides what a machine consists of.
"""

from podvisor_launcher.domain.board_elements import Clock, Features, Os, Sysinfo
from podvisor_launcher.domain.device_elements import (
    Input,
    MemoryBalloon,
    Panic,
    Rng,
    Sound,
    Tpm,
    Watchdog,
)
from podvisor_launcher.domain.disk_elements import Disk
from podvisor_launcher.domain.filesystem_elements import Filesystem, MemoryBacking
from podvisor_launcher.domain.interface_elements import Interface
from podvisor_launcher.domain.place_elements import Address, Alias
from podvisor_launcher.domain.xml import attribute, child, children, element, leaf, text


@element("memory")
class Memory:
    """The guest's memory."""

    unit: str | None = attribute(default=None)
    value: int = text()


@element("topology")
class Topology:
    """How the guest's processors are arranged."""

    sockets: int = attribute()
    dies: int | None = attribute(default=None)
    cores: int = attribute()
    threads: int = attribute()


@element("model")
class CpuModel:
    """A named CPU model."""

    fallback: str | None = attribute(default=None)
    name: str = text()


@element("feature")
class CpuFeature:
    """A feature of the processor beside those of its model."""

    policy: str = attribute()
    name: str = attribute()


@element("cpu")
class Cpu:
    """The processor the guest sees."""

    mode: str | None = attribute(default=None)
    match: str | None = attribute(default=None)
    check: str | None = attribute(default=None)
    model: CpuModel | None = child(default=None)
    topology: Topology | None = child(default=None)
    features: tuple[CpuFeature, ...] = children()


@element("target")
class PortTarget:
    """The identity of a PCIe root port."""

    chassis: int = attribute()
    port: str = attribute()


@element("driver")
class ControllerDriver:
    """How requests pass between the guest and a controller."""

    queues: int | None = attribute(default=None)


@element("controller")
class Controller:
    """A bus controller."""

    type: str = attribute()
    index: int | None = attribute(default=None)
    model: str | None = attribute(default=None)
    ports: int | None = attribute(default=None)
    driver: ControllerDriver | None = child(default=None)
    target: PortTarget | None = child(default=None)
    alias: Alias | None = child(default=None)
    address: Address | None = child(default=None)


@element("source")
class SocketSource:
    """A unix socket."""

    mode: str | None = attribute(default=None)
    path: str | None = attribute(default=None)


@element("log")
class CharacterLog:
    """A file that gets a copy of what a character device prints."""

    file: str = attribute()
    append: str | None = attribute(default=None)


@element("target")
class SerialTarget:
    """Which serial port."""

    type: str | None = attribute(default=None)
    port: int | None = attribute(default=None)


@element("serial")
class Serial:
    """A serial port."""

    type: str = attribute()
    source: SocketSource | None = child(default=None)
    log: CharacterLog | None = child(default=None)
    target: SerialTarget | None = child(default=None)
    alias: Alias | None = child(default=None)


@element("target")
class ChannelTarget:
    """By what name the guest finds a channel; `state` says whether it has opened it."""

    type: str = attribute()
    name: str | None = attribute(default=None)
    state: str | None = attribute(default=None)


@element("channel")
class Channel:
    """A way for programs in the guest to speak with the node."""

    type: str = attribute()
    source: SocketSource | None = child(default=None)
    target: ChannelTarget = child()


@element("listen")
class Listen:
    """Where a display server listens."""

    type: str = attribute()
    socket: str | None = attribute(default=None)


@element("graphics")
class Graphics:
    """A display server."""

    type: str = attribute()
    listen: Listen | None = child(default=None)


@element("model")
class VideoModel:
    """The model of a video card; memory in KiB."""

    type: str = attribute()
    vram: int | None = attribute(default=None)
    heads: int | None = attribute(default=None)
    primary: bool | None = attribute(default=None)


@element("video")
class Video:
    """A video card."""

    model: VideoModel = child()
    address: Address | None = child(default=None)


@element("devices")
class Devices:
    """Everything the guest finds on its buses."""

    emulator: str | None = leaf(default=None)
    disks: tuple[Disk, ...] = children()
    controllers: tuple[Controller, ...] = children()
    filesystems: tuple[Filesystem, ...] = children()
    interfaces: tuple[Interface, ...] = children()
    serials: tuple[Serial, ...] = children()
    channels: tuple[Channel, ...] = children()
    graphics: tuple[Graphics, ...] = children()
    videos: tuple[Video, ...] = children()
    inputs: tuple[Input, ...] = children()
    sounds: tuple[Sound, ...] = children()
    watchdogs: tuple[Watchdog, ...] = children()
    tpms: tuple[Tpm, ...] = children()
    rngs: tuple[Rng, ...] = children()
    panics: tuple[Panic, ...] = children()
    memory_balloon: MemoryBalloon | None = child(default=None)


@element("domain")
class Domain:
    """A machine."""

    type: str = attribute()
    name: str = leaf()
    uuid: str | None = leaf(default=None)
    memory: Memory = child()
    memory_backing: MemoryBacking | None = child(default=None)
    vcpus: int = leaf("vcpu")
    io_threads: int | None = leaf("iothreads", default=None)
    sysinfo: Sysinfo | None = child(default=None)
    os: Os = child()
    features: Features | None = child(default=None)
    cpu: Cpu | None = child(default=None)
    clock: Clock | None = child(default=None)
    on_poweroff: str | None = leaf(default=None)
    on_reboot: str | None = leaf(default=None)
    on_crash: str | None = leaf(default=None)
    devices: Devices = child()
