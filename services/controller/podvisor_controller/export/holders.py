"""Which claims are being exported: so long no machine may write to them.

Invariant: a claim counts as exported from before its pod is asked for until the pod has ended, even if the export goes before it.
What says of itself that it is an export's, and is not, holds no claim.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from podvisor_common.api import core, v1
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.export.identity import pod_name
from podvisor_controller.export.pod import export_of_pod, served_by
from podvisor_controller.vmi.claims import claim_key

EXPORTED_INDEX = "exported-claims"


def claims_exported(pod: core.Pod) -> list[str]:
    """The index of pods by the claims that they say they serve."""
    if pod.is_terminal or export_of_pod(pod) is None:
        return []
    namespace = pod.metadata.namespace
    return [claim_key(namespace, one.claim) for one in served_by(pod)]


class ExportedClaims:
    """Knows them. `pods` has the index EXPORTED_INDEX; `freed` is called with what nobody exports after all."""

    def __init__(
        self,
        pods: Informer[core.Pod],
        exports: Informer[VirtualMachineExport],
        freed: Callable[[str], None],
    ) -> None:
        self._pods = pods
        self._exports = exports
        self._freed = freed
        self._outlived: set[str] = set()  # UIDs of exports that are gone before their pods
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

    def export_gone(self, export: VirtualMachineExport) -> None:
        """There is no such export any more. Its pod, which goes with it, still has the claims."""
        pod = self._pods.get(ObjectKey(export.metadata.namespace, pod_name(export)))
        if pod is not None and _is_pod_of(export, pod):
            self._outlived.add(export.metadata.uid)

    def pod_gone(self, pod: core.Pod) -> None:
        """There is no such pod any more."""
        if owner := pod.metadata.controller_reference():
            self._outlived.discard(owner.uid)

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
            if (holder := self._export_of(pod)) is not None:
                return holder
        return self._asked_for.get(key)

    def _export_of(self, pod: core.Pod) -> ObjectKey | None:
        """The export that the pod serves; None where it only says so."""
        key, owner = export_of_pod(pod), pod.metadata.controller_reference()
        if key is None or owner is None:
            return None
        export = self._exports.get(key)
        is_served = export is not None and _is_pod_of(export, pod)
        return key if is_served or owner.uid in self._outlived else None


def _is_pod_of(export: VirtualMachineExport, pod: core.Pod) -> bool:
    owner = pod.metadata.controller_reference()
    is_own = owner is not None and owner.uid == export.metadata.uid
    return is_own and pod.metadata.name == pod_name(export)
