"""A set as the API server has it, for what must not be done by a number or a template that only a cache still knows."""

from collections.abc import Callable

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import key_of

from podvisor_controller.sets.claims import M


async def read_live(
    client: KubeClient, sets: Informer[M], decode: Callable[[bytes], M], known: M
) -> M | None:
    """The set at this moment; None when it is gone or on its way out, of which the watch is about to tell."""
    try:
        live = decode(await client.get(sets.resource, key_of(known)))
    except ApiNotFound:
        return None
    sets.learn(live)
    is_other = live.metadata.uid != known.metadata.uid
    return None if is_other or live.metadata.is_being_deleted else live
