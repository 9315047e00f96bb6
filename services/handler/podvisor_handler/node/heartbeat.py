"""Tells the cluster that this node can take machines: label `kubevirt.io/schedulable` and a
heartbeat annotation, in one patch of the handler's own Node.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog
from podvisor_common.api import meta
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import NODES, ObjectKey

INTERVAL_S = 60.0
JITTER = 0.2
_RETRY_S = 5.0

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Patches the Node `node_name`."""

    def __init__(self, client: KubeClient, node_name: str) -> None:
        self._client = client
        self._key = ObjectKey("", node_name)

    async def run(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Beats from when `ready()` returns until it is cancelled."""
        await ready()
        while True:
            try:
                await self._patch(schedulable=True)
            except ApiError as error:
                _log.warning("heartbeat not written", error=str(error))
                pause_s = _RETRY_S
            else:
                pause_s = INTERVAL_S
            await asyncio.sleep(pause_s * (1 + JITTER * random.random()))

    async def stop(self) -> None:
        """Takes the node out of scheduling, as far as the API server can be reached."""
        try:
            await self._patch(schedulable=False)
        except ApiError as error:
            _log.warning("node not marked unschedulable", error=str(error))

    async def _patch(self, *, schedulable: bool) -> None:
        patch = {
            "metadata": {
                "labels": {names.SCHEDULABLE_LABEL: "true" if schedulable else "false"},
                "annotations": {names.HEARTBEAT_ANNOTATION: meta.format_time(meta.now())},
            }
        }
        await self._client.merge_patch(NODES, self._key, patch)
