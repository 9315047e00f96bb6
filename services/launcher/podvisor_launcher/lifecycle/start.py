"""The start of the guest: from a specification and its disks to a running domain."""

import resource
from collections.abc import Mapping
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.errors import Terminal

from podvisor_launcher.domain.board import ZONES_DIRECTORY
from podvisor_launcher.domain.build import (
    ConsolePaths,
    ResolvedDisk,
    build_domain,
    domain_name,
)
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.xml import format_xml
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.virtiofs import ShareFailed, start_shares
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainRejected, DomainStartFailed

# passt has a socket for each port of each protocol that Linux gives to no client by itself.
_SOCKETS_OF_ALL_PORTS = 80_000


def check_open_files(spec: pb.DomainSpec, limit: int) -> None:
    """Raise UnbuildableSpec when passt would need more open files than a process of this container may have; a negative limit
    is none."""
    for interface in spec.interfaces:
        has_all_ports = interface.HasField("passt") and not interface.passt.ports
        if has_all_ports and 0 <= limit < _SOCKETS_OF_ALL_PORTS:
            raise UnbuildableSpec(
                f'interface "{interface.name}": passt needs a socket for each port, and a container of this node may have'
                f" {limit} open files; list the ports that shall reach the guest"
            )


def check_time_zone(spec: pb.DomainSpec, zones: Path = Path(ZONES_DIRECTORY)) -> None:
    """Raise UnbuildableSpec for a time zone that is not known here: QEMU would take UTC, and say nothing."""
    zone = spec.clock.timezone
    if zone and not (zones / zone).is_file():
        raise UnbuildableSpec(f'there is no time zone "{zone}"')


async def start_guest(
    libvirt: LibvirtConnection,
    spec: pb.DomainSpec,
    disks: Mapping[str, ResolvedDisk],
    settings: Settings,
) -> None:
    """Define the persistent domain of `spec` and start it. Raises DomainRejected, DomainStartFailed, LibvirtFailed and
    LibvirtUnreachable; after the last the guest may run all the same."""
    consoles = ConsolePaths(
        serial_socket=str(settings.serial_socket),
        vnc_socket=str(settings.vnc_socket),
        serial_log=str(settings.serial_log),
        agent_socket=str(settings.agent_socket),
        shares=str(settings.shares),
        nvram=str(settings.nvram),
    )
    try:
        check_open_files(spec, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        check_time_zone(spec)
        description = format_xml(build_domain(spec, disks, consoles))
        await start_shares(spec.filesystems, settings.shares)
    except Terminal as error:
        raise DomainRejected(str(error)) from error
    except ShareFailed as error:
        raise DomainStartFailed(str(error)) from error
    await libvirt.define(description)
    await libvirt.start(domain_name(spec), paused=spec.start_paused)
