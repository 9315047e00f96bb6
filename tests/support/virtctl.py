"""KubeVirt's own client, unmodified, against the development cluster."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from tests.support.cluster import ROOT, Cluster
from tests.support.process import Completed, end, run

BUILT_WITHIN_S = 900


@cache
def _directory() -> Path:
    """Where it is, built where it never was."""
    done = subprocess.run(
        [ROOT / "dev/tools/build.sh", "virtctl"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=BUILT_WITHIN_S,
    )
    return Path(done.stdout.strip())


def command(cluster: Cluster, *args: str) -> list[str]:
    """A call of it. The programs that it starts find the cluster by the environment alone."""
    kubeconfig = f"KUBECONFIG={ROOT / '.dev/kubeconfig'}"
    return ["env", kubeconfig, str(_directory() / "virtctl"), "-n", cluster.namespace, *args]


async def virtctl(
    cluster: Cluster, *args: str, check: bool = True, timeout_s: float = 40
) -> Completed:
    """Run it in the namespace."""
    return await run(*command(cluster, *args), check=check, timeout_s=timeout_s)


@asynccontextmanager
async def serving(cluster: Cluster, *args: str, port: str) -> AsyncIterator[int]:
    """Run it as a server for the body, until which it prints its port, the first group of `port`."""
    process = await asyncio.create_subprocess_exec(
        *command(cluster, *args),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        said = ""
        async with asyncio.timeout(20):
            while (found := re.search(port, said)) is None:
                line = await process.stdout.readline()
                assert line, f"it ended: {said}"
                said += line.decode()
        yield int(found[1])
    finally:
        await end(process)
