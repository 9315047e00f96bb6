"""The writes by which a set takes members over and lets them go.

Invariant: a member, and the set that takes it, is written to only as it was seen: ApiConflict when either has changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import msgspec
from podvisor_common.api.base import ApiStruct
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict, ApiError
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import ObjectKey, Resource, key_of

from podvisor_controller.sets.batches import PARALLEL_WRITES, in_batches
from podvisor_controller.sets.claims import M, adoption, release


class _Outline(ApiStruct, frozen=True):
    """Which object it is."""

    metadata: ObjectMeta


_decode_outline = msgspec.json.Decoder(_Outline).decode


@dataclass(frozen=True, slots=True)
class Claiming(Generic[M]):
    """Changes the owners of members of sets of one kind."""

    client: KubeClient
    sets: Resource
    members: Informer[M]
    decode: Callable[[bytes], M]

    async def adopt(
        self, orphans: Sequence[M], owner: ObjectMeta, reference: Mapping[str, Any]
    ) -> list[ApiError]:
        """Make orphans the set's own, unless it is on its way out by now; what went wrong with single ones."""
        if not orphans:
            return []
        key = ObjectKey(owner.namespace, owner.name)
        live = _decode_outline(await self.client.get(self.sets, key)).metadata
        if live.uid != owner.uid or live.is_being_deleted:
            raise ApiConflict(409, "Conflict", "the set is another, or being deleted")

        async def one(member: M) -> None:
            await self._patch(member, adoption(member.metadata, reference))

        return await in_batches(orphans, one, first=PARALLEL_WRITES)

    async def release(self, strays: Sequence[M], owner: ObjectMeta) -> list[ApiError]:
        """Let members go; what went wrong with single ones."""

        async def one(member: M) -> None:
            await self._patch(member, release(member.metadata, owner.uid))

        return await in_batches(strays, one, first=PARALLEL_WRITES)

    async def _patch(self, member: M, patch: Mapping[str, Any]) -> None:
        answer = await self.client.merge_patch(self.members.resource, key_of(member), dict(patch))
        self.members.learn(self.decode(answer))
