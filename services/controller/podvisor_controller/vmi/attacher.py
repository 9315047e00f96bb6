"""Makes and deletes the pods that hold volumes for running guests: looks, asks attachments.py, does what that says.

Invariant: decides nothing. What it remembers only saves work, but for pods that were asked for and of which no answer tells yet:
until it is known that there are none, their claims count as held.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import msgspec
import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1.names import EventReason
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiConflict,
    ApiForbidden,
    ApiInvalid,
    ApiNotFound,
)
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import PODS, VIRTUAL_MACHINE_INSTANCES, ObjectKey, key_of

from podvisor_controller.pauses import retry_backoff
from podvisor_controller.refusals import refusal
from podvisor_controller.vmi import attachments
from podvisor_controller.vmi.attachment_pod import RELEASE_GRACE_S, render_attachment_pod
from podvisor_controller.vmi.attachments import Attachments, Failure, held_claim, held_volume
from podvisor_controller.vmi.claims import Exports, Rival, pluggable
from podvisor_controller.vmi.observed import Observed, has_ended
from podvisor_controller.vmi.pod_index import OWNER_INDEX, owned_key, owner_keys

Rivals = Callable[[v1.VirtualMachineInstance, Iterable[v1.Volume]], tuple[Rival, ...]]
FindExports = Callable[[v1.VirtualMachineInstance], Exports]

_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_decode_kind = msgspec.json.Decoder(meta.TypeMeta).decode
_decode_pod = msgspec.json.Decoder(core.Pod).decode
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Pause:
    """A pod of a volume failed, or could not be made."""

    failure: Failure
    pod_uid: str = ""
    backoff: Backoff = field(default_factory=retry_backoff)


@dataclass(slots=True)
class _Notes:
    """What is remembered of one instance, by volume."""

    pauses: dict[str, _Pause] = field(default_factory=dict)
    asked_for: dict[str, str] = field(default_factory=dict)  # the claims
    refused: dict[str, _Pause] = field(default_factory=dict)  # deletions, by uid of the pod


class Attacher:
    """Sees to the pods that hold volumes. `rivals` tells who else has the claims of some volumes of an instance, and `exports`
    which of its claims are being exported."""

    def __init__(
        self,
        client: KubeClient,
        pods: Informer[core.Pod],
        recorder: events.EventRecorder,
        rivals: Rivals,
        exports: FindExports,
        clock: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._pods = pods
        self._recorder = recorder
        self._rivals = rivals
        self._exports = exports
        self._clock = clock
        self._notes: dict[str, _Notes] = {}

    def see(self, now: Observed) -> Attachments:
        """The pods of an instance's volumes, and all that a decision about them depends on. Waits for nothing."""
        vmi, launcher = now.vmi, now.pod
        is_over = vmi.is_final or (launcher is not None and has_ended(launcher))
        if is_over or launcher is None or not launcher.spec.node_name:
            launcher = None
        pods = self._pods_of(vmi, now.pods)
        seen = Attachments(vmi, launcher, self._clock(), is_over, pods, now.claims)
        if pods or pluggable(vmi):
            notes = self._failures(seen)
            failures = {name: pause.failure for name, pause in notes.pauses.items()}
            refused = {uid: pause.failure for uid, pause in notes.refused.items()}
            seen = replace(seen, failures=failures, refused=refused)
        if lacking := seen.lacking:
            exports = self._exports(vmi)
            seen = replace(seen, rivals=self._rivals(vmi, lacking), exports=exports)
        return seen

    async def bring_about(self, now: Observed) -> None:
        """Bring the pods of an instance's volumes a step nearer to what it asks for."""
        seen = self.see(now)
        if seen.launcher is not None and seen.vanished:
            await self._look_for(seen.vanished, now.vmi)
            seen = self.see(now)
        done: set[str] = set()
        while action := next((a for a in attachments.plan(seen) if a.name not in done), None):
            done.add(action.name)
            match action:
                case attachments.Attach(name, volume):
                    await self._attach(name, volume, seen, now)
                case attachments.Release():
                    await self._release(action, now.vmi)
            # What others have may have changed while this waited.
            seen = self.see(now)

    def held_by(
        self, vmi: v1.VirtualMachineInstance, launchers: Iterable[core.Pod]
    ) -> frozenset[str]:
        """The claims that pods hold for the guest of an instance, or soon may."""
        notes = self._notes.get(vmi.metadata.uid)
        asked_for = notes.asked_for.values() if notes is not None else ()
        return frozenset({*map(held_claim, self._pods_of(vmi, launchers)), *asked_for})

    def forget(self, uid: str) -> None:
        """The instance is gone."""
        self._notes.pop(uid, None)

    def _pods_of(
        self, vmi: v1.VirtualMachineInstance, launchers: Iterable[core.Pod]
    ) -> tuple[core.Pod, ...]:
        # What held volumes for the guest of a launcher pod that is gone is still there for a while.
        gone = [f"{vmi.metadata.namespace}/{uid}" for uid in vmi.status.active_pods or ()]
        return tuple(
            pod
            for key in dict.fromkeys([*map(owned_key, launchers), *gone])
            for pod in self._pods.by_index(OWNER_INDEX, key)
            if held_volume(pod)
        )

    def _failures(self, seen: Attachments) -> _Notes:
        """What went wrong with the volumes that are still wanted and the pods that are there. A pod that has ended is noted once,
        and forgiven when another runs."""
        uid = seen.vmi.metadata.uid
        notes = self._notes.get(uid) or _Notes()
        wanted = {volume.name for volume in pluggable(seen.vmi)}
        there = {pod.metadata.uid for pod in seen.pods}
        notes.pauses = {name: pause for name, pause in notes.pauses.items() if name in wanted}
        notes.refused = {pod: pause for pod, pause in notes.refused.items() if pod in there}
        for volume in pluggable(seen.vmi):
            current = seen.current(volume)
            if current is not None and current.status.phase == "Running":
                notes.pauses.pop(volume.name, None)
            for pod in seen.of(volume) if current is None else ():
                pause = notes.pauses.get(volume.name)
                if pod.is_terminal and (pause is None or pause.pod_uid != pod.metadata.uid):
                    self._put_off(notes, volume, _end_of(pod, volume), pod.metadata.uid)
        if notes.pauses:
            self._notes[uid] = notes
        return notes

    def _put_off(self, notes: _Notes, volume: v1.Volume, why: str, pod_uid: str = "") -> None:
        known = notes.pauses.get(volume.name)
        notes.pauses[volume.name] = _pause(why, self._clock(), known, pod_uid)

    async def _look_for(
        self, entries: list[v1.VolumeStatus], vmi: v1.VirtualMachineInstance
    ) -> None:
        """A pod that the handler was told of counts as gone when the API server says so: the cache may be behind."""
        for entry in entries:
            assert entry.hotplug_volume is not None
            key = ObjectKey(vmi.metadata.namespace, entry.hotplug_volume.attach_pod_name)
            try:
                self._pods.learn(_decode_pod(await self._client.get(PODS, key)))
            except ApiNotFound:
                _log.debug("pod of a volume is gone", pod=key.name)

    async def _attach(self, name: str, volume: v1.Volume, seen: Attachments, now: Observed) -> None:
        vmi, launcher, claim = seen.vmi, seen.launcher, seen.claims[volume.claim_name]
        assert launcher is not None
        notes = self._notes.setdefault(vmi.metadata.uid, _Notes())
        notes.asked_for[volume.name] = volume.claim_name
        manifest = render_attachment_pod(name, vmi, volume, claim, launcher, now.config)
        try:
            pod = _decode_pod(await self._client.create(PODS, vmi.metadata.namespace, manifest))
        except ApiAlreadyExists:
            await self._take_over(ObjectKey(vmi.metadata.namespace, name), volume, launcher, notes)
            return
        except (ApiForbidden, ApiInvalid) as error:
            del notes.asked_for[volume.name]
            self._put_off(
                notes, volume, refusal(f'pod for volume "{volume.name}"', "created", error)
            )
            return
        self._pods.learn(pod)
        del notes.asked_for[volume.name]
        message = f"Created attachment pod {name}"
        self._tell(vmi, EventReason.SUCCESSFUL_CREATE, message)

    async def _take_over(
        self, key: ObjectKey, volume: v1.Volume, launcher: core.Pod, notes: _Notes
    ) -> None:
        """The name is taken: by our own earlier attempt, unless the owner says otherwise."""
        try:
            pod = _decode_pod(await self._client.get(PODS, key))
        except ApiNotFound:
            pod = None
        notes.asked_for.pop(volume.name, None)
        if pod is not None and owned_key(launcher) in owner_keys(pod) and held_volume(pod):
            self._pods.learn(pod)
            return
        why = f'A pod named {key.name} exists, where that of volume "{volume.name}" is to be, and is not of this machine.'
        self._put_off(notes, volume, why)

    async def _release(self, release: attachments.Release, vmi: v1.VirtualMachineInstance) -> None:
        if release.is_news and await self._was_told(release.uid, vmi):
            return  # the watch will tell of it, and of how far the volume is
        key = ObjectKey(vmi.metadata.namespace, release.name)
        try:
            answer = await self._client.delete(
                PODS, key, uid=release.uid, grace_period_s=RELEASE_GRACE_S
            )
        except (ApiNotFound, ApiConflict):
            _log.debug("pod was gone already", pod=release.name)
            return
        except (ApiForbidden, ApiInvalid) as error:
            why = refusal(f"pod {release.name}", "deleted", error)
            _log.warning("pod of a volume stays", pod=release.name, error=why)
            notes = self._notes.setdefault(vmi.metadata.uid, _Notes())
            notes.refused[release.uid] = _pause(why, self._clock(), notes.refused.get(release.uid))
            return
        if _decode_kind(answer).kind == PODS.kind:
            self._pods.learn(_decode_pod(answer))
        self._tell(vmi, EventReason.SUCCESSFUL_DELETE, f"Deleted attachment pod {release.name}")

    async def _was_told(self, pod_uid: str, vmi: v1.VirtualMachineInstance) -> bool:
        """The handler was told of a pod, perhaps by another replica, of which this one's cache does not know yet."""
        try:
            live = _decode_vmi(await self._client.get(VIRTUAL_MACHINE_INSTANCES, key_of(vmi)))
        except ApiNotFound:
            return False
        told = (entry.hotplug_volume for entry in live.status.volume_status or ())
        return any(hotplug is not None and hotplug.attach_pod_uid == pod_uid for hotplug in told)

    def _tell(self, vmi: v1.VirtualMachineInstance, reason: str, message: str) -> None:
        about = events.reference_to(VIRTUAL_MACHINE_INSTANCES, vmi)
        self._recorder.record(about, events.NORMAL, reason, message)


def _pause(why: str, at: datetime, known: _Pause | None, pod_uid: str = "") -> _Pause:
    """The pause after one more failure, longer than the one before."""
    backoff = known.backoff if known is not None else retry_backoff()
    retry_at = at + timedelta(seconds=backoff.next_s())
    return _Pause(Failure(why, retry_at), pod_uid, backoff)


def _end_of(pod: core.Pod, volume: v1.Volume) -> str:
    what = f"{pod.status.reason or pod.status.phase} {pod.status.message}".strip()
    return f'Pod {pod.metadata.name}, which was to hold volume "{volume.name}", has ended: {what}'
