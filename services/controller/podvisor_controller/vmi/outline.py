"""What the controller keeps of the launcher pods of the whole cluster, which is what it reads of them.

Invariant: pure; a pod without its labels, annotations, resources and most of its conditions means the same to everything
in this service.
"""

from functools import lru_cache

from msgspec.structs import replace
from podvisor_common.api import core
from podvisor_common.api.v1.names import ConditionType


def outline(pod: core.Pod) -> core.Pod:
    """The pod without what the controller does not read: half of its memory."""
    containers = tuple(_container(c.name, c.image) for c in pod.spec.containers or ())
    conditions = tuple(
        c for c in pod.status.conditions or () if c.type == ConditionType.POD_SCHEDULED
    )
    return replace(
        pod,
        metadata=replace(pod.metadata, labels=None, annotations=None),
        spec=replace(pod.spec, containers=containers),
        status=replace(pod.status, conditions=conditions),
    )


@lru_cache(maxsize=256)
def _container(name: str, image: str) -> core.Container:
    """The same value for the same words: all machines of a release have the same containers."""
    return core.Container(name=name, image=image)
