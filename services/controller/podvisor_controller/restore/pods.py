"""Which pods have a claim that is to be replaced. Pure.

Invariant: who only reads it counts as well: what it reads would be gone.
"""

from collections.abc import Iterable, Mapping

from podvisor_common.api import core


def pod_with(claim: str, pods: Iterable[core.Pod]) -> str:
    """Which of these pods, all of the claim's namespace, has it and has not ended, for a person; empty when none has."""
    for pod in pods:
        if not pod.is_terminal and claim in _claims_of(pod):
            return f"Pod {pod.metadata.namespace}/{pod.metadata.name}"
    return ""


def _claims_of(pod: core.Pod) -> set[str]:
    found = set()
    for volume in pod.spec.volumes or ():
        source = volume.get("persistentVolumeClaim")
        if isinstance(source, Mapping):
            found.add(str(source.get("claimName")))
        elif "ephemeral" in volume:
            found.add(f"{pod.metadata.name}-{volume.get('name')}")
    return found
