"""docs/access.md: every command in it does what it says, in the order of the document and as it stands there."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.cluster import ROOT, Cluster
from tests.support.machine import Machine, private_key, vm
from tests.support.process import Completed, end, run
from tests.support.verbs import served

DOCUMENT = ROOT / "docs/access.md"
TRUSTING = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"


@pytest.fixture(autouse=True)
async def api(cluster: Cluster) -> None:
    await served(cluster)


@pytest.fixture
def kubeconfig(cluster: Cluster, tmp_path: Path) -> str:
    """A person's, whose namespace is the test's."""
    config = json.loads((ROOT / ".dev/kubeconfig").read_text())
    config["contexts"][0]["context"]["namespace"] = cluster.namespace
    file = tmp_path / "kubeconfig"
    file.write_text(json.dumps(config))
    return str(file)


class Person:
    """Somebody with a shell who does what the document says."""

    def __init__(self, cluster: Cluster, kubeconfig: str) -> None:
        text = DOCUMENT.read_text().replace("namespaces/default", f"namespaces/{cluster.namespace}")
        self.commands = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        self.addresses = re.findall(r"ws://\S+", text)
        # What it says of a browser's address is the same path.
        self.addresses += [
            f"ws://127.0.0.1:8001/{path}" for path in re.findall(r"&path=(\S+)", text)
        ]
        self._shell = ("env", f"KUBECONFIG={kubeconfig}", f"PATH={_path()}", "bash", "-euc")

    def next(self, start: str) -> str:
        """The next command, which has to begin so."""
        command = str(self.commands.pop(0))
        assert command.startswith(start), command
        return command

    async def does(self, start: str, *, instead: tuple[str, str] = ("", "")) -> Completed:
        """Run the next command."""
        command = self.next(start).replace(*instead)
        return await run(*self._shell, f"cd {ROOT}; {command}", timeout_s=150)

    @asynccontextmanager
    async def meanwhile(
        self, start: str, said: str, *, instead: tuple[str, str]
    ) -> AsyncIterator[None]:
        """Run the next command, of which the last line serves, for the body, from when it says that."""
        *before, last = self.next(start).replace(*instead).rstrip().split("\n")
        process = await asyncio.create_subprocess_exec(
            *self._shell,
            "\n".join(["exec 2>&1", *before, f"exec {last}"]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                while said not in (line := (await process.stdout.readline()).decode()):
                    assert line, "it ended"
            yield
        finally:
            await end(process)


def _path() -> str:
    """With the cluster's kubectl in it."""
    return f"{ROOT / '.dev/bin'}:{os.environ['PATH']}"


async def test_every_command_does_what_it_says(cluster: Cluster, kubeconfig: str) -> None:
    await cluster.apply(vm("myvm", run_strategy="Halted"))
    person = Person(cluster, kubeconfig)
    await person.does("kubectl replace --raw")
    await person.does("kubectl wait vmi/myvm")
    await person.does("kubectl replace --raw")
    await Machine(cluster, "myvm").console_shows("login:")
    shown = await person.does("kubectl logs", instead=("myvm.png", "/dev/stderr"))
    assert "login:" in shown.stdout
    assert "PNG" in shown.stderr
    # The ports of a person's computer; a test takes others.
    async with person.meanwhile("pod=", "Forwarding", instead=("8022:22", "18022:22")):
        await person.does("ssh", instead=("-p 8022", f"-p 18022 -i {private_key()} {TRUSTING}"))
    await person.does("kubectl apply -f examples/")
    async with person.meanwhile("kubectl proxy", "Starting to serve", instead=("8001", "18001")):
        first = [await _first_bytes(url.replace("8001", "18001")) for url in person.addresses]
    assert person.commands == []
    assert [b"login:" in first[0], first[1]] == [True, b"RFB 003.008\n"]


async def _first_bytes(url: str) -> bytes:
    """Up to the prompt of a console, which it has to be asked for, or to the greeting of a screen."""
    got = b""
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        if url.endswith("console"):
            await socket.send_bytes(b"\r")
        async with asyncio.timeout(20):
            while b"login:" not in got and not got.startswith(b"RFB"):
                got += (await socket.receive()).data
    return got
