"""qemu-img as a subprocess with bounded time and memory: it reads images that anybody may have made.

Invariant: it is told the format of every image, and guesses none.
"""

import asyncio
import contextlib
import json
import resource
from dataclasses import dataclass
from pathlib import Path

from podvisor_launcher.storage.errors import Unusable

_MEMORY_LIMIT_BYTES = 1 << 30
_CPU_LIMIT_S = 10
_TIMEOUT_S = 30.0
_OUTPUT_LIMIT_BYTES = 1 << 20  # an image with thousands of snapshots would have all of them listed
_LIMITS = {resource.RLIMIT_AS: _MEMORY_LIMIT_BYTES, resource.RLIMIT_CPU: _CPU_LIMIT_S}


class QemuImgFailed(Unusable):
    """qemu-img did not succeed. The text is the last line it said."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image says of itself."""

    format: str
    virtual_size_bytes: int
    backing_file: str | None  # a file it wants below itself
    data_file: str | None  # a file it keeps its data in
    encrypted: bool


async def image_info(path: Path, format_: str, *, descriptor: int | None = None) -> ImageInfo:
    """Look into the image at `path`, which may be in use, and may be the path of a `descriptor` among qemu-img's own. Opens no
    other file it names. Raises QemuImgFailed."""
    output = await _run(
        "info", "-f", format_, "--output=json", "--force-share", str(path), descriptor=descriptor
    )
    try:
        return parse_info(output)
    except (ValueError, KeyError, TypeError) as error:
        raise QemuImgFailed("qemu-img gave an answer that cannot be read") from error


def parse_info(output: bytes) -> ImageInfo:
    """Read what `qemu-img info --output=json` printed. Raises ValueError, KeyError or TypeError."""
    answer = json.loads(output)
    specific = (answer.get("format-specific") or {}).get("data") or {}
    return ImageInfo(
        format=str(answer["format"]),
        virtual_size_bytes=int(answer["virtual-size"]),
        backing_file=answer.get("backing-filename") or answer.get("full-backing-filename"),
        data_file=specific.get("data-file"),
        encrypted=bool(answer.get("encrypted")) or "encrypt" in specific,
    )


async def grow(path: Path, size_bytes: int, *, descriptor: int | None = None) -> None:
    """Make the qcow2 image at `path`, which nobody uses, as large as `size_bytes`. Raises QemuImgFailed."""
    await _run("resize", "-q", "-f", "qcow2", str(path), str(size_bytes), descriptor=descriptor)


async def _run(*arguments: str, descriptor: int | None = None) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "qemu-img",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=() if descriptor is None else (descriptor,),
    )
    try:
        _limit(process.pid)
        async with asyncio.timeout(_TIMEOUT_S):
            output, errors = await asyncio.gather(
                _read_all(process.stdout), _read_all(process.stderr)
            )
            await process.wait()
    except TimeoutError as error:
        raise QemuImgFailed(f"qemu-img took longer than {_TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    if process.returncode != 0:
        words = errors.decode(errors="replace").strip().splitlines()
        raise QemuImgFailed(words[-1] if words else f"qemu-img ended with {process.returncode}")
    if len(output) > _OUTPUT_LIMIT_BYTES:
        raise QemuImgFailed("qemu-img has more to say of the image than can be true")
    return output


def _limit(pid: int) -> None:
    """Bounds a process that has just begun, and cannot have done much: prlimit(1) would be one more program in every start."""
    with contextlib.suppress(ProcessLookupError):  # it has ended
        for kind, value in _LIMITS.items():
            resource.prlimit(pid, kind, (value, value))


async def _read_all(stream: asyncio.StreamReader | None) -> bytes:
    """Read to the end, so that the process can end, and keep no more than the limit and a little."""
    assert stream is not None
    output = b""
    while chunk := await stream.read(1 << 16):
        if len(output) <= _OUTPUT_LIMIT_BYTES:
            output += chunk
    return output
