"""One guest under qemu-system-x86_64, as its tests see it: a console, a power button, ssh.

Emulated (TCG) and with user networking, so that it runs anywhere without privileges.
"""

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from .host import BuildError

KEY = Path(__file__).resolve().parents[1] / "demo_key"


def write_cidata(target: Path, meta_data: str, user_data: str) -> None:
    """An ISO 9660 image `cidata` with NoCloud files, by pycdlib where it is there, else genisoimage."""
    files = {"meta-data": meta_data.encode(), "user-data": user_data.encode()}
    try:
        import pycdlib  # the build needs no third-party package; only this test may use one
    except ImportError:
        _write_cidata_by_program(target, files)
        return
    import io

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for name, data in files.items():
        short = f"/{name.replace('-', '').upper()}.;1"
        iso.add_fp(io.BytesIO(data), len(data), short, rr_name=name, joliet_path=f"/{name}")
    iso.write(str(target))
    iso.close()


def _write_cidata_by_program(target: Path, files: dict[str, bytes]) -> None:
    program = shutil.which("genisoimage")
    if program is None:
        raise BuildError("the self-test needs pycdlib (run `make venv`) or genisoimage")
    directory = target.with_suffix(".files")
    directory.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    command = [program, "-quiet", "-o", str(target), "-V", "cidata", "-J", "-r", str(directory)]
    subprocess.run(command, check=True)


class Machine:
    """A running guest. Every wait has a deadline and fails with the console's text."""

    def __init__(self, process: asyncio.subprocess.Process, qmp: Path, ssh_port: int) -> None:
        self._process = process
        self._qmp = qmp
        self._ssh_port = ssh_port
        self.started_s = time.monotonic()
        self.console = ""

    async def expect(self, pattern: str, within_s: float) -> float:
        """Read the console until it matches; the seconds since the machine was started."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                while not re.search(pattern, self.console):
                    chunk = await self._process.stdout.read(4096)
                    if not chunk:
                        raise AssertionError(f"QEMU ended before {pattern!r}:\n{self.console}")
                    self.console += chunk.decode(errors="replace").replace("\r", "")
        except TimeoutError:
            raise AssertionError(
                f"no {pattern!r} in {within_s} s; console:\n{self.console}"
            ) from None
        return time.monotonic() - self.started_s

    async def type(self, text: str) -> None:
        """Type on the serial console."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        await self._process.stdin.drain()

    async def press_power_button(self) -> None:
        """Send the ACPI power button."""
        await self._execute("system_powerdown")

    async def off(self, within_s: float) -> float:
        """Wait for the machine to end; the seconds that took."""
        asked = time.monotonic()
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(within_s):
                rest = await self._process.stdout.read()
                await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"still on after {within_s} s; console:\n{self.console}") from None
        self.console += rest.decode(errors="replace").replace("\r", "")
        return time.monotonic() - asked

    async def ssh(self, command: str, user: str = "root", within_s: float = 20) -> str:
        """Standard output of a command in the guest, logged in with the demo key."""
        process = await asyncio.create_subprocess_exec(
            "ssh", "-i", str(KEY), "-p", str(self._ssh_port),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10", f"{user}@127.0.0.1", command,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(within_s):
            out, errors = await process.communicate()
        if process.returncode != 0:
            raise AssertionError(f"{command!r} by ssh: {errors.decode()}")
        return out.decode()

    def resident_mib(self) -> int:
        """Resident memory of the QEMU process."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) // 1024

    async def _execute(self, command: str) -> Any:
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_unix_connection(str(self._qmp))
            await reader.readline()
            for name in ("qmp_capabilities", command):
                writer.write(json.dumps({"execute": name}).encode() + b"\n")
                await writer.drain()
                answer = json.loads(await reader.readline())
            writer.close()
        return answer


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def running(
    disk: Path, memory_mib: int, work: Path, cidata: Path | None = None, network: str = ""
) -> AsyncIterator[Machine]:
    """A guest started from `disk` (which is not written), ended when the block is left."""
    qmp, port = work / "qmp.sock", _free_port()
    command = [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "q35", "-accel", "tcg,tb-size=64", "-m", str(memory_mib), "-smp", "1",
        "-drive", f"file={disk},if=virtio,format=qcow2,snapshot=on",
        "-netdev", f"user,id=net0,hostfwd=tcp:127.0.0.1:{port}-:22{network}",
        "-device", "virtio-net-pci,netdev=net0,romfile=",
        "-serial", "stdio", "-qmp", f"unix:{qmp},server=on,wait=off",
    ]  # fmt: skip
    if cidata is not None:
        command += ["-drive", f"file={cidata},if=virtio,format=raw,readonly=on"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Machine(process, qmp, port)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
