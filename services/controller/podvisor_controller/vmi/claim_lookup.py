"""The PersistentVolumeClaims of an instance, from the cache and, before a user is told that one is missing, from the API server.

Invariant: reads only.
"""

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import PERSISTENT_VOLUME_CLAIMS, ObjectKey

from podvisor_controller.vmi.claims import claimed, pluggable
from podvisor_controller.vmi.status import says_missing

_decode_claim = msgspec.json.Decoder(core.PersistentVolumeClaim).decode


class ClaimLookup:
    """Finds claims."""

    def __init__(self, client: KubeClient, claims: Informer[core.PersistentVolumeClaim]) -> None:
        self._client = client
        self._claims = claims

    async def of(self, vmi: v1.VirtualMachineInstance) -> dict[str, core.PersistentVolumeClaim]:
        """Those of an instance that exist, by name. ApiError when that cannot be found out.

        A cache may be behind: what it does not know is asked for, until it is told of that it is missing. From then on a
        watch that has it will say so.
        """
        found = {}
        is_over = vmi.is_final or vmi.metadata.is_being_deleted or says_missing(vmi)
        is_bound = bool(vmi.status.node_name)
        # The launcher pod needs its claims before it has a node, the pods of volumes that come and go theirs from then on.
        matters = {volume.claim_name: not is_bound for volume in claimed(vmi)}
        matters |= {v.claim_name: is_bound for v in pluggable(vmi) if v.claim_name not in matters}
        for name, is_needed in matters.items():
            key = ObjectKey(vmi.metadata.namespace, name)
            claim = self._claims.get(key)
            if claim is None and is_needed and not is_over:
                claim = await self._ask_for(key)
            if claim is not None:
                found[name] = claim
        return found

    async def _ask_for(self, key: ObjectKey) -> core.PersistentVolumeClaim | None:
        try:
            claim = _decode_claim(await self._client.get(PERSISTENT_VOLUME_CLAIMS, key))
        except ApiNotFound:
            return None
        self._claims.learn(claim)
        return claim
