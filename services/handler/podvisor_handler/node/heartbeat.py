"""Tells the cluster that this node can take machines: label `kubevirt.io/schedulable` and a
heartbeat annotation, in one patch of the handler's own Node.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import meta
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import NODES, ObjectKey

INTERVAL_S = 60.0
JITTER = 0.2
# Well within the time that the controller gives a heartbeat that is overdue.
_RETRY_INITIAL_S = 2.0
_RETRY_MAX_S = 10.0

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Patches the Node `node_name`."""

    def __init__(self, client: KubeClient, node_name: str) -> None:
        self._client = client
        self._key = ObjectKey("", node_name)

    async def run(self, ready: Callable[[], Awaitable[None]]) -> None:
        """Beats from when `ready()` returns until it is cancelled."""
        await ready()
        backoff = Backoff(_RETRY_INITIAL_S, max_s=_RETRY_MAX_S)
        while True:
            try:
                await self._patch(schedulable=True)
            except ApiError as error:
                _log.warning("heartbeat not written", error=str(error))
                pause_s = backoff.next_s(at_least_s=error.retry_after_s or 0.0)
            else:
                backoff.reset()
                pause_s = INTERVAL_S * (1 + JITTER * random.random())
            await asyncio.sleep(pause_s)

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
