"""A picture of a guest's screen, as libvirt streams it. Every method blocks."""

from contextlib import suppress

import libvirt

from podvisor_launcher.virt.errors import LibvirtFailed

PIECE_BYTES = 64 * 1024
_PNG = "image/png"


class Picture:
    """A picture of the domain's first screen that is being taken. Raises libvirtError, and LibvirtFailed for one that is no PNG."""

    def __init__(self, connection: libvirt.virConnect, name: str) -> None:
        self._stream = connection.newStream()
        kind = connection.lookupByName(name).screenshot(self._stream, 0)
        if kind != _PNG:
            self.close()
            raise LibvirtFailed(f"QEMU takes pictures as {kind} only")

    def read(self) -> bytes:
        """The next piece; empty at the end. Raises libvirtError."""
        piece = self._stream.recv(PIECE_BYTES)
        return piece if isinstance(piece, bytes) else b""

    def close(self) -> None:
        """Let go of it, read to the end or not."""
        with suppress(libvirt.libvirtError):
            self._stream.abort()
