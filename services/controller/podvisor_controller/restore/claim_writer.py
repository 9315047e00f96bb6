"""The claims of restores: made, given an owner, and deleted.

Invariant: decides and remembers nothing. A claim is deleted only as the one that was seen.
"""

from typing import Any

import msgspec
import structlog
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import PERSISTENT_VOLUME_CLAIMS, ObjectKey, key_of

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.webhooks.defaults_instance import owner_reference

Json = dict[str, Any]

_decode_claim = msgspec.json.Decoder(core.PersistentVolumeClaim).decode
_log = structlog.get_logger(__name__)


class ClaimWriter:
    """Writes claims."""

    def __init__(self, client: KubeClient, claims: Informer[core.PersistentVolumeClaim]) -> None:
        self._client = client
        self._claims = claims

    async def create(self, manifest: Json) -> None:
        """Make a claim. Where its name is taken, by an earlier attempt or by somebody else, the next pass sees by whom."""
        metadata = manifest["metadata"]
        namespace = metadata["namespace"]
        try:
            answer = await self._client.create(PERSISTENT_VOLUME_CLAIMS, namespace, manifest)
        except ApiAlreadyExists:
            key = ObjectKey(namespace, metadata["name"])
            answer = await self._client.get(PERSISTENT_VOLUME_CLAIMS, key)
        self._claims.learn(_decode_claim(answer))

    async def give(self, claim: core.PersistentVolumeClaim, owner: v1.VirtualMachine) -> None:
        """Have a claim, which has no owner, go with a machine. ApiConflict when it has changed."""
        owners = [owner_reference(owner.metadata.name, owner.metadata.uid)]
        body = {"metadata": as_it_was_seen(claim.metadata) | {"ownerReferences": owners}}
        answer = await self._client.merge_patch(PERSISTENT_VOLUME_CLAIMS, key_of(claim), body)
        self._claims.learn(_decode_claim(answer))

    async def delete(self, claim: core.PersistentVolumeClaim) -> None:
        """Begin the deletion of a claim. ApiConflict when it is another by now."""
        try:
            await self._client.delete(
                PERSISTENT_VOLUME_CLAIMS, key_of(claim), uid=claim.metadata.uid
            )
        except ApiNotFound:
            _log.debug("claim was gone already")
