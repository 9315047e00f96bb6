"""Which pods are to hold volumes for the guest of one instance, and which may let go of theirs. Pure.

Invariant: a pod that the handler was told of is let go only once the handler says that the guest has let go of the volume, or
when there is no guest any more. Until then the guest counts as having the claim, whatever has become of the pod. A claim is held for
one volume at a time, and never while another instance has it that goes first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names

from podvisor_controller.pauses import retry_left
from podvisor_controller.vmi import claims as claimed
from podvisor_controller.vmi import scheduling
from podvisor_controller.vmi.attachment_pod import RELEASE_GRACE_S, attachment_pod_name
from podvisor_controller.vmi.claims import Claims, Exports, Rival
from podvisor_controller.vmi.trouble import Trouble


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with the pod of a volume, and when another is tried."""

    why: str
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Attachments:
    """One instance, its launcher pod, and the pods that hold volumes for its guest. `launcher` is None where nothing can be attached;
    that proves the end of no guest, which is `is_over`. `failures` is what this process remembers, by volume."""

    vmi: v1.VirtualMachineInstance
    launcher: core.Pod | None
    at: datetime
    is_over: bool = False
    pods: tuple[core.Pod, ...] = ()
    claims: Claims = field(default_factory=dict)
    rivals: tuple[Rival, ...] = ()
    exports: Exports = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    refused: Mapping[str, Failure] = field(default_factory=dict)  # deletions, by uid of the pod

    def of(self, volume: v1.Volume) -> list[core.Pod]:
        """The pods that hold the claim of a volume for it, and are not on their way out."""
        return [
            pod
            for pod in self.pods
            if held_volume(pod) == volume.name
            and held_claim(pod) == volume.claim_name
            and not pod.metadata.is_being_deleted
        ]

    def current(self, volume: v1.Volume) -> core.Pod | None:
        """The one of them that counts: the one that the handler was told of before others."""
        told = self._told().get(volume.name)
        uid = told.attach_pod_uid if told is not None else ""
        return min(
            (pod for pod in self.of(volume) if not pod.is_terminal),
            key=lambda pod: (pod.metadata.uid != uid, pod.metadata.name),
            default=None,
        )

    @property
    def lacking(self) -> list[v1.Volume]:
        """The volumes that are to be held and are not."""
        return [volume for volume in self._wanted if self.current(volume) is None]

    @property
    def trouble(self) -> Trouble | None:
        """What keeps a volume from being attached, as far as the controller can see: the first of them."""
        return next((t for v in self._wanted if (t := self._trouble_of(v)) is not None), None)

    @property
    def look_again_in(self) -> timedelta:
        """When time alone changes something; zero when only an event can."""
        waits = [self._retry_left(volume) for volume in self.lacking]
        waits += [retry_left(failure.retry_at, self.at) for failure in self.refused.values()]
        waits += [self._patience_left(pod) for pod in self._held()]
        waits += [timedelta(seconds=1) for rival in self.rivals if rival.is_getting_pod]
        return min((wait for wait in waits if wait > timedelta(0)), default=timedelta(0))

    @property
    def told(self) -> dict[str, v1.HotplugVolumeStatus]:
        """The pods that the handler is to be told of, by volume. One that it knows stays until it is gone and so is what the guest
        had of it."""
        found = self._told()
        for entry in self.vanished:
            if self.is_over or entry.is_let_go:
                del found[entry.name]
        left = {entry.name for entry in claimed.leaving(self.vmi)} & found.keys()
        for volume in claimed.pluggable(self.vmi):
            pod = self.current(volume)
            if pod is not None and volume.name not in left:
                name, uid = pod.metadata.name, pod.metadata.uid
                found[volume.name] = v1.HotplugVolumeStatus(name, uid)
        return found

    @property
    def vanished(self) -> list[v1.VolumeStatus]:
        """What the handler was told of pods that are not known of any more."""
        known = {pod.metadata.uid for pod in self.pods}
        return [
            entry
            for entry in self.vmi.status.volume_status or ()
            if entry.hotplug_volume is not None and entry.hotplug_volume.attach_pod_uid not in known
        ]

    @property
    def _wanted(self) -> list[v1.Volume]:
        launcher, node = self.launcher, self.vmi.status.node_name
        if launcher is None or not node or launcher.spec.node_name != node:
            return []
        is_leaving = launcher.metadata.is_being_deleted or self.vmi.metadata.is_being_deleted
        return [] if is_leaving else claimed.pluggable(self.vmi)

    def _told(self) -> dict[str, v1.HotplugVolumeStatus]:
        return {
            entry.name: entry.hotplug_volume
            for entry in self.vmi.status.volume_status or ()
            if entry.hotplug_volume is not None
        }

    def _held(self) -> Iterator[core.Pod]:
        return (pod for v in self._wanted if (pod := self.current(v)) is not None)

    def may_be_deleted(self, pod: core.Pod) -> bool:
        """The deletion of a pod was not refused a moment ago, and has not begun, or gives it longer than it needs."""
        refused, granted_s = (
            self.refused.get(pod.metadata.uid),
            pod.metadata.deletion_grace_period_seconds,
        )
        waits = refused is not None and retry_left(refused.retry_at, self.at) > timedelta(0)
        ends_late = granted_s is not None and granted_s > RELEASE_GRACE_S
        return not waits and (ends_late or not pod.metadata.is_being_deleted)

    def obstacle(self, volume: v1.Volume) -> Trouble | None:
        """Why no pod is made for a volume as things are."""
        claim, title = (
            self.claims.get(volume.claim_name),
            claimed.claim_title(self.vmi, volume),
        )
        if claim is None or claim.metadata.is_being_deleted:
            state = "does not exist" if claim is None else "is being deleted"
            why = f'{title} {state}. Volume "{volume.name}" needs it, and is attached when it is created.'
            return Trouble(names.Reason.FAILED_PVC_NOT_FOUND, why)
        if why := _in_use(self.vmi, volume, self.rivals) or _exported(
            self.vmi, volume, self.exports
        ):
            return Trouble(names.Reason.VOLUME_IN_USE, why)
        return None

    def waits(self, volume: v1.Volume) -> bool:
        """A pod for the volume is not to be made yet: another of the same instance has its name or claim, or one has failed."""
        is_taken = any(self._is_in_the_way(pod, volume) for pod in self.pods)
        is_taken |= any(_is_had_still(entry, volume) for entry in claimed.leaving(self.vmi))
        return is_taken or self._retry_left(volume) > timedelta(0)

    def _is_in_the_way(self, pod: core.Pod, volume: v1.Volume) -> bool:
        """Another claim is held by the volume's name, or its claim by the name of one that has left the manifest."""
        if held_volume(pod) == volume.name:
            return held_claim(pod) != volume.claim_name
        names_wanted = {wanted.name for wanted in claimed.pluggable(self.vmi)}
        return held_claim(pod) == volume.claim_name and held_volume(pod) not in names_wanted

    def _retry_left(self, volume: v1.Volume) -> timedelta:
        failure = self.failures.get(volume.name)
        return retry_left(failure.retry_at if failure is not None else None, self.at)

    def _trouble_of(self, volume: v1.Volume) -> Trouble | None:
        pod, failure = self.current(volume), self.failures.get(volume.name)
        if pod is None and (obstacle := self.obstacle(volume)) is not None:
            return obstacle
        if pod is None:
            reason = names.Reason.FAILED_HOTPLUG_SYNC
            return Trouble(reason, failure.why) if failure is not None else None
        complaint = scheduling.complaint(pod)
        if complaint is None or self._patience_left(pod) > timedelta(0):
            return None
        message = f'Pod {pod.metadata.name} cannot hold volume "{volume.name}" on the node of the machine: {complaint.message}'
        return Trouble(names.Reason.FAILED_HOTPLUG_SYNC, message)

    def _patience_left(self, pod: core.Pod) -> timedelta:
        complaint = scheduling.complaint(pod)
        return scheduling.patience_left(complaint, self.at) if complaint else timedelta(0)


