"""What a launcher does on the socket that takes volumes, or what somebody does in its place."""

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from podvisor.launcher.v1 import launcher_pb2

from tests.unit.handler.fake_launcher import POD_UID, sockets_directory

TAKEN = launcher_pb2.VolumeReceipt(taken=True).SerializeToString()


@dataclass
class Taker:
    """Answers every hand-over with `answer`, or not at all."""

    answer: bytes | None = TAKEN
    taken: list[tuple[launcher_pb2.VolumeHandover, int]] = field(default_factory=list)

    @contextlib.contextmanager
    def serving(self, pods: Path) -> Iterator[None]:
        """Bound elsewhere (a socket address is short), then renamed."""
        path = sockets_directory(pods, POD_UID) / "volumes.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with tempfile.TemporaryDirectory(prefix="pv") as short:
                listener.bind(f"{short}/s")
                os.rename(f"{short}/s", path)
            listener.listen()
            thread = threading.Thread(target=self._serve, args=(listener,))
            thread.start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join()
                path.unlink()
                for _, file in self.taken:
                    os.close(file)

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # shut down
            while True:
                connection, _ = listener.accept()
                with connection:
                    self._meet(connection)

    def _meet(self, connection: socket.socket) -> None:
        message, files, _, _ = socket.recv_fds(connection, 4096, 4)
        said = launcher_pb2.VolumeHandover.FromString(message)
        self.taken += [(said, file) for file in files]
        if self.answer is None:
            connection.recv(1)  # until the other side has had enough
        else:
            connection.send(self.answer)
