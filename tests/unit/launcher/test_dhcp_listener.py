"""The sockets of DHCP: a flood, and an address that cannot be answered."""

import asyncio
import socket
from collections import Counter

import pytest
from podvisor_launcher.dhcp import listener as module
from podvisor_launcher.dhcp.listener import Address, Answer, Listener


async def test_a_flood_is_taken_in_small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    server, guest = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("127.0.0.1", 0))
    guest.connect(server.getsockname())
    turns, seen = 0, list[int]()
    done = asyncio.Event()

    def respond(packet: bytes, _source: Address) -> None:
        seen.append(turns)
        if packet == b"last":
            done.set()

    listener = Listener(server, respond)
    try:
        for _ in range(99):
            guest.send(b"x")
        guest.send(b"last")
        async with asyncio.timeout(10):
            while not done.is_set():
                turns += 1
                await asyncio.sleep(0)
    finally:
        listener.close()
        guest.close()
    assert len(seen) == 100
    assert max(Counter(seen).values()) == 16


async def test_an_address_that_cannot_be_answered_is_no_reason_to_stop() -> None:
    server, guest = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("127.0.0.1", 0))
    guest.connect(server.getsockname())
    nowhere = Answer(b"x", ("255.255.255.255", 68))  # not allowed to broadcast
    asked = asyncio.Queue[bytes]()

    def respond(packet: bytes, _source: Address) -> Answer:
        asked.put_nowait(packet)
        return nowhere

    listener = Listener(server, respond)
    try:
        async with asyncio.timeout(10):
            for packet in (b"one", b"two"):
                guest.send(packet)
                assert await asked.get() == packet
    finally:
        listener.close()
        guest.close()
