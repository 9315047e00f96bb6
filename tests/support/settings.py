"""The settings of the whole cluster: changed for a while, by tests that have it for themselves.

Invariant: what was there before is there again afterwards, and in effect.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.support.cluster import Cluster, Json

INSTALLATION = Cluster("kubevirt")

Configure = Callable[[Json], Awaitable[None]]


@asynccontextmanager
async def configuring() -> AsyncIterator[Configure]:
    """Gives what merges into `spec.configuration`, and waits until the controllers have seen it."""
    before = (await _settings())["spec"].get("configuration", {})

    async def merge(configuration: Json) -> None:
        patch = json.dumps({"spec": {"configuration": configuration}})
        await INSTALLATION.kubectl("patch", "kubevirt", "kubevirt", "--type=merge", "-p", patch)
        await _in_effect()

    try:
        yield merge
    finally:
        restore = [{"op": "replace", "path": "/spec/configuration", "value": before}]
        await INSTALLATION.kubectl(
            "patch", "kubevirt", "kubevirt", "--type=json", "-p", json.dumps(restore)
        )
        await _in_effect()


async def _settings() -> Json:
    found = await INSTALLATION.get("kubevirt", "kubevirt")
    assert found is not None
    return found


async def _in_effect() -> None:
    generation: int = (await _settings())["metadata"]["generation"]

    def holds(state: Json | None) -> bool:
        seen: int = (state or {}).get("status", {}).get("observedGeneration", 0)
        return seen >= generation

    await INSTALLATION.until(
        "kubevirt", "kubevirt", holds, within_s=20, what="the settings are in effect"
    )
