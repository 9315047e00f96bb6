"""Questions to the agent in a guest, by way of libvirt.

Invariant: an agent that does not answer, or answers with what is none, is a failure of that question alone. libvirt reports some
of what a guest may say as it would a broken connection, so nothing is concluded about the connection here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import libvirt
from podvisor_common.guest_interfaces import GuestInterface, guest_interfaces

from podvisor_launcher.virt.errors import LibvirtFailed

# libvirt waits for an agent twice: whether it is in step, and for the answer. Without a bound the second takes for ever.
_ANSWER_TIMEOUT_S = 5


def ask_for_interfaces(connection: libvirt.virConnect, name: str) -> tuple[GuestInterface, ...]:
    """The network devices that the agent in a running guest tells of. Takes ten seconds where there is no answer. Raises
    LibvirtFailed."""
    try:
        domain = connection.lookupByName(name)
        domain.agentSetResponseTimeout(_ANSWER_TIMEOUT_S)
        told = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)
    except libvirt.libvirtError as error:
        raise LibvirtFailed(error.get_error_message() or "the agent does not answer") from error
    except UnicodeDecodeError as error:
        raise LibvirtFailed("the agent's answer is no text") from error
    return guest_interfaces(_rows(told))


def _rows(told: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Iterator[str]]]:
    for name, device in told.items():
        addresses = (str(each.get("addr") or "") for each in device.get("addrs") or ())
        yield name, str(device.get("hwaddr") or ""), addresses
