"""Questions to the agent in a guest, by way of libvirt.

Invariants: an agent that does not answer, or answers with what is none, is a failure of that question alone. libvirt reports some
of what a guest may say as it would a broken connection, so nothing is concluded about the connection here. Each question has a thread
of its own, so that no guest holds up other calls, and a deadline; a thread that libvirt does not come back to is the only one there is.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import libvirt
from podvisor_common.aio.threads import in_own_thread
from podvisor_common.guest_interfaces import GuestInterface, guest_interfaces

from podvisor_launcher.virt.errors import LibvirtFailed

# libvirt waits for an agent twice: whether it is in step, and for the answer. Without a bound the second takes for ever.
_ANSWER_TIMEOUT_S = 5
# Of a libvirt that is well, which waits for both in turn.
_DEADLINE_S = 15.0


class AgentQuestions:
    """Questions one at a time. One that was given up is over when its thread is, at the latest with the libvirtd that it asked."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    async def interfaces(
        self, connection: libvirt.virConnect, name: str
    ) -> tuple[GuestInterface, ...]:
        """The network devices that the agent in a running guest tells of, within 15 seconds. Raises LibvirtFailed."""
        if not self._turn.acquire(blocking=False):
            raise LibvirtFailed("libvirt is busy with an earlier question to the guest's agent")
        try:
            async with asyncio.timeout(_DEADLINE_S):
                return await in_own_thread(partial(self._ask, connection, name), name="guest agent")
        except TimeoutError as error:
            raise LibvirtFailed(
                f"no answer from libvirt for the guest's agent within {_DEADLINE_S:g} s"
            ) from error

    def _ask(self, connection: libvirt.virConnect, name: str) -> tuple[GuestInterface, ...]:
        try:
            return _interfaces(connection, name)
        finally:
            self._turn.release()


def _interfaces(connection: libvirt.virConnect, name: str) -> tuple[GuestInterface, ...]:
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