@dataclass(frozen=True, slots=True)
class Attach:
    """Create the pod that holds a volume."""

    name: str
    volume: v1.Volume


@dataclass(frozen=True, slots=True)
class Release:
    """Delete a pod that holds a volume. `is_news`: the handler was never told of it, as far as the status is known."""

    name: str
    uid: str
    is_news: bool = False


Action = Attach | Release


def plan(now: Attachments) -> list[Action]:
    """The actions that bring `now` a step nearer to what the spec asks, in order; empty when there is nothing to do."""
    there = [pod for pod in now.pods if now.may_be_deleted(pod)]
    if now.is_over:
        return [Release(pod.metadata.name, pod.metadata.uid) for pod in there]
    if now.launcher is None:
        return []
    return [*_releases(now, there), *_attaches(now)]


def _releases(now: Attachments, there: list[core.Pod]) -> Iterator[Release]:
    wanted = {volume.name: volume for volume in claimed.pluggable(now.vmi)}
    said = {entry.name: entry for entry in now.vmi.status.volume_status or ()}
    for pod in there:
        volume = wanted.get(held_volume(pod))
        entry = said.get(held_volume(pod))
        told = entry.hotplug_volume if entry is not None else None
        is_told = told is not None and told.attach_pod_uid == pod.metadata.uid
        if volume is not None and held_claim(pod) == volume.claim_name:
            current = now.current(volume)
            is_in_place = current is pod or (current is None and now.waits(volume))
            # The guest may have the volume by this one, whatever ends it, until another holds it.
            is_in_place |= pod.metadata.is_being_deleted
            if not is_in_place and (pod.is_terminal or not is_told):
                yield Release(pod.metadata.name, pod.metadata.uid)
        elif entry is not None and is_told and entry.is_let_go:
            yield Release(pod.metadata.name, pod.metadata.uid)
        elif not is_told and (told is None or not pod.metadata.is_being_deleted):
            yield Release(pod.metadata.name, pod.metadata.uid, is_news=True)


