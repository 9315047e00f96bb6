"""Instances whose pod's object is gone: deleted by force, or while no handler was here.

Invariant: that the object is gone proves nothing of the guest. Only a pod of which the API server
knows nothing and the node has nothing left has ended.
"""

from enum import Enum, auto
from functools import partial

import msgspec
from podvisor_common.aio.threads import in_own_thread
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import PODS

from podvisor_handler.launchers.remains import has_directory, has_process


class Remains(Enum):
    """What there is of the pods that an instance names and the cache does not have."""

    EXPECTED = auto()  # none is named, or its object is on its way into the cache
    DIRECTORY = auto()  # its removal will be noticed
    PROCESS = auto()
    NOTHING = auto()


class _Pods(msgspec.Struct):
    items: list[core.Pod]


_decode_pods = msgspec.json.Decoder(_Pods).decode


class VanishedPods:
    """Looks for what is left of pods on this node."""

    def __init__(self, client: KubeClient, node_name: str, pods_directory: str) -> None:
        self._client = client
        self._node_name = node_name
        self._pods_directory = pods_directory

    async def remains_of(self, vmi: v1.VirtualMachineInstance) -> Remains:
        """What is left of the pods that carried `vmi` here, according to its status.

        Raises ApiError.
        """
        active = vmi.status.active_pods or {}
        uids = {uid for uid, node in active.items() if node == self._node_name}
        if not uids:
            return Remains.EXPECTED
        if any(has_directory(self._pods_directory, uid) for uid in uids):
            return Remains.DIRECTORY
        for uid in uids:
            if await in_own_thread(partial(has_process, uid), name=f"remains-{uid}"):
                return Remains.PROCESS
        # Asked last and of the API server itself: a cache may not have seen a new pod yet.
        page = await self._client.list_page(
            PODS,
            namespace=vmi.metadata.namespace,
            label_selector=f"{names.CREATED_BY_LABEL}={vmi.metadata.uid}",
            field_selector=f"spec.nodeName={self._node_name}",
        )
        known = {pod.metadata.uid for pod in _decode_pods(page).items}
        return Remains.EXPECTED if uids & known else Remains.NOTHING
