"""The processes of a scale run: started with their own credentials, measured from outside, ended in the end."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.perf.measure import cpu_s, memory_mib
from tests.support.cluster import ROOT, Cluster
from tests.support.process import end

INSTALL = Cluster("kubevirt")
READY_WITHIN_S = 90.0
ENDS_WITHIN_S = 30.0
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? ([-+.\deE]+|NaN|\+Inf)$", re.MULTILINE)


@dataclass(slots=True)
class Service:
    """One process, with its metrics port when it has one."""

    name: str
    process: asyncio.subprocess.Process
    port: int = 0
    result: Path | None = None
    cpu_at: dict[str, float] = field(default_factory=dict)
    memory_at: dict[str, dict[str, float]] = field(default_factory=dict)

    def mark(self, moment: str) -> None:
        """Note what the process has used up to `moment`."""
        assert self.process.returncode is None, f"{self.name} has ended"
        self.cpu_at[moment] = cpu_s(self.process.pid)
        self.memory_at[moment] = memory_mib(self.process.pid)

    def cpu_between(self, one: str, other: str) -> float:
        return self.cpu_at[other] - self.cpu_at[one]

    async def metrics(self) -> dict[str, dict[str, float]]:
        """The samples of its metrics endpoint: name, then labels as text, then value."""
        samples: dict[str, dict[str, float]] = {}
        async with (
            aiohttp.ClientSession(trust_env=False) as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as response,
        ):
            for name, labels, value in _SAMPLE.findall(await response.text()):
                samples.setdefault(name, {})[labels] = float(value)
        return samples

    async def ready(self) -> None:
        """Wait until its readiness probe says yes."""
        address = f"http://127.0.0.1:{self.port}/readyz"
        async with asyncio.timeout(READY_WITHIN_S), aiohttp.ClientSession() as session:
            while True:
                assert self.process.returncode is None, f"{self.name} has ended"
                try:
                    async with session.get(address) as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.2)

    async def stop(self) -> dict[str, Any]:
        """End it as the kubelet would; what it wrote about itself."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(ENDS_WITHIN_S):
                    await self.process.wait()
            except TimeoutError:
                await end(self.process)
        if self.result is None or not self.result.exists():
            return {}
        content: dict[str, Any] = json.loads(self.result.read_text())
        return content


async def credentials(path: Path, account: str, node: str = "") -> Path:
    """A kubeconfig file with a token of a service account, bound to a node when one is named."""
    bound = ("--bound-object-kind=Node", f"--bound-object-name={node}") if node else ()
    token = (await INSTALL.kubectl("create", "token", account, "--duration=2h", *bound)).stdout
    config = json.loads((await INSTALL.kubectl("config", "view", "--raw", "-o", "json")).stdout)
    for user in config["users"]:
        user["user"] = {"token": token.strip()}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(config, file)
    return path


async def start_node(name: str, directory: Path) -> Service:
    """A fake node with its launchers."""
    environment = {"KUBECONFIG": str(ROOT / ".dev/kubeconfig"), "GRPC_ENABLE_FORK_SUPPORT": "0"}
    os.mkdir(directory)
    process = await _python("tests.perf.scale.node", name, str(directory), **environment)
    return Service(f"node {name}", process)


async def start_handler(node: str, directory: Path, profile: str) -> Service:
    """The handler of a fake node; `profile` names the file for its cProfile, or nothing."""
    port = _free_port()
    result = directory / "handler.json"
    config = await credentials(directory / "handler.kubeconfig", "virt-handler", node)
    process = await _python(
        "tests.perf.scale.service", "handler", str(result), *([profile] if profile else []),
        KUBECONFIG=str(config), NODE_NAME=node, POD_NAME=node, METRICS_PORT=str(port),
        PODS_DIRECTORY=str(directory / "pods"), RUN_DIRECTORY=str(directory / "run"),
        DEVICE_PLUGIN_DIRECTORY=str(directory),
    )  # fmt: skip
    return Service(f"handler {node}", process, port, result)


async def start_controller(directory: Path, identity: str, profile: str) -> Service:
    """A replica of the controller."""
    port = _free_port()
    result = directory / "controller.json"
    config = await credentials(directory / "controller.kubeconfig", "virt-controller")
    process = await _python(
        "tests.perf.scale.service", "controller", str(result), *([profile] if profile else []),
        KUBECONFIG=str(config), POD_NAME=identity, POD_NAMESPACE=INSTALL.namespace,
        LAUNCHER_IMAGE="podvisor.test/fake-launcher", EXPORTER_IMAGE="podvisor.test/fake-exporter", OBSERVABILITY_PORT=str(port), WEBHOOK_PORT="0",
        SUBRESOURCE_PORT="0", IDENTITY_PORT="0",
    )  # fmt: skip
    return Service("controller", process, port, result)


async def _python(module: str, *args: str, **environment: str) -> asyncio.subprocess.Process:
    variables: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GRPC_VERBOSITY": "ERROR",
        **environment,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *args, cwd=ROOT, env=variables
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
