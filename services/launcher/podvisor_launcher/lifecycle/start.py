"""The start of the guest: from a specification and its disks to a running domain."""

from collections.abc import Mapping

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.errors import Terminal

from podvisor_launcher.domain.build import (
    ConsolePaths,
    ResolvedDisk,
    build_domain,
    domain_name,
)
from podvisor_launcher.domain.xml import format_xml
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.virtiofs import ShareFailed, start_shares
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import DomainRejected, DomainStartFailed


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
        shares=str(settings.shares),
    )
    try:
        description = format_xml(build_domain(spec, disks, consoles))
        await start_shares(spec.filesystems, settings.shares)
    except Terminal as error:
        raise DomainRejected(str(error)) from error
    except ShareFailed as error:
        raise DomainStartFailed(str(error)) from error
    await libvirt.define(description)
    await libvirt.start(domain_name(spec), paused=spec.start_paused)
