"""An i386 kernel unpacked at build time, because unpacking XZ takes two seconds under emulation.

A bzImage is real-mode setup code, then a program that unpacks the kernel and jumps to it. The setup
code stays; the program is replaced by one that moves the kernel, stored plain, to where it belongs.
The 32-bit boot protocol makes this possible: the entry conditions of both are the same.
https://docs.kernel.org/arch/x86/boot.html
"""

import lzma
import struct

from .host import BuildError

_LOADED_AT = 0x100000  # where boot loaders put what follows the setup code
_PAGE = 4096

# Offsets in the setup header.
_SETUP_SECTORS, _SYSTEM_SIZE, _MAGIC, _RELOCATABLE, _PAYLOAD, _PREFERRED = (
    0x1F1, 0x1F4, 0x202, 0x234, 0x248, 0x258,
)  # fmt: skip


def unpack(bzimage: bytes) -> bytes:
    """The same kernel as a bzImage that starts at once; BuildError when it is not an XZ one."""
    setup_size = (bzimage[_SETUP_SECTORS] + 1) * 512
    offset, size = struct.unpack_from("<II", bzimage, _PAYLOAD)
    payload = bzimage[setup_size + offset : setup_size + offset + size]
    if bzimage[_MAGIC : _MAGIC + 4] != b"HdrS" or not payload.startswith(b"\xfd7zXZ"):
        raise BuildError("the i386 kernel is not an XZ-compressed bzImage any more")
    # After the XZ stream come four bytes with the unpacked size, which the decompressor leaves.
    entry, image = _flat(lzma.LZMADecompressor(format=lzma.FORMAT_XZ).decompress(payload))
    (preferred,) = struct.unpack_from("<Q", bzimage, _PREFERRED)
    if entry != preferred or _LOADED_AT + _PAGE + len(image) > entry:
        raise BuildError("the i386 kernel does not fit below the place where it runs")
    body = _mover(entry, len(image)).ljust(_PAGE, b"\0") + image
    setup = bytearray(bzimage[:setup_size])
    struct.pack_into("<I", setup, _SYSTEM_SIZE, len(body) // 16)
    setup[_RELOCATABLE] = 0  # so that the loader does not choose another place for it
    return bytes(setup) + body


def _flat(vmlinux: bytes) -> tuple[int, bytes]:
    """Entry point of a 32-bit vmlinux, and its memory image from there, a multiple of 16 bytes."""
    entry, table = struct.unpack_from("<II", vmlinux, 24)
    size, count = struct.unpack_from("<HH", vmlinux, 42)
    rows = [struct.unpack_from("<5I", vmlinux, table + i * size) for i in range(count)]
    loads = [(offset, address, n) for kind, offset, _, address, n in rows if kind == 1]
    image = bytearray(max(address + n for _, address, n in loads) - entry)
    for offset, address, n in loads:
        image[address - entry : address - entry + n] = vmlinux[offset : offset + n]
    return entry, bytes(image) + bytes(-len(image) % 16)


def _mover(target: int, size: int) -> bytes:
    """Code that moves the kernel from the page after this one to `target` and jumps there."""
    return b"".join(
        [
            b"\xfc",  # cld
            b"\x89\xf0",  # mov eax, esi       (the boot parameters)
            b"\xbe" + struct.pack("<I", _LOADED_AT + _PAGE),  # mov esi, source
            b"\xbf" + struct.pack("<I", target),  # mov edi, target
            b"\xb9" + struct.pack("<I", size // 4),  # mov ecx, words
            b"\xf3\xa5",  # rep movsd
            b"\x89\xc6",  # mov esi, eax
            b"\x31\xff\x31\xdb\x31\xed",  # xor edi, edi; xor ebx, ebx; xor ebp, ebp
            b"\xb8" + struct.pack("<I", target),  # mov eax, target
            b"\xff\xe0",  # jmp eax
        ]
    )
