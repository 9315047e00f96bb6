"""A guest that speaks FUSE to virtiofsd by itself, so that no kernel keeps its names from being paths.

It is QEMU and driver in one: a vhost-user front-end (https://qemu-project.gitlab.io/qemu/interop/vhost-user.html) with one
request queue in a memory of its own. One request at a time, and as much of either protocol as that takes.
"""

import array
import mmap
import os
import socket
import struct
import time
from enum import IntEnum
from pathlib import Path

ROOT_NODE = 1
_GUEST_BYTES = 1 << 20
_QUEUE_SIZE = 8
_REQUEST_QUEUE = 1
_QUEUE_AT, _REQUEST_AT, _ANSWER_AT = 0x4000, 0x10000, 0x20000
_ANSWER_BYTES = 0x8000
_TABLES = (0, 0x1000, 0x2000)  # descriptors, available, used: from the start of a queue
_FEATURES = 1 << 32 | 1 << 30  # VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES
_ANSWERS_WITHIN_S = 5.0


class _Message(IntEnum):
    """Requests of a vhost-user front-end."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_PROTOCOL_FEATURES = 16
    SET_VRING_ENABLE = 18


class Fuse(IntEnum):
    """Requests of a FUSE driver."""

    LOOKUP = 1
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    INIT = 26
    CREATE = 35


class HostileGuest:
    """Connected to the virtiofsd that listens on a socket."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_ANSWERS_WITHIN_S)
        self._socket.connect(str(path))
        memory = os.memfd_create("guest")
        os.ftruncate(memory, _GUEST_BYTES)
        self._memory = mmap.mmap(memory, _GUEST_BYTES)
        self._kick, self._sent = os.eventfd(0), 0
        offered = self._features()
        self._tell(_Message.SET_OWNER)
        self._tell(_Message.SET_PROTOCOL_FEATURES, struct.pack("<Q", 0))
        self._tell(_Message.SET_FEATURES, struct.pack("<Q", offered & _FEATURES))
        self._tell(
            _Message.SET_MEM_TABLE, struct.pack("<IIQQQQ", 1, 0, 0, _GUEST_BYTES, 0, 0), memory
        )
        for queue, at in ((0, 0), (_REQUEST_QUEUE, _QUEUE_AT)):
            self._set_up(queue, at)
        self._features()  # an answer: all before it is done, and no kick is lost on a queue that is not enabled yet
        assert self.request(Fuse.INIT, 0, struct.pack("<IIII", 7, 31, 0, 0))[0] == 0

    def close(self) -> None:
        """Let go, on which virtiofsd ends."""
        self._socket.close()

    def lookup(self, name: str, parent: int = ROOT_NODE) -> tuple[int, int, int]:
        """Error, number for further requests, and the inode on the node."""
        error, answer = self.request(Fuse.LOOKUP, parent, _text(name))
        node, inode = struct.unpack("<Q32xQ", answer[:48]) if not error else (0, 0)
        return error, node, inode

    def mkdir(self, name: str) -> int:
        """The error, or 0."""
        return self.request(Fuse.MKDIR, ROOT_NODE, struct.pack("<II", 0o755, 0) + _text(name))[0]

    def mknod(self, name: str) -> int:
        """The error, or 0."""
        body = struct.pack("<IIII", 0o100644, 0, 0, 0) + _text(name)
        return self.request(Fuse.MKNOD, ROOT_NODE, body)[0]

    def create(self, name: str) -> int:
        """The error, or 0."""
        body = struct.pack("<IIII", os.O_RDWR, 0o644, 0, 0) + _text(name)
        return self.request(Fuse.CREATE, ROOT_NODE, body)[0]

    def symlink(self, name: str, target: str) -> int:
        """The error, or 0."""
        return self.request(Fuse.SYMLINK, ROOT_NODE, _text(name) + _text(target))[0]

    def link(self, node: int, name: str) -> int:
        """The error, or 0."""
        return self.request(Fuse.LINK, ROOT_NODE, struct.pack("<Q", node) + _text(name))[0]

    def unlink(self, name: str) -> int:
        """The error, or 0."""
        return self.request(Fuse.UNLINK, ROOT_NODE, _text(name))[0]

    def rmdir(self, name: str) -> int:
        """The error, or 0."""
        return self.request(Fuse.RMDIR, ROOT_NODE, _text(name))[0]

    def rename(self, old: str, new: str) -> int:
        """The error, or 0."""
        body = struct.pack("<Q", ROOT_NODE) + _text(old) + _text(new)
        return self.request(Fuse.RENAME, ROOT_NODE, body)[0]

    def request(self, operation: Fuse, node: int, body: bytes) -> tuple[int, bytes]:
        """The error, 0 for none, and the answer to a request of user root."""
        head = struct.pack("<IIQQ16x", 40 + len(body), operation, self._sent + 1, node)
        self._write(_REQUEST_AT, head + body)
        out = struct.pack("<QIHH", _REQUEST_AT, len(head + body), 1, 1)
        back = struct.pack("<QIHH", _ANSWER_AT, _ANSWER_BYTES, 2, 0)
        self._write(_QUEUE_AT + _TABLES[0], out + back)
        available, used = _QUEUE_AT + _TABLES[1], _QUEUE_AT + _TABLES[2]
        self._write(available + 4 + 2 * (self._sent % _QUEUE_SIZE), struct.pack("<H", 0))
        self._sent += 1
        self._write(available, struct.pack("<HH", 0, self._sent))
        os.eventfd_write(self._kick, 1)
        deadline = time.monotonic() + _ANSWERS_WITHIN_S
        while struct.unpack("<H", self._memory[used + 2 : used + 4])[0] != self._sent:
            assert time.monotonic() < deadline, f"no answer to {operation.name}"
            time.sleep(0.001)
        length, error = struct.unpack("<Ii", self._memory[_ANSWER_AT : _ANSWER_AT + 8])
        return -error, self._memory[_ANSWER_AT + 16 : _ANSWER_AT + length]

    def _set_up(self, queue: int, at: int) -> None:
        descriptors, available, used = (at + offset for offset in _TABLES)
        self._tell(_Message.SET_VRING_NUM, struct.pack("<II", queue, _QUEUE_SIZE))
        self._tell(_Message.SET_VRING_BASE, struct.pack("<II", queue, 0))
        addresses = struct.pack("<IIQQQQ", queue, 0, descriptors, used, available, 0)
        self._tell(_Message.SET_VRING_ADDR, addresses)
        self._tell(_Message.SET_VRING_CALL, struct.pack("<Q", queue), os.eventfd(0))
        kick = self._kick if queue == _REQUEST_QUEUE else os.eventfd(0)
        self._tell(_Message.SET_VRING_KICK, struct.pack("<Q", queue), kick)
        self._tell(_Message.SET_VRING_ENABLE, struct.pack("<II", queue, 1))

    def _features(self) -> int:
        self._tell(_Message.GET_FEATURES)
        (offered,) = struct.unpack("<Q", self._socket.recv(20)[12:])
        return int(offered)

    def _tell(self, message: _Message, payload: bytes = b"", descriptor: int | None = None) -> None:
        passed = [] if descriptor is None else [array.array("i", [descriptor])]
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, each) for each in passed]
        self._socket.sendmsg([struct.pack("<III", message, 1, len(payload)) + payload], ancillary)

    def _write(self, at: int, content: bytes) -> None:
        self._memory[at : at + len(content)] = content


def _text(name: str) -> bytes:
    return name.encode() + b"\0"
