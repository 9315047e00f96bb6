"""What people do to a running domain: its buttons, its processors, its screen.

All of it raises DomainMissing when the domain does not run, LibvirtUnreachable and LibvirtFailed.
"""

from collections.abc import AsyncGenerator

import libvirt

from podvisor_launcher.virt.connection import QUERY_TIMEOUT_S, LibvirtConnection
from podvisor_launcher.virt.pictures import Picture


async def press_power_button(connection: LibvirtConnection, name: str) -> None:
    """Press the ACPI power button."""
    # Left to itself, libvirt asks an agent first if there is one, and waits a minute for one that does not answer.
    flags = libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
    if connection.is_test_driver:
        flags = libvirt.VIR_DOMAIN_SHUTDOWN_DEFAULT
    await connection.on_domain(name, lambda domain: domain.shutdownFlags(flags))


async def suspend(connection: LibvirtConnection, name: str) -> None:
    """Have a running guest stand still."""
    await connection.on_domain(name, lambda domain: domain.suspend())


async def reset(connection: LibvirtConnection, name: str) -> None:
    """Press the reset button."""
    await connection.on_domain(name, lambda domain: domain.reset())


async def reboot_by_button(connection: LibvirtConnection, name: str) -> None:
    """Press the power button, and have the guest begin anew once it has shut down for that."""
    flags = libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    if connection.is_test_driver:
        flags = libvirt.VIR_DOMAIN_REBOOT_DEFAULT
    await connection.on_domain(name, lambda domain: domain.reboot(flags))


async def screenshot(connection: LibvirtConnection, name: str) -> AsyncGenerator[bytes, None]:
    """A picture of the first screen as PNG, in pieces of at most 64 KiB."""
    picture = await connection.call(lambda opened: Picture(opened, name), QUERY_TIMEOUT_S)
    try:
        while piece := await connection.call(lambda _: picture.read(), QUERY_TIMEOUT_S):
            yield piece
    finally:
        connection.later(picture.close)
