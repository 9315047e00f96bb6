"""Takes nodes out of scheduling whose handler is silent, and has their instances looked at.

Invariant: writes nothing but the label `kubevirt.io/schedulable`, and only "false": it is the handler that says "true".
"""

from collections.abc import Callable

import msgspec
import structlog
from podvisor_common.api import core
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.errors import ApiError, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import NODES, ObjectKey

from podvisor_controller.node.attendance import Attendance

_decode = msgspec.json.Decoder(core.Node).decode
_log = structlog.get_logger(__name__)


class NodeReconciler:
    """Looks after heartbeats. `fallen_silent` is called with the name of a node whose handler is not heard of any more."""

    def __init__(
        self,
        client: KubeClient,
        *,
        nodes: Informer[core.Node],
        attendance: Attendance,
        fallen_silent: Callable[[str], None],
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._attendance = attendance
        self._fallen_silent = fallen_silent

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Read the node anew when its heartbeat is overdue. Called when a node has come or changed."""
        left_s = self._attendance.look_again_in_s(key.name)
        if left_s is not None and left_s <= 0:
            await self._look(key)
        node = self._nodes.get(key)
        if node is not None and not self._attendance.is_attended(key.name):
            await self._take_out_of_scheduling(key, node)
        left_s = self._attendance.look_again_in_s(key.name)
        return None if left_s is None else Requeue(max(left_s, 0.0))

    async def _look(self, key: ObjectKey) -> None:
        try:
            node = _decode(await self._client.get(NODES, key))
        except ApiNotFound:
            self._attendance.forget(key.name)
            return
        except ApiError:
            self._attendance.nobody_was_heard(key.name)
            raise
        self._attendance.saw_freshly(node)
        if not self._attendance.is_attended(key.name):
            heartbeat = node.metadata.annotation(names.HEARTBEAT_ANNOTATION)
            _log.warning("virt-handler is silent", node=key.name, heartbeat=heartbeat)
            self._fallen_silent(key.name)

    async def _take_out_of_scheduling(self, key: ObjectKey, node: core.Node) -> None:
        if node.metadata.label(names.SCHEDULABLE_LABEL) != "true":
            return
        patch = {
            "metadata": {
                # A handler that has just come back has the last word.
                "resourceVersion": node.metadata.resource_version,
                "labels": {names.SCHEDULABLE_LABEL: "false"},
            }
        }
        await self._client.merge_patch(NODES, key, patch)