def _attaches(now: Attachments) -> Iterator[Attach]:
    taken = {pod.metadata.name for pod in now.pods}
    for volume in now.lacking:
        if now.waits(volume) or now.obstacle(volume) is not None:
            continue
        attempt = 0
        while (name := attachment_pod_name(now.vmi.metadata.uid, volume.name, attempt)) in taken:
            attempt += 1
        yield Attach(name, volume)


def held_volume(pod: core.Pod) -> str:
    """The name of the volume that a pod holds; empty for a launcher pod."""
    return pod.metadata.label(names.HELD_VOLUME_LABEL) or ""


def held_claim(pod: core.Pod) -> str:
    """The claim behind that volume."""
    return pod.metadata.annotation(names.HELD_CLAIM_ANNOTATION) or ""


def _in_use(vmi: v1.VirtualMachineInstance, volume: v1.Volume, rivals: tuple[Rival, ...]) -> str:
    """Which other instance has the claim and goes before this one, for a person; empty when there is none."""
    for rival in rivals:
        if claimed.conflicts(vmi, volume, rival) and _goes_first(rival, vmi, volume.claim_name):
            told = claimed.conflict_told(vmi, volume, rival)
            return f"{told} The volume is attached when that one has let go of it."
    return ""


def _exported(vmi: v1.VirtualMachineInstance, volume: v1.Volume, exports: Exports) -> str:
    told = claimed.export_told(vmi, volume, exports)
    return f"{told} The volume is attached when that has ended." if told else ""


def _goes_first(rival: Rival, vmi: v1.VirtualMachineInstance, claim: str) -> bool:
    """The rival has the claim, or both are to attach it while they run and the rival is the older one."""
    other = rival.vmi
    if claim in rival.held or claim in claimed.told_claims(other):
        return True
    if any(volume.claim_name == claim for volume in claimed.claimed(other)):
        return rival.has_pod or rival.is_getting_pod or bool(other.status.node_name)
    may_attach = bool(other.status.node_name) and not other.metadata.is_being_deleted
    has_it = claim in claimed.told_claims(vmi)
    return may_attach and not has_it and claimed.age(other) < claimed.age(vmi)


def _is_had_still(entry: v1.VolumeStatus, volume: v1.Volume) -> bool:
    """The guest has the volume's claim by the name of one that leaves, or another claim by its name."""
    if entry.is_let_go:
        return False
    claim = claimed.claim_of(entry)
    return bool(claim) and (entry.name == volume.name or claim == volume.claim_name)
