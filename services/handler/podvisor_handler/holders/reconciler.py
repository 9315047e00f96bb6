"""Has the processes ended that hold volumes of nobody in pods that are being deleted: looks, asks plan.py, does what that says.

Invariant: nothing is done to a pod that does not follow from what is there now; what it remembers only saves work. It goes on
until the pod has ended, and no pod waits for another.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import structlog
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import core, v1
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.resources import ObjectKey

from podvisor_handler.holders.ending import end_holder
from podvisor_handler.holders.plan import EndHolder, Launcher, Observed, plan
from podvisor_handler.storage.attempt import Attempt
from podvisor_handler.vmi import plan as machine

_PATIENCE_S = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """Reads of what the handler knows."""

    pod: Callable[[ObjectKey], core.Pod | None]  # of this node
    launcher: Callable[[str], core.Pod | None]  # of this node, by uid
    has_lost_container: Callable[[str], bool]  # by uid of the launcher pod
    vmis_naming: Callable[[str], list[v1.VirtualMachineInstance]]  # by uid of the pod that holds
    machine: Callable[[v1.VirtualMachineInstance], machine.Observed | None]


@dataclass(slots=True)
class _Ending:
    holder: str
    attempt: Attempt = field(default_factory=Attempt)
    backoff: Backoff = field(default_factory=lambda: Backoff(initial_s=0.5, max_s=10.0))


@dataclass(slots=True)
class HolderReconciler:
    """reconcile() for the pods of this node that hold volumes."""

    pods_directory: str
    sources: Sources
    patience_s: float = _PATIENCE_S
    _endings: dict[ObjectKey, _Ending] = field(default_factory=dict)

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Has the process of one pod ended if that is due, and looks again until the pod is. Safe to repeat."""
        pod = self.sources.pod(key)
        order = plan(self._observe(pod)) if pod is not None else None
        if order is None:
            self._endings.pop(key, None)
            return None
        ending = self._endings.get(key)
        if ending is None or ending.holder != order.holder:
            ending = self._endings[key] = _Ending(order.holder)
        await self._end(order, ending.attempt)
        return Requeue(ending.backoff.next_s())

    async def _end(self, order: EndHolder, attempt: Attempt) -> None:
        if not attempt.is_under_way:
            work = partial(end_holder, self.pods_directory, order)
            attempt.begin(work, name=f"end-{order.holder}")
        if not await attempt.has_ended_within(self.patience_s):
            _log.warning("volume's holder cannot be ended yet", pod_uid=order.holder)
            return
        try:
            attempt.take()
        except (Retryable, Terminal) as error:
            # That nobody holds the volume is what was wanted; the kubelet finds it out.
            _log.debug("volume's holder not ended", pod_uid=order.holder, error=str(error))

    def _observe(self, pod: core.Pod) -> Observed:
        vmis = self.sources.vmis_naming(pod.metadata.uid)
        uids = dict.fromkeys(_launchers_of(pod, vmis))
        return Observed(
            pod,
            tuple(
                Launcher(uid, self.sources.launcher(uid), self.sources.has_lost_container(uid))
                for uid in uids
            ),
            tuple(self.sources.machine(vmi) for vmi in vmis),
        )


def _launchers_of(pod: core.Pod, vmis: list[v1.VirtualMachineInstance]) -> Iterator[str]:
    """The uids of the launcher pods whose guests may have what the pod holds. Its owner alone is not believed: pods can be
    written by anybody."""
    owner = pod.metadata.controller_reference()
    if owner is not None and owner.kind == "Pod":
        yield owner.uid
    for vmi in vmis:
        for uid, node in (vmi.status.active_pods or {}).items():
            if node == pod.spec.node_name:
                yield uid
