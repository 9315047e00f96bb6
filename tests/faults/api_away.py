"""The API server goes away for everybody: users, the kubelet, the rest of the cluster and podvisor."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.replicas import CONTROLLER_PODS, HANDLER_PODS, INSTALL
from tests.support.cluster import ROOT, Cluster
from tests.support.process import run

_CONTAINER = "podvisor-apiserver-1"
# From the start of its process until it answers.
BACK_WITHIN_S = 60.0


@dataclass(slots=True)
class Outage:
    """When nobody was answered, in seconds as of time.time()."""

    began_s: float = field(default_factory=time.time)
    back_s: float = 0.0


@asynccontextmanager
async def api_server_away() -> AsyncIterator[Outage]:
    """The API server's process is dead for the body; then it is started again and answers."""
    await _docker("kill", _CONTAINER)
    outage = Outage()
    try:
        yield outage
    finally:
        await _docker("start", _CONTAINER)
        await _answers()
        outage.back_s = time.time()


async def _answers() -> None:
    """Ask until it is ready. Each attempt costs the time of a process, which is pause enough."""
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            done = await Cluster("default").kubectl("get", "--raw=/readyz", check=False)
            if done.exit_code == 0:
                return


async def _docker(*args: str) -> None:
    await run("bash", "-c", f". {ROOT}/dev/env && docker {' '.join(args)}", timeout_s=60)


async def restarts() -> dict[str, int]:
    """How often the containers of each of podvisor's pods were started again."""
    found = {}
    for selector in (CONTROLLER_PODS, HANDLER_PODS):
        for pod in await INSTALL.all("pods", labels=selector):
            statuses = pod["status"]["containerStatuses"]
            found[pod["metadata"]["name"]] = sum(each["restartCount"] for each in statuses)
    return found
