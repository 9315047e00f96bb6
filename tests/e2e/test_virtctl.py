"""KubeVirt's own client, unmodified: what people do with it is done."""

import asyncio
import os
import pty
import socket

import pytest

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, condition, private_key, vm
from tests.support.process import Completed, end
from tests.support.verbs import served
from tests.support.virtctl import command, serving, virtctl

SSH = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")


@pytest.fixture(autouse=True)
async def api(cluster: Cluster) -> None:
    await served(cluster)


async def test_a_machine_by_virtctl_alone(cluster: Cluster) -> None:
    await cluster.apply(vm("mine", run_strategy="Halted"))
    assert "Server Version" in (await virtctl(cluster, "version")).stdout
    assert "scheduled to start" in (await virtctl(cluster, "start", "mine")).stdout
    first = await Machine(cluster, "mine").running()
    await _console(cluster, "mine")
    assert "guest-has-it" in (await _ssh(cluster, "vmi/mine", "echo guest-has-it")).stdout
    await _forwards(cluster, "vm/mine")
    await _screen(cluster, "mine")
    await _pauses(cluster, "mine")
    await _exposes(cluster, "mine")
    await virtctl(cluster, "restart", "mine")
    uid = first["metadata"]["uid"]
    await Machine(cluster, "mine").running(not_uid=uid)
    done = await virtctl(cluster, "stop", "mine", "--force", "--grace-period", "0")
    assert "scheduled to stop" in done.stdout
    await cluster.until("vmi", "mine", lambda state: state is None, within_s=30, what="stopped")
    done = await virtctl(cluster, "stop", "mine", check=False)
    assert (done.exit_code != 0, "VM is not running" in done.stderr) == (True, True)


async def _console(cluster: Cluster, name: str) -> None:
    """On a terminal, as a person has one: up to the prompt, and away with the escape."""
    here, there = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command(cluster, "console", name), stdin=there, stdout=there, stderr=there
    )
    os.close(there)
    try:
        seen = b""
        async with asyncio.timeout(40):
            os.write(here, b"\r")
            while b"login: " not in seen:
                seen += await asyncio.to_thread(os.read, here, 4096)
            os.write(here, b"\x1d")
            assert await process.wait() == 0
    finally:
        os.close(here)
        await end(process)


async def _ssh(cluster: Cluster, target: str, text: str, *, check: bool = True) -> Completed:
    options = [part for option in SSH for part in ("-t", f"-o {option}")]
    login = (f"root@{target}", "-i", private_key(), "-c", text)
    return await virtctl(cluster, "ssh", *login, *options, check=check)


async def _forwards(cluster: Cluster, target: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        local = free.getsockname()[1]
    said = r"forwarding tcp 127\.0\.0\.1:(\d+) to 22"
    async with serving(cluster, "port-forward", target, f"{local}:22", port=said) as port:
        reader, writer = await _connected(port)
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"SSH-2.0-dropbear")
        writer.close()
        await writer.wait_closed()


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection; the client tells of its port a moment before it listens there."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)


async def _screen(cluster: Cluster, name: str) -> None:
    async with serving(cluster, "vnc", name, "--proxy-only", port=r'"port":(\d+)') as port:
        reader, writer = await _connected(port)
        async with asyncio.timeout(10):
            assert await reader.readline() == b"RFB 003.008\n"
        writer.close()
        await writer.wait_closed()


async def _pauses(cluster: Cluster, name: str) -> None:
    await virtctl(cluster, "pause", "vm", name)
    await _paused(cluster, name, "True")
    again = await virtctl(cluster, "pause", "vmi", name, check=False)
    assert "VMI is already paused" in again.stderr
    await virtctl(cluster, "unpause", "vmi", name)
    await _paused(cluster, name, None)
    before = await _boot(cluster, name)
    await virtctl(cluster, "soft-reboot", name)
    async with asyncio.timeout(90):
        while await _boot(cluster, name) in ("", before):
            await virtctl(cluster, "version")  # it is still on its way
    await virtctl(cluster, "reset", name)


async def _paused(cluster: Cluster, name: str, status: str | None) -> None:
    def holds(state: Json | None) -> bool:
        return condition(state, "Paused").get("status") == status

    await cluster.until("vmi", name, holds, within_s=10, what=f"Paused: {status}")


async def _boot(cluster: Cluster, name: str) -> str:
    """What names this boot of the guest; empty while it does not say."""
    asked = "cat /proc/sys/kernel/random/boot_id"
    return (await _ssh(cluster, f"vmi/{name}", asked, check=False)).stdout.strip()


async def _exposes(cluster: Cluster, name: str) -> None:
    """The Service leads to the guest."""
    await virtctl(cluster, "expose", "vm", name, "--name", "mine-ssh", "--port", "22",
                  "--type", "NodePort")  # fmt: skip
    service = await cluster.get("service", "mine-ssh")
    assert service is not None
    assert service["spec"]["selector"] == {"vmi.kubevirt.io/id": name}
