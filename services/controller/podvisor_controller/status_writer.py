"""Writes the statuses of objects that a controller watches.

Invariant: a status is written only to the object that it was computed from: ApiConflict when that has changed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import KubeObject, key_of

T = TypeVar("T", bound=KubeObject)


async def write_status(
    client: KubeClient,
    cache: Informer[T],
    decode: Callable[[bytes], T],
    known: T,
    patch: Mapping[str, Any],
) -> bool:
    """Patch the status of an object; whether that was done, which it is not where nothing is to be changed or the object is gone."""
    if not patch:
        return False
    version = known.metadata.resource_version
    body = {"metadata": {"resourceVersion": version}, "status": dict(patch)}
    try:
        answer = await client.merge_patch(cache.resource, key_of(known), body, subresource="status")
    except ApiNotFound:
        return False
    cache.learn(decode(answer))
    return True
