"""A set in the API server: read before anything is done by it, and its status written.

Invariant: a status is written only to the set that it was computed from: ApiConflict when that has changed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import key_of

from podvisor_controller.sets.claims import M


async def read_live(
    client: KubeClient, sets: Informer[M], decode: Callable[[bytes], M], known: M
) -> M | None:
    """The set at this moment, for a cache may have another number or template; None when it is gone or on its way out."""
    try:
        live = decode(await client.get(sets.resource, key_of(known)))
    except ApiNotFound:
        return None
    sets.learn(live)
    is_other = live.metadata.uid != known.metadata.uid
    return None if is_other or live.metadata.is_being_deleted else live


async def write_status(
    client: KubeClient,
    sets: Informer[M],
    decode: Callable[[bytes], M],
    known: M,
    patch: Mapping[str, Any],
) -> bool:
    """Patch the status of a set; whether that was done, which it is not where nothing is to be changed or the set is gone."""
    if not patch:
        return False
    version = known.metadata.resource_version
    body = {"metadata": {"resourceVersion": version}, "status": dict(patch)}
    try:
        answer = await client.merge_patch(sets.resource, key_of(known), body, subresource="status")
    except ApiNotFound:
        return False
    sets.learn(decode(answer))
    return True
