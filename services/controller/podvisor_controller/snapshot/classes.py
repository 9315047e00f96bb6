"""Which VolumeSnapshotClass makes the snapshots of the volumes of which StorageClass. Pure.

Invariant: of several classes with the driver of a StorageClass always the same one is chosen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from podvisor_common.api.snapshot import names
from podvisor_common.api.storage import StorageClass, VolumeSnapshotClass


@dataclass(frozen=True, slots=True)
class SnapshotClasses:
    """By the name of a StorageClass, the name of the VolumeSnapshotClass; one that has none is not in it."""

    of_storage_class: Mapping[str, str] = field(default_factory=dict)

    def find(self, storage_class: str | None) -> str | None:
        """The VolumeSnapshotClass of a claim's class; None when there can be no snapshot of its volume."""
        return self.of_storage_class.get(storage_class or "")


NO_CLASSES = SnapshotClasses()


def matched(
    storage_classes: Iterable[StorageClass], snapshot_classes: Iterable[VolumeSnapshotClass]
) -> SnapshotClasses:
    """Each StorageClass with the default class of its driver or, where there is none, the first by name."""
    of_driver: dict[str, str] = {}
    for one in sorted(snapshot_classes, key=_preference):
        of_driver.setdefault(one.driver, one.metadata.name)
    return SnapshotClasses(
        {
            one.metadata.name: of_driver[one.provisioner]
            for one in storage_classes
            if one.provisioner in of_driver
        }
    )


def _preference(one: VolumeSnapshotClass) -> tuple[bool, str]:
    """Orders classes: those that are marked as default first, then by name."""
    is_default = one.metadata.annotation(names.DEFAULT_CLASS_ANNOTATION) == "true"
    return not is_default, one.metadata.name
