"""From a specification and its disks to a libvirt domain. All policy about virtual hardware is here.

Invariants: pure, and deterministic down to every PCI address, so that a machine looks the same to its guest after every
restart and on every node. No device that nobody asked for, but the agent's channel: each costs memory and boot time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain import agent_channel
from podvisor_launcher.domain import board_elements as board_xml
from podvisor_launcher.domain import elements as xml
from podvisor_launcher.domain.board import (
    build_clock,
    build_features,
    build_os,
    build_sysinfo,
    check_board,
)
from podvisor_launcher.domain.disks import (
    ALIAS_PREFIX,
    Image,
    ResolvedDisk,
    build_disks,
    check_disk,
    io_threads,
)
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.filesystems import (
    build_filesystems,
    check_filesystems,
    memory_backing,
)
from podvisor_launcher.domain.interfaces import (
    build_interfaces,
    build_pluggable,
    check_interface,
)
from podvisor_launcher.domain.pci import PciBus, chosen_buses
from podvisor_launcher.domain.peripherals import (
    build_inputs,
    build_memory_balloon,
    build_panics,
    build_rngs,
    build_sounds,
    build_tpms,
    build_video,
    build_watchdogs,
    check_peripherals,
    has_places,
)
from podvisor_launcher.domain.place_elements import Address, Alias
from podvisor_launcher.domain.virtio import TRANSITIONAL, fixed_model

__all__ = [
    "ConsolePaths",
    "Image",
    "ResolvedDisk",
    "UnbuildableSpec",
    "build_domain",
    "check_spec",
    "domain_name",
]

EMULATOR = "/usr/bin/qemu-system-x86_64"
# What QEMU keeps of translated code: a third of the guest's memory, within bounds. Larger systems run more code, and a full one
# boots in three quarters of the time once it has 256 MiB in place of 64. Without a bound QEMU takes up to 1 GiB.
TRANSLATION_CACHE_SHARE = 3
TRANSLATION_CACHE_MIN_MIB = 40
TRANSLATION_CACHE_MAX_MIB = 256
# Ports that stay empty for what comes later: a controller for SCSI disks, and three disks on bus virtio or interfaces. Every port
# takes time of the firmware and of the guest.
SPARE_ROOT_PORTS = 4


@dataclass(frozen=True, slots=True)
class ConsolePaths:
    """Where QEMU puts its sockets, its log and its firmware's variables, and finds the sockets of the trees of files that are
    shared."""

    serial_socket: str
    vnc_socket: str
    serial_log: str
    agent_socket: str
    shares: str = ""
    nvram: str = ""


def domain_name(spec: pb.DomainSpec) -> str:
    """libvirt's name of the machine."""
    return f"{spec.namespace}_{spec.name}"


def check_spec(spec: pb.DomainSpec) -> None:
    """Raise UnbuildableSpec when no machine can ever be built from `spec`."""
    if not (spec.namespace and spec.name and spec.uid):
        raise UnbuildableSpec("namespace, name and uid must be set")
    if spec.memory.guest_bytes <= 0:
        raise UnbuildableSpec("memory.guest_bytes must be positive")
    if min(spec.cpu.sockets, spec.cpu.cores, spec.cpu.threads) < 1:
        raise UnbuildableSpec("cpu needs at least one socket, core and thread")
    if spec.accelerator not in (pb.ACCELERATOR_KVM, pb.ACCELERATOR_TCG):
        raise UnbuildableSpec("accelerator must be KVM or TCG")
    for names in ([each.name for each in spec.disks], [each.name for each in spec.interfaces]):
        if len(set(names)) != len(names) or not all(names):
            raise UnbuildableSpec("every disk and interface needs a name of its own")
    for disk in spec.disks:
        check_disk(disk)
    for interface in spec.interfaces:
        check_interface(interface)
    chosen_buses(spec)
    check_filesystems(spec)
    check_board(spec)
    check_peripherals(spec)


