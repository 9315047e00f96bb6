"""How pods are found by what they belong to. Pure.

Invariant: a launcher pod belongs to its instance, and a pod that holds a volume for a guest to the launcher pod.
"""

from podvisor_common.api import core
from podvisor_common.api.v1 import names
from podvisor_common.kube.resources import KubeObject, ObjectKey

OWNER_INDEX = "owner"


def owner_keys(pod: core.Pod) -> list[str]:
    """The index of pods by their owner, which is in their namespace: elsewhere anybody may write its uid."""
    owner = pod.metadata.controller_reference()
    return [f"{pod.metadata.namespace}/{owner.uid}"] if owner is not None else []


def owned_key(owner: KubeObject) -> str:
    """What the index has the pods of an object under."""
    return f"{owner.metadata.namespace}/{owner.metadata.uid}"


def instance_of_pod(pod: core.Pod) -> ObjectKey | None:
    """The key of the instance that a pod carries."""
    return _owner_of_kind(pod, names.VIRTUAL_MACHINE_INSTANCE)


def launcher_of_pod(pod: core.Pod) -> ObjectKey | None:
    """The key of the launcher pod for whose guest a pod holds a volume."""
    return _owner_of_kind(pod, "Pod")


def _owner_of_kind(pod: core.Pod, kind: str) -> ObjectKey | None:
    owner = pod.metadata.controller_reference()
    if owner is None or owner.kind != kind:
        return None
    return ObjectKey(pod.metadata.namespace, owner.name)
