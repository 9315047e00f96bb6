"""Which claims are being exported: so long no machine may write to them.

Invariant: a claim counts as exported from before its pod is asked for until the pod has ended. It is looked up by the claim, whatever
there is of exports.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from podvisor_common.api import core, v1
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.export.pod import export_of_pod, served_by
from podvisor_controller.vmi.claims import claim_key

EXPORTED_INDEX = "exported-claims"


def claims_exported(pod: core.Pod) -> list[str]:
    """The index of pods by the claims that they serve."""
    if pod.is_terminal or export_of_pod(pod) is None:
        return []
    namespace = pod.metadata.namespace
    return [claim_key(namespace, one.claim) for one in served_by(pod)]


class ExportedClaims:
    """Knows them. `pods` has the index EXPORTED_INDEX; `freed` is called with what nobody exports after all."""

    def __init__(self, pods: Informer[core.Pod], freed: Callable[[str], None]) -> None:
        self._pods = pods
        self._freed = freed
        self._asked_for: dict[str, ObjectKey] = {}

    @contextmanager
    def asking_for(self, export: ObjectKey, claims: Iterable[str]) -> Iterator[None]:
        """A pod is being asked for that serves these claims."""
        keys = [claim_key(export.namespace, claim) for claim in claims]
        self._asked_for |= dict.fromkeys(keys, export)
        try:
            yield
        finally:
            for key in keys:
                self._asked_for.pop(key, None)
                self._freed(key)

    def of(self, vmi: v1.VirtualMachineInstance) -> dict[str, ObjectKey]:
        """Of the claims of an instance those that are being exported, each with the export."""
        namespace = vmi.metadata.namespace
        names = {volume.claim_name for volume in vmi.spec.volumes or ()} - {""}
        holders = ((name, self._holder(claim_key(namespace, name))) for name in sorted(names))
        return {name: holder for name, holder in holders if holder is not None}

    def exporting(self, claim: ObjectKey) -> ObjectKey | None:
        """The export that serves a claim; None when none does."""
        return self._holder(claim_key(*claim))

    def _holder(self, key: str) -> ObjectKey | None:
        for pod in self._pods.by_index(EXPORTED_INDEX, key):
            return export_of_pod(pod)
        return self._asked_for.get(key)
