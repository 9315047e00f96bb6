"""A set as the API server has it: read before anything is done by it.

Invariant: nothing is written here.
"""

from collections.abc import Callable

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
