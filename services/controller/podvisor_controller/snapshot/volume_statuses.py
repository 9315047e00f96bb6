"""What a machine's status says of snapshots of its volumes, from the caches.

Invariant: reads only, and nothing for a machine without claims. What cannot be found out stays as it was said last.
"""

import structlog
from podvisor_common.api import core, v1
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.snapshot import volumes
from podvisor_controller.snapshot.class_reader import ClassReader
from podvisor_controller.snapshot.classes import NO_CLASSES

_log = structlog.get_logger(__name__)


class VolumeStatuses:
    """Says of which volumes of a machine a snapshot has the content."""

    def __init__(
        self, volume_claims: Informer[core.PersistentVolumeClaim], classes: ClassReader
    ) -> None:
        self._volume_claims = volume_claims
        self._classes = classes

    async def of(self, vm: v1.VirtualMachine) -> list[v1.VolumeSnapshotStatus] | None:
        """One entry for each volume."""
        try:
            classes = await self._classes.read() if volumes.volumes_of(vm) else NO_CLASSES
        except ApiError as error:
            _log.debug("classes cannot be read", error=str(error))
            return vm.status.volume_snapshot_statuses
        namespace = vm.metadata.namespace
        found = volumes.statuses(
            vm, lambda claim: self._volume_claims.get(ObjectKey(namespace, claim)), classes
        )
        return found or None
