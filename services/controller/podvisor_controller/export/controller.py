"""The controller of exports, and which event wakes it or whom an export has kept waiting.

Invariant: decides nothing about exports; callbacks only enqueue.
"""

from collections.abc import Callable

from podvisor_common.api import core
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.export.names import SourceKind
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Controller
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.resources import ObjectKey, key_of

from podvisor_controller.caches import Caches
from podvisor_controller.config import ClusterConfig
from podvisor_controller.export.authority import Authority
from podvisor_controller.export.holders import ExportedClaims, claims_exported
from podvisor_controller.export.pod import export_of_pod
from podvisor_controller.export.reconciler import ExportReconciler
from podvisor_controller.export.sources import SOURCES_INDEX, source_key
from podvisor_controller.settings import Settings
from podvisor_controller.vmi.claim_users import USERS_INDEX

WORKERS = 2


class Exports:
    """Exports and their pods. `wake` has an export looked at, `wake_instance` an instance that may have waited for the end of one."""

    def __init__(
        self,
        client: KubeClient,
        caches: Caches,
        settings: Settings,
        *,
        config: Callable[[], ClusterConfig],
        recorder: EventRecorder,
        wake: Callable[[Controller, ObjectKey], None],
        wake_instance: Callable[[ObjectKey], None],
    ) -> None:
        self._caches = caches
        self._wake = wake
        self._wake_instance = wake_instance
        self.claims = ExportedClaims(caches.pods, caches.exports, self._freed)
        reconciler = ExportReconciler(
            client,
            caches,
            authority=Authority(client, settings.pod_namespace),
            claims=self.claims,
            config=config,
            image=settings.exporter_image,
            recorder=recorder,
        )
        self.controller = Controller("export", reconciler.reconcile, workers=WORKERS)

    def subscribe(self) -> None:
        """Be told of what matters to exports from now on."""
        caches = self._caches
        caches.exports.subscribe(self._on_export)
        caches.pods.subscribe(self._on_pod)
        caches.volume_claims.subscribe(lambda key, _, __: self._on_source(SourceKind.CLAIM, key))
        caches.vms.subscribe(lambda key, _, __: self._on_source(SourceKind.MACHINE, key))
        # A machine's instance has its name.
        caches.vmis.subscribe(lambda key, _, __: self._on_source(SourceKind.MACHINE, key))
        caches.snapshots.subscribe(lambda key, _, __: self._on_source(SourceKind.SNAPSHOT, key))

    def _on_source(self, kind: SourceKind, key: ObjectKey) -> None:
        for export in self._caches.exports.by_index(SOURCES_INDEX, source_key(kind, key)):
            self._wake(self.controller, key_of(export))

    def _on_export(
        self, key: ObjectKey, old: VirtualMachineExport | None, new: VirtualMachineExport | None
    ) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self.claims.export_gone(old)
        self._wake(self.controller, key)

    def _on_pod(self, _: ObjectKey, old: core.Pod | None, new: core.Pod | None) -> None:
        pod = new or old
        export = export_of_pod(pod) if pod is not None else None
        if export is None:
            return
        self._wake(self.controller, export)
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self.claims.pod_gone(old)
        had = claims_exported(old) if old is not None else []
        has = claims_exported(new) if new is not None else []
        for claim in set(had) - set(has):
            self._freed(claim)

    def _freed(self, claim: str) -> None:
        for vmi in self._caches.vmis.by_index(USERS_INDEX, claim):
            self._wake_instance(key_of(vmi))
