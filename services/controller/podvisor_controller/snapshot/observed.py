"""All that a decision about one VirtualMachineSnapshot depends on, and the questions asked of it. Pure.

Invariant: an Observed is read in one go and never changes; every property is a fact, never a wish.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from podvisor_common.api import meta, v1
from podvisor_common.api.duration import DurationError, parse_duration
from podvisor_common.api.snapshot import (
    VirtualMachineSnapshot,
    VirtualMachineSnapshotContent,
    names,
)
from podvisor_common.api.snapshot.names import Indication, SnapshotPhase
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.api.v1.names import ConditionType

_DEFAULT_DEADLINE = timedelta(seconds=names.DEFAULT_FAILURE_DEADLINE_S)


@dataclass(frozen=True, slots=True)
class Observed:
    """One snapshot, its machine with its instance, and what there is of its content.

    `volume_snapshots` has those of the content's VolumeSnapshots that exist. `restore` is the name of one that makes claims of
    them, and may have deleted what those take the place of. `hindrance` is why the machine cannot be locked yet, and `refusal`
    what the API server refused last; both are sentences for a person, and empty where there is nothing to say.
    """

    snapshot: VirtualMachineSnapshot
    at: datetime
    vm: v1.VirtualMachine | None = None
    vmi: v1.VirtualMachineInstance | None = None
    content: VirtualMachineSnapshotContent | None = None
    volume_snapshots: Mapping[str, VolumeSnapshot] = field(default_factory=dict)
    restore: str = ""
    hindrance: str = ""
    refusal: str = ""

    @property
    def is_deleting(self) -> bool:
        """Somebody does not want the snapshot any more."""
        return self.snapshot.metadata.is_being_deleted

    @property
    def is_over(self) -> bool:
        """The status says that it succeeded or failed."""
        return self.snapshot.status.phase in (SnapshotPhase.SUCCEEDED, SnapshotPhase.FAILED)

    @property
    def is_taken(self) -> bool:
        """Everything was there at one moment, ready or not: the machine may change again."""
        return self.content is not None and self.content.status.creation_time is not None

    @property
    def has_failed(self) -> bool:
        """It took too long."""
        if self.is_over or self.is_taken:
            return self.snapshot.status.phase == SnapshotPhase.FAILED
        left = self.deadline_left
        return left is not None and left <= timedelta(0)

    @property
    def deadline_left(self) -> timedelta | None:
        """How long it may still take; None when it may take as long as it wants, or is over."""
        deadline = _deadline_of(self.snapshot)
        created = self.snapshot.metadata.creation_timestamp
        if not deadline or created is None or self.is_over:
            return None
        return meta.parse_time(created) + deadline - self.at

    @property
    def is_ending(self) -> bool:
        """Nothing is made for it any more."""
        return self.is_deleting or self.has_failed

    @property
    def loses_content(self) -> bool:
        """Where the snapshot ends, its content goes: that is its policy, or nothing could be restored from it."""
        policy = self.snapshot.spec.deletion_policy or names.DeletionPolicy.DELETE
        is_ready = self.content is not None and self.content.status.ready_to_use is True
        return policy == names.DeletionPolicy.DELETE or not is_ready

    @property
    def holds_lock(self) -> bool:
        """The machine says that this snapshot is in progress."""
        vm = self.vm
        return vm is not None and vm.status.snapshot_in_progress == self.snapshot.metadata.name

    @property
    def is_locked(self) -> bool:
        """The machine neither changes in what matters to a snapshot nor goes."""
        finalizers = (self.vm.metadata.finalizers if self.vm is not None else None) or ()
        return self.holds_lock and names.SOURCE_FINALIZER in finalizers

    @property
    def wanted(self) -> list[str]:
        """The VolumeSnapshots that the content names."""
        backups = (self.content.spec.volume_backups if self.content is not None else None) or ()
        return [b.volume_snapshot_name for b in backups if b.volume_snapshot_name]

    @property
    def absent(self) -> list[str]:
        """Those of them that do not exist, or not any more."""
        return [name for name in self.wanted if name not in self.volume_snapshots]

    @property
    def indications(self) -> list[str]:
        """In which state the machine is, as a snapshot sees it; none where no guest runs."""
        vmi = self.vmi
        if vmi is None or vmi.is_final:
            return []
        conditions = vmi.status.conditions
        paused = meta.find_condition(conditions, ConditionType.PAUSED)
        if paused is not None and paused.is_true:
            return [Indication.ONLINE, Indication.PAUSED]
        # No file system is frozen, whether or not there is an agent in the guest that could.
        return [Indication.NO_GUEST_AGENT, Indication.ONLINE]


def content_name(snapshot: VirtualMachineSnapshot) -> str:
    """The name of the snapshot's content, which no other snapshot of that name ever had."""
    known = snapshot.status.virtual_machine_snapshot_content_name
    return known or f"vmsnapshot-content-{snapshot.metadata.uid}"


def volume_snapshot_name(snapshot: VirtualMachineSnapshot, volume: str) -> str:
    """The name of the VolumeSnapshot of one of its volumes."""
    return f"vmsnapshot-{snapshot.metadata.uid}-volume-{volume}"


def _deadline_of(snapshot: VirtualMachineSnapshot) -> timedelta:
    """How long it may take from its creation on; zero for as long as it wants."""
    text = snapshot.spec.failure_deadline
    if text is None:
        return _DEFAULT_DEADLINE
    try:
        return parse_duration(text)
    except DurationError:  # admitted under other rules
        return _DEFAULT_DEADLINE