def build_domain(
    spec: pb.DomainSpec, disks: Mapping[str, ResolvedDisk], consoles: ConsolePaths
) -> xml.Domain:
    """The machine that `spec` describes, with the files of `disks` (by name of the disk) behind its disks. A CD-ROM drive
    without any is empty; a disk that may come later is left out, and there is a place for it. Raises UnbuildableSpec and
    TooManyDevices."""
    tcg = spec.accelerator == pb.ACCELERATOR_TCG
    vcpus = spec.cpu.sockets * spec.cpu.cores * spec.cpu.threads
    return xml.Domain(
        type="qemu" if tcg else "kvm",
        name=domain_name(spec),
        uuid=spec.firmware_uuid or spec.uid,
        memory=xml.Memory(unit="KiB", value=-(-spec.memory.guest_bytes // 1024)),
        memory_backing=memory_backing(spec),
        vcpus=vcpus,
        io_threads=io_threads(spec) or None,
        sysinfo=build_sysinfo(spec),
        os=build_os(spec, consoles.nvram),
        features=build_features(
            spec.features,
            board_xml.Tcg(cache=_translation_cache(spec.memory)) if tcg else None,
            tcg=tcg,
        ),
        cpu=_cpu(spec, tcg),
        clock=build_clock(spec.clock, tcg=tcg),
        on_poweroff="destroy",
        on_reboot="destroy" if spec.ends_on_reboot else "restart",
        on_crash="destroy",
        devices=_devices(spec, disks, consoles),
    )


def _translation_cache(memory: pb.MemorySpec) -> board_xml.TranslationCache:
    share_mib = (memory.guest_bytes // TRANSLATION_CACHE_SHARE) >> 20
    size_mib = min(max(share_mib, TRANSLATION_CACHE_MIN_MIB), TRANSLATION_CACHE_MAX_MIB)
    return board_xml.TranslationCache(unit="MiB", size=size_mib)


def _cpu(spec: pb.DomainSpec, tcg: bool) -> xml.Cpu:
    cpu = spec.cpu
    topology = xml.Topology(sockets=cpu.sockets, cores=cpu.cores, threads=cpu.threads)
    features = tuple(
        xml.CpuFeature(policy=each.policy, name=each.name) for each in spec.cpu_features
    )
    model = cpu.model or ("qemu64" if tcg else "host-model")  # richer models only slow TCG down
    if model in ("host-model", "host-passthrough"):
        # Under TCG there is no host to model.
        return xml.Cpu(mode="maximum" if tcg else model, topology=topology, features=features)
    return xml.Cpu(
        mode="custom",
        match="exact",
        check="none" if tcg else "partial",
        model=xml.CpuModel(fallback="forbid", name=model),
        topology=topology,
        features=features,
    )


def _devices(
    spec: pb.DomainSpec, disks: Mapping[str, ResolvedDisk], consoles: ConsolePaths
) -> xml.Devices:
    bus = PciBus(chosen_buses(spec), SPARE_ROOT_PORTS)
    interfaces = build_interfaces(spec, bus)
    built_disks = build_disks(spec, disks, bus)
    controllers = [
        xml.Controller(type="pci", index=0, model="pcie-root"),
        *_controllers(spec, bus),
    ]
    filesystems = build_filesystems(spec, consoles.shares, bus)
    controllers.append(
        agent_channel.build_controller(fixed_model(spec), shares_slot=has_places(spec))
    )
    interfaces += build_pluggable(spec, bus)
    inputs = build_inputs(spec, bus)  # the last, so that none moves an interface
    controllers[1:1] = bus.root_ports
    return xml.Devices(
        emulator=EMULATOR,
        disks=built_disks,
        controllers=tuple(controllers),
        filesystems=filesystems,
        interfaces=interfaces,
        serials=(_serial(spec, consoles),) if spec.serial_console else (),
        channels=(agent_channel.build_channel(consoles.agent_socket),),
        graphics=(_graphics(consoles),) if spec.graphics else (),
        videos=(build_video(spec),) if spec.graphics else (),
        inputs=inputs,
        sounds=build_sounds(spec),
        watchdogs=build_watchdogs(spec),
        tpms=build_tpms(spec),
        rngs=build_rngs(spec),
        panics=build_panics(spec),
        memory_balloon=build_memory_balloon(spec),
    )


def _controllers(spec: pb.DomainSpec, bus: PciBus) -> list[xml.Controller]:
    """Of SCSI disks, if there are any, and of USB, of which libvirt would add one by itself."""
    found = []
    buses = {each.bus for each in spec.disks}
    if pb.DISK_BUS_SCSI in buses:
        vcpus = spec.cpu.sockets * spec.cpu.cores * spec.cpu.threads
        found.append(
            xml.Controller(
                type="scsi",
                index=0,
                model=TRANSITIONAL if spec.virtio_transitional else "virtio-scsi",
                driver=xml.ControllerDriver(queues=vcpus) if spec.block_multi_queue else None,
                address=bus.next_address(),
            )
        )
    address: Address | None = None
    if pb.DISK_BUS_USB in buses:
        address = bus.next_address()
    elif any(each.bus == "usb" for each in spec.inputs):
        address = PciBus.USB_ADDRESS
    model = "none" if address is None else "qemu-xhci"
    found.append(xml.Controller(type="usb", index=0, model=model, address=address))
    return found


def _serial(spec: pb.DomainSpec, consoles: ConsolePaths) -> xml.Serial:
    return xml.Serial(
        type="unix",
        source=xml.SocketSource(mode="bind", path=consoles.serial_socket),
        log=xml.CharacterLog(file=consoles.serial_log, append="on") if spec.serial_log else None,
        target=xml.SerialTarget(type="isa-serial", port=0),
        alias=Alias(name=f"{ALIAS_PREFIX}serial0"),
    )


def _graphics(consoles: ConsolePaths) -> xml.Graphics:
    return xml.Graphics(type="vnc", listen=xml.Listen(type="socket", socket=consoles.vnc_socket))
