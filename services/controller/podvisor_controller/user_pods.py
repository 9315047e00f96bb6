"""Pods of a namespace as far as they tell which claims they have: the caches have podvisor's own pods alone.

Invariant: of a pod little is decoded; between pages, which are short, the event loop goes on.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from podvisor_common.api import meta
from podvisor_common.api.base import ApiStruct
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiExpired
from podvisor_common.kube.resources import PODS

PAGE_SIZE = 100

_NOT_ENDED = "status.phase!=Succeeded,status.phase!=Failed"
_ENDED = ("Succeeded", "Failed")


class _Claim(ApiStruct, frozen=True):
    claim_name: str = ""
    read_only: bool = False


class _Volume(ApiStruct, frozen=True):
    name: str = ""
    persistent_volume_claim: _Claim | None = None
    ephemeral: dict[str, Any] | None = None


class _Spec(ApiStruct, frozen=True):
    volumes: list[_Volume] | None = None


class _Status(ApiStruct, frozen=True):
    phase: str = ""


class _Metadata(ApiStruct, frozen=True):
    name: str = ""
    owner_references: list[meta.OwnerReference] | None = None


class UserPod(ApiStruct, frozen=True):
    """Any pod, as far as it tells which claims it has."""

    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def is_ended(self) -> bool:
        """None of its processes is left, and none will be started."""
        return self.status.phase in _ENDED

    def claims(self, *, written: bool = False) -> set[str]:
        """The claims that it has; `written`: those alone that it may write to."""
        found = set()
        for volume in self.spec.volumes or ():
            claim = volume.persistent_volume_claim
            if volume.ephemeral is not None:
                found.add(f"{self.metadata.name}-{volume.name}")
            elif claim is not None and not (written and claim.read_only):
                found.add(claim.claim_name)
        return found


class _ListMeta(msgspec.Struct):
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[UserPod] | None = None


_decode_page = msgspec.json.Decoder(_Page).decode


async def pages_of_pods(client: KubeClient, namespace: str) -> AsyncIterator[list[UserPod]]:
    """All pods of the namespace that have not ended, a page at a time; some of them twice where the first list has expired in
    between. Raises ApiError."""
    try:
        async for page in _pages(client, namespace, PAGE_SIZE):
            yield page
    except ApiExpired:
        async for page in _pages(client, namespace, 0):
            yield page


async def _pages(client: KubeClient, namespace: str, size: int) -> AsyncIterator[list[UserPod]]:
    continue_ = ""
    while True:
        answer = await client.list_page(
            PODS,
            namespace=namespace,
            field_selector=_NOT_ENDED,
            limit=size,
            continue_=continue_,
        )
        page = _decode_page(answer)
        yield page.items or []
        continue_ = page.metadata.continue_
        if not continue_:
            return
