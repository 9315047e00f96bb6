"""A program of eight instructions that tells the guest's kernel to trust the random numbers it has.

Emulated CPUs have no random instruction and an idle guest has little noise, so that the first ssh
login would wait a second or more for the kernel's generator. busybox 1.35 has no applet for this.
The keys of such a guest are guessable, which a test guest may be: its login key is public anyway.
"""

import struct

_BASE = 0x10000
_HEADERS_SIZE = 52 + 32
_SYS_EXIT, _SYS_IOCTL = 1, 54
_RNDADDTOENTCNT = 0x40045201  # <linux/random.h>
_BITS = 256  # what the kernel wants before it calls its generator ready


def credit_entropy_program() -> bytes:
    """A static i386 ELF program, run as `credit-entropy </dev/random`; exit status 0 on success.

    amd64 kernels run it too.
    """
    code_size = 28
    bits_address = _BASE + _HEADERS_SIZE + code_size
    code = b"".join(
        [
            b"\xb8" + struct.pack("<I", _SYS_IOCTL),  # mov eax, SYS_ioctl
            b"\x31\xdb",  # xor ebx, ebx        (standard input)
            b"\xb9" + struct.pack("<I", _RNDADDTOENTCNT),  # mov ecx, RNDADDTOENTCNT
            b"\xba" + struct.pack("<I", bits_address),  # mov edx, &bits
            b"\xcd\x80",  # int 0x80
            b"\x89\xc3",  # mov ebx, eax
            b"\xb8" + struct.pack("<I", _SYS_EXIT),  # mov eax, SYS_exit
            b"\xcd\x80",  # int 0x80
        ]
    )
    assert len(code) == code_size
    size = _HEADERS_SIZE + code_size + 4
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        b"\x7fELF\x01\x01\x01",
        2, 3, 1, _BASE + _HEADERS_SIZE, 52, 0, 0, 52, 32, 1, 0, 0, 0,
    )  # fmt: skip
    segment = struct.pack("<8I", 1, 0, _BASE, _BASE, size, size, 5, 0x1000)
    return header + segment + code + struct.pack("<I", _BITS)
