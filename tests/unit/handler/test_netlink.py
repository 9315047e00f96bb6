"""Requests to the kernel whose answers do not come in one piece, or as expected. Needs root."""

import ctypes
import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from podvisor_common.aio.threads import in_own_thread
from podvisor_handler.linux.netlink import DUMP_ATTEMPTS, ROUTE, DumpInterrupted, NetlinkSocket
from podvisor_handler.network.attachments import Attachment, Masquerade
from podvisor_handler.network.links import create_bridge, list_links
from podvisor_handler.network.netns import NetworkNotReady, wire

from tests.unit.handler.namespaces import WITH_ETH0, needs_root, pod
from tests.unit.handler.networks import GUEST_MAC

pytestmark = needs_root

_CLONE_NEWNET = 0x4000_0000
# Their list takes several answers.
LINKS = 64
T = TypeVar("T")


class Disturbed(socket.socket):
    """A socket of a namespace in which a device comes into being whenever the first piece of an answer was read, `left` times."""

    left = 0
    requests = 0
    has_asked = False

    def sendto(self, *arguments: Any) -> int:
        Disturbed.requests += 1
        self.has_asked = True
        return super().sendto(*arguments)

    def recv(self, *arguments: int) -> bytes:
        data = super().recv(*arguments)
        if self.has_asked and Disturbed.left > 0:
            left, requests = Disturbed.left - 1, Disturbed.requests
            Disturbed.left = 0
            make_link(f"late{left}")
            Disturbed.left, Disturbed.requests = left, requests
        self.has_asked = False
        return data


def make_link(name: str) -> None:
    with NetlinkSocket(ROUTE) as route:
        create_bridge(route, name, mac="02:00:00:00:00:01", mtu_bytes=1500)


async def in_namespace(work: Callable[[], T]) -> T:
    """What `work` returns in a network namespace of its own."""

    def run() -> T:
        assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0, os.strerror(
            ctypes.get_errno()
        )
        for number in range(LINKS):
            make_link(f"link{number}")
        return work()

    return await in_own_thread(run, name="namespace")


def names_found(disturbances: int) -> set[str]:
    with NetlinkSocket(ROUTE) as route:
        Disturbed.left, Disturbed.requests = disturbances, 0
        try:
            return set(list_links(route))
        finally:
            Disturbed.left = 0


@pytest.mark.parametrize("disturbances", [0, 1, DUMP_ATTEMPTS - 1])
async def test_a_list_that_changed_while_it_was_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch, disturbances: int
) -> None:
    monkeypatch.setattr(socket, "socket", Disturbed)
    found = await in_namespace(lambda: names_found(disturbances))
    made = [f"link{number}" for number in range(LINKS)]
    late = [f"late{number}" for number in range(disturbances)]
    assert found == {"lo", *made, *late}
    assert Disturbed.requests == disturbances + 1


async def test_a_list_that_never_stands_still_is_read_another_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "socket", Disturbed)
    with pytest.raises(DumpInterrupted):
        await in_namespace(lambda: names_found(1000))
    assert Disturbed.requests == DUMP_ATTEMPTS


async def test_a_pod_whose_network_never_stands_still_is_wired_another_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    links = "".join(f"ip link add link{number} type bridge\n" for number in range(LINKS))
    with pod(WITH_ETH0 + links) as process:
        monkeypatch.setattr(socket, "socket", Disturbed)
        Disturbed.left = 1000
        try:
            with pytest.raises(NetworkNotReady, match=f"changed {DUMP_ATTEMPTS} times"):
                await wire(process, (Attachment("default", Masquerade(GUEST_MAC)),))
        finally:
            Disturbed.left = 0
