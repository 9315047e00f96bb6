"""strace on a node: what a process of it, and all that it begins, asks of the kernel.

Invariant: strace has gone when the body ends; it is ended on the node, where ending its client here would leave it.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.cluster import ROOT, on_node
from tests.support.process import end

_FILE = "/tmp/podvisor.trace"


@asynccontextmanager
async def traced(pattern: str, *options: str) -> AsyncIterator[None]:
    """Attach to the oldest process of the first node whose command line matches, and follow its children and threads. What is written
    down is there for calls() during the body and after it."""
    attach = (
        f"rm -f {_FILE}; exec strace -f -s 200 -o {_FILE} -e signal=none {' '.join(options)}"
        f" -p $(pgrep -o -f '{pattern}')"
    )
    process = await asyncio.create_subprocess_exec(
        str(ROOT / "dev/node"), "node1", "sh", "-c", attach, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(10):
            assert b"attached" in (said := await process.stderr.readline()), said
        yield
    finally:
        await on_node("pkill", "-x", "strace", check=False)
        async with asyncio.timeout(10):
            await process.stderr.read()
            await process.wait()
        await end(process)


async def calls() -> dict[int, list[str]]:
    """What was written down so far, by the numbers of threads."""
    found: dict[int, list[str]] = {}
    for line in (await on_node("cat", _FILE)).stdout.splitlines():
        if match := re.match(r"(\d+) +(\w+\(.*)", line):
            found.setdefault(int(match[1]), []).append(match[2])
    return found
