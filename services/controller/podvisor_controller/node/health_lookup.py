"""The health of a node, from the cache and, before anybody's guest is given up, from the API server.

Invariant: reads only.
"""

import msgspec
from podvisor_common.api import core
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import NODES, ObjectKey

from podvisor_controller.node.attendance import Attendance
from podvisor_controller.node.health import NodeHealth, health_of

_decode_node = msgspec.json.Decoder(core.Node).decode


class HealthLookup:
    """Finds out how nodes are."""

    def __init__(
        self, client: KubeClient, nodes: Informer[core.Node], attendance: Attendance
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._attendance = attendance

    async def of(self, name: str) -> NodeHealth:
        """The health of a node. That one is gone or out of service is believed of the API server only, not of the cache."""
        if not name:
            return NodeHealth.WELL
        key = ObjectKey("", name)
        attended = self._attendance.is_attended(name)
        patient = self._attendance.patience_left_s(name) > 0
        known = health_of(self._nodes.get(key), attended=attended, patient=patient)
        if known is not NodeHealth.FENCED:
            return known
        try:
            node = _decode_node(await self._client.get(NODES, key))
            return health_of(node, attended=attended, patient=patient)
        except ApiNotFound:
            return health_of(None)
