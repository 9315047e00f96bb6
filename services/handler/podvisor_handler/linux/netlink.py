"""Netlink messages and the socket that carries them.

Invariant: every request is answered before the next is sent, and a refusal is raised as OSError
with the kernel's number. A list is told as it was at one moment, or not at all. Written for one-shot
threads: it blocks, with a timeout.
"""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from podvisor_common.errors import Retryable

ROUTE = 0
NETFILTER = 12

REQUEST = 0x1
ACK = 0x4
DUMP = 0x300
CREATE = 0x400
EXCLUSIVE = 0x200
APPEND = 0x800

# How often an answer is asked for that does not come whole, as what it tells of changes meanwhile.
DUMP_ATTEMPTS = 5

_INTERRUPTED = 0x10
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_ERROR = 0x2
_DONE = 0x3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVE_BYTES = 256 * 1024
_TIMEOUT_S = 5.0
# What the answers to a long transaction take until they are read; the kernel loses what does not fit.
_BUFFER_BYTES = 8 * 1024 * 1024
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

# Of a family that the kernel does not know, there is none either.
_NO_SUCH_OBJECT = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)

Attribute = tuple[int, "bytes | Sequence[Attribute]"]


class DumpInterrupted(Retryable):
    """What the kernel was asked to list changed each time while it did."""


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message: type, flags, the family's own header, attributes."""

    type: int
    flags: int
    header: bytes
    attributes: Sequence[Attribute] = ()

    def encode(self, sequence: int) -> bytes:
        """The message on the wire."""
        payload = _padded(self.header) + encode_attributes(self.attributes)
        length = _HEADER.size + len(payload)
        return _HEADER.pack(length, self.type, self.flags, sequence, 0) + payload


def encode_attributes(attributes: Sequence[Attribute]) -> bytes:
    """Attributes on the wire; a sequence as value is a nested attribute."""
    parts = []
    for kind, value in attributes:
        if not isinstance(value, bytes):
            kind, value = kind | _NESTED, encode_attributes(value)
        parts.append(_padded(_ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value))
    return b"".join(parts)


def decode_attributes(data: bytes) -> Mapping[int, bytes]:
    """The attributes of `data` by type; nested ones are decoded by a further call."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


class NetlinkSocket:
    """A blocking netlink socket in the network namespace of the thread that opens it."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family
        )
        self._socket.settimeout(_TIMEOUT_S)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self._socket.bind((0, 0))
        self._sequence = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def change(self, message: Message) -> None:
        """Sends one change and waits until the kernel has made it. Raises OSError."""
        self._send([message])
        self._await_acks(1)

    def transaction(self, messages: Sequence[Message]) -> None:
        """Sends messages in one datagram and waits for the acknowledgement of each that asks."""
        self._send(messages)
        self._await_acks(sum(1 for message in messages if message.flags & ACK))

    def dump(self, message: Message) -> list[bytes]:
        """The payloads of all answers to a dump request. Raises OSError and DumpInterrupted."""
        for _ in range(DUMP_ATTEMPTS):
            payloads = self._dump_once(message)
            if payloads is not None:
                return payloads
        raise DumpInterrupted(
            f"what the kernel was asked to list changed {DUMP_ATTEMPTS} times while it did"
        )

    def _dump_once(self, message: Message) -> list[bytes] | None:
        """None when something changed between two pieces of the answer, which then tells of no moment."""
        self._send([message])
        payloads: list[bytes] = []
        is_whole = True
        while True:
            for kind, flags, payload in self._receive():
                is_whole = is_whole and not flags & _INTERRUPTED
                if kind == _DONE:
                    return payloads if is_whole else None
                _raise_error(kind, payload)
                payloads.append(payload)

    def get(self, message: Message) -> bytes | None:
        """The payload of the one answer to a request without ACK; None when there is no such object."""
        self._send([message])
        for kind, _, payload in self._receive():
            if kind == _ERROR and _error_of(payload) in _NO_SUCH_OBJECT:
                return None
            _raise_error(kind, payload)
            return payload
        return None

    def _send(self, messages: Sequence[Message]) -> None:
        data = b"".join(message.encode(next(self._sequence)) for message in messages)
        self._socket.sendto(data, (0, 0))

    def _await_acks(self, count: int) -> None:
        while count > 0:
            for kind, _, payload in self._receive():
                _raise_error(kind, payload)
                count -= 1

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and payload of each message that has come."""
        data = self._socket.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
            yield kind, flags, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def _error_of(payload: bytes) -> int:
    (number,) = struct.unpack_from("=i", payload)
    return -int(number)


def _raise_error(kind: int, payload: bytes) -> None:
    if kind == _ERROR and (number := _error_of(payload)):
        raise OSError(number, os.strerror(number))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
