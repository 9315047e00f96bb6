"""Ports of pods on this machine, through the API server."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.cluster import ROOT, Cluster
from tests.support.process import end


@asynccontextmanager
async def forwarded(cluster: Cluster, pod: str, port: int) -> AsyncIterator[int]:
    """A port of this machine that leads to `port` of a pod, as long as the block lasts."""
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "dev/kubectl"), "-n", cluster.namespace, "port-forward", f"pod/{pod}", f":{port}",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"127\.0\.0\.1:(\d+) ->", line)
        assert found, line
        draining = asyncio.create_task(process.stdout.read(), name=f"output of {pod}")
        yield int(found[1])
        draining.cancel()
    finally:
        await end(process)
