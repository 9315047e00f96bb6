"""Brings the VirtualMachineInstances of this node about: read, decide, do, say.

Invariant: what it remembers only saves work. A restarted handler, which remembers nothing, wires
networks that are wired already (no change), gives launchers what they have already (no change) and
says nothing before a launcher's full snapshot.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog
from podvisor_common.api import core, meta, v1
from podvisor_common.api.v1 import names
from podvisor_common.errors import Retryable, Terminal
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.events import EventRecorder, reference_to
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, ObjectKey

from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.launchers.state import Connection
from podvisor_handler.network import netns
from podvisor_handler.network.routers import Routers
from podvisor_handler.storage.volumes import VolumePreparation
from podvisor_handler.vmi import hotplug, interface_problems, plan, status
from podvisor_handler.vmi.agent_news import AgentNews
from podvisor_handler.vmi.build import digest_of
from podvisor_handler.vmi.handovers import Handovers
from podvisor_handler.vmi.plan import (
    ApplyDomain,
    HandOverVolume,
    Launcher,
    PrepareNetwork,
    PrepareVolumes,
    Problem,
    ShutdownDomain,
)
from podvisor_handler.vmi.problems import printable
from podvisor_handler.vmi.setbacks import Setback, Step, is_specified, step_of
from podvisor_handler.vmi.vanished import Remains, VanishedPods
from podvisor_handler.vmi.wiring import Wiring

FIELD_MANAGER = "virt-handler"
# A process that outlives its pod's directory is being killed.
_PROCESS_ENDS_WITHIN_S = 1.0
_STEPS = 4

_log = structlog.get_logger(__name__)
_decode = msgspec.json.Decoder(v1.VirtualMachineInstance).decode


@dataclass(slots=True)
class _Memory:
    """What this process knows of one pod beyond the caches."""

    handovers: Handovers
    wiring: Wiring = field(default_factory=Wiring)
    routers: Routers = field(default_factory=Routers)
    volumes: PrepareVolumes | None = None
    volume_preparation: VolumePreparation = field(default_factory=VolumePreparation)
    pushed: tuple[int, str] | None = None
    stopped: tuple[int, int] | None = None
    setback: Setback = field(default_factory=Setback)
    agent_news: AgentNews = field(default_factory=AgentNews)
    failure: Problem | None = None
    failing_since_s: float = 0.0  # monotonic
    # The answer to the last write, and the version that was in the cache when it was made.
    written: v1.VirtualMachineInstance | None = None
    written_over: str = ""


@dataclass(frozen=True, slots=True)
class Caches:
    """Reads of what the API server has, as the informers saw it last."""

    vmi: Callable[[ObjectKey], v1.VirtualMachineInstance | None]
    pods_of: Callable[[str], list[core.Pod]]  # launcher pods of this node by the uid they claim
    pod: Callable[[ObjectKey], core.Pod | None]  # of this node, of either kind


@dataclass(slots=True)
class VmiReconciler:
    """reconcile() for the VirtualMachineInstances of this node."""

    client: KubeClient
    events: EventRecorder
    registry: LauncherRegistry
    caches: Caches
    vanished: VanishedPods
    enqueue: Callable[[ObjectKey], None]  # has an instance looked at again
    # Instances whose pod's object is gone while its directory is here.
    without_pod: set[ObjectKey] = field(default_factory=set)
    _memory: dict[str, _Memory] = field(default_factory=dict)

    async def reconcile(self, key: ObjectKey) -> Requeue | None:
        """Does what one instance needs next and writes what has become visible. Safe to repeat."""
        self.without_pod.discard(key)
        vmi = self.caches.vmi(key)
        if vmi is None:
            return None
        pod = plan.select_pod(vmi, self.caches.pods_of(vmi.metadata.uid))
        if pod is None:
            return await self._look_for_remains(key, vmi)
        memory = self._remember(pod.metadata.uid, key)
        if vmi.is_final or pod.is_terminal:
            memory.routers.close()
        # What cannot be done now must not keep back what is to be said.
        failure: Retryable | None = None
        try:
            await self._act(vmi, pod, memory)
            memory.failure = None
        except Retryable as error:
            failure = error
            if memory.failure is None:
                memory.failing_since_s = time.monotonic()
            memory.failure = _problem(error, otherwise=status.LAUNCHER_UNRESPONSIVE)
        connection = self.registry.of_pod(pod.metadata.uid)
        memory.agent_news.listen(connection.report if connection is not None else None)
        now = self._observe(self._latest(vmi, memory), pod, memory)
        await self._say(now, vmi, memory)
        if failure is not None:
            raise failure
        look = _soonest(
            _next_look(now), memory.handovers.next_look_s(plan.awaited_disks(now.launcher.report))
        )
        look = _soonest(look, interface_problems.untold_for_s(now))
        look = _soonest(look, memory.agent_news.next_look_s)
        return _soonest(look, _next_wiring_s(now, memory.wiring))

    async def _look_for_remains(
        self, key: ObjectKey, vmi: v1.VirtualMachineInstance
    ) -> Requeue | None:
        if vmi.is_final:
            return None
        # Noted before looking, so that the directory does not go unnoticed.
        self.without_pod.add(key)
        remains = await self.vanished.remains_of(vmi)
        if remains is Remains.DIRECTORY:
            return None
        self.without_pod.discard(key)
        if remains is Remains.PROCESS:
            return Requeue(_PROCESS_ENDS_WITHIN_S)
        if remains is Remains.NOTHING:
            now = plan.Observed(vmi, None, Launcher(Connection.WAITING), has_vanished=True)
            await self._say(now, vmi, self._nothing_of(key))
        return None

    def observed(self, vmi: v1.VirtualMachineInstance) -> plan.Observed | None:
        """What is known of an instance now; None before it was looked at, or when there is no pod of it here."""
        pod = plan.select_pod(vmi, self.caches.pods_of(vmi.metadata.uid))
        memory = self._memory.get(pod.metadata.uid) if pod is not None else None
        if pod is None or memory is None:
            return None
        return self._observe(self._latest(vmi, memory), pod, memory)

    def pod_ended(self, pod_uid: str) -> None:
        """No container of the pod runs any more, be it still the one that carries its instance or not."""
        if (memory := self._memory.get(pod_uid)) is not None:
            memory.routers.close()

    def forget(self, pod_uid: str) -> None:
        """The pod has left the node."""
        memory = self._memory.pop(pod_uid, None)
        if memory is not None:
            memory.handovers.close()
            memory.routers.close()

    def close(self) -> None:
        """Nothing is looked at any more."""
        for pod_uid in list(self._memory):
            self.forget(pod_uid)

    def _remember(self, pod_uid: str, key: ObjectKey) -> _Memory:
        if pod_uid not in self._memory:
            self._memory[pod_uid] = self._nothing_of(key)
        return self._memory[pod_uid]

    def _nothing_of(self, key: ObjectKey) -> _Memory:
        return _Memory(Handovers(partial(self.enqueue, key)))

    def _observe(
        self, vmi: v1.VirtualMachineInstance, pod: core.Pod, memory: _Memory
    ) -> plan.Observed:
        connection, wiring = self.registry.of_pod(pod.metadata.uid), memory.wiring
        return plan.Observed(
            vmi=vmi,
            pod=pod,
            launcher=_launcher(connection, memory),
            network=wiring.network,
            network_ready_at=wiring.ready_at,
            network_is_due=wiring.is_due(_told_by_multus(pod)),
            network_missing_for_s=wiring.missing_for_s,
            volumes=memory.volumes,
            holders=hotplug.select_holders(vmi, self._pods_beside(vmi)),
            handovers=memory.handovers.observe(),
            handing_over=memory.handovers.in_flight,
            problem=memory.setback.problem,
            failure=memory.failure,
            failing_for_s=time.monotonic() - memory.failing_since_s,
        )

    def _pods_beside(self, vmi: v1.VirtualMachineInstance) -> Callable[[str], core.Pod | None]:
        return lambda name: self.caches.pod(ObjectKey(vmi.metadata.namespace, name))

    async def _act(self, vmi: v1.VirtualMachineInstance, pod: core.Pod, memory: _Memory) -> None:
        connection = self.registry.of_pod(pod.metadata.uid)
        if connection is None:
            return
        step = Step.SPECIFICATION
        memory.handovers.forget_except({volume.name for volume in vmi.spec.volumes or ()})
        try:
            # What is done changes what is observed: the network, then what is built on it. A launcher that never lets it
            # settle is looked at again with its next report.
            for _ in range(_STEPS):
                step = Step.SPECIFICATION
                now = self._observe(vmi, pod, memory)
                actions = plan.plan(now)
                if is_specified(now, actions):
                    memory.setback.passed(step)
                for action in actions:
                    step = step_of(action)
                    await self._carry_out(action, pod, connection, memory)
                    memory.setback.passed(step)
                if not actions:
                    break
        except Terminal as error:
            problem = _problem(error, otherwise=status.LAUNCHER_REFUSED)
            if memory.setback.met(step, problem):
                _log.warning("machine cannot be brought about", error=problem.message)

    async def _carry_out(
        self,
        action: plan.Action,
        pod: core.Pod,
        connection: LauncherConnection,
        memory: _Memory,
    ) -> None:
        epoch = connection.report.epoch if connection.report is not None else 0
        match action:
            case PrepareNetwork():
                await self._wire(pod, connection, action, memory)
            case PrepareVolumes(accesses):
                await memory.volume_preparation.run(connection.process, accesses)
                memory.volumes = action
            case HandOverVolume(order):
                memory.handovers.begin(order, connection, self.registry.pods_directory)
            case ApplyDomain(spec):
                # Remembered first: what a launcher refuses is not pushed to it a second time.
                memory.pushed = (epoch, digest_of(spec))
                try:
                    await connection.apply(spec)
                except BaseException as error:
                    if not isinstance(error, Terminal):
                        memory.pushed = None
                    raise
            case ShutdownDomain(grace_period_s):
                _log.info("guest asked to shut down", grace_period_s=grace_period_s)
                await connection.shutdown(grace_period_s)
                memory.stopped = (epoch, grace_period_s)

    async def _wire(
        self,
        pod: core.Pod,
        connection: LauncherConnection,
        action: PrepareNetwork,
        memory: _Memory,
    ) -> None:
        network = await netns.wire(
            connection.process, action.desired, is_prepared=action.is_prepared
        )
        has_dhcpv6 = connection.build.has_dhcpv6
        await memory.routers.keep(connection.process, network, has_dhcpv6=has_dhcpv6)
        memory.wiring.note(network, meta.now(), _told_by_multus(pod))
        if network.changed:
            wired = {each.attachment.network: each.addresses for each in network.attached}
            _log.info("network wired", addresses=wired)

    def _latest(
        self, cached: v1.VirtualMachineInstance, memory: _Memory
    ) -> v1.VirtualMachineInstance:
        """The cached instance, or our own write over just that version, which is newer."""
        if memory.written is not None and cached.metadata.resource_version == memory.written_over:
            return memory.written
        memory.written = None
        return cached

    async def _say(
        self, now: plan.Observed, cached: v1.VirtualMachineInstance, memory: _Memory
    ) -> None:
        current = now.vmi.status
        desired = status.status_of(now, meta.now())
        if desired is None or not status.needs_write(current, desired):
            return
        metadata = now.vmi.metadata
        manifest = {
            "apiVersion": now.vmi.api_version,
            "kind": now.vmi.kind,
            # The uid makes the write fail for a namesake that came later.
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid,
                # What was found out holds for the pod that this version names.
                **({"resourceVersion": metadata.resource_version} if now.has_vanished else {}),
            },
            "status": status.written_out(desired),
        }
        answer = await self.client.apply(
            VIRTUAL_MACHINE_INSTANCES,
            ObjectKey(metadata.namespace, metadata.name),
            manifest,
            field_manager=FIELD_MANAGER,
            force=True,
            subresource="status",
        )
        memory.written = _decode(answer)
        memory.written_over = cached.metadata.resource_version
        if desired.phase != current.phase and desired.phase:
            _log.info("phase changed", phase=desired.phase, reason=desired.reason)
        reference = reference_to(VIRTUAL_MACHINE_INSTANCES, now.vmi)
        for type_, reason, message in status.events_of(current, desired):
            self.events.record(reference, type_, reason, message)


def _launcher(connection: LauncherConnection | None, memory: _Memory) -> Launcher:
    if connection is None:
        return Launcher(Connection.WAITING)
    since_s, ready_at_s = connection.silent_since_s, connection.ready_at_s
    return Launcher(
        connection=connection.state,
        report=memory.agent_news.heard(connection.report),
        silent_for_s=time.monotonic() - since_s if since_s is not None else 0.0,
        ready_at=datetime.fromtimestamp(ready_at_s, UTC) if ready_at_s is not None else None,
        refusal=_refusal(connection),
        pushed=memory.pushed,
        stopped=memory.stopped,
        is_over=connection.is_over,
        has_dhcpv6=connection.build.has_dhcpv6,
        has_hardware=connection.build.has_hardware,
    )


def _refusal(connection: LauncherConnection) -> Problem | None:
    if connection.refusal is None:
        return None
    return _problem(connection.refusal, otherwise=status.LAUNCHER_REFUSED)


def _problem(error: Exception, *, otherwise: str) -> Problem:
    """`otherwise` is the reason when the error has none that a status knows."""
    reason = getattr(error, "reason", "")
    known = reason in status.OWN_SYNCHRONIZED_REASONS
    return Problem(reason if known else otherwise, printable(str(error)))


def _next_look(now: plan.Observed) -> Requeue | None:
    """When time alone changes what is to be said."""
    launcher = now.launcher
    if launcher.connection is Connection.CONNECTED or now.vmi.is_final:
        return None
    if launcher.connection is Connection.WAITING and now.vmi.status.phase != v1.Phase.RUNNING:
        return None
    left_s = status.UNRESPONSIVE_AFTER_S - launcher.silent_for_s
    return Requeue(left_s) if left_s > 0 else None


def _next_wiring_s(now: plan.Observed, wiring: Wiring) -> float | None:
    """Until it is looked again for an interface that the pod has not got yet. Where that is due and was not done, something else has to
    happen first."""
    return None if now.network_is_due or now.vmi.is_final else wiring.next_look_s


def _told_by_multus(pod: core.Pod) -> str:
    return pod.metadata.annotation(names.MULTUS_STATUS_ANNOTATION) or ""


def _soonest(look: Requeue | None, other_s: float | None) -> Requeue | None:
    if other_s is None:
        return look
    return Requeue(min(look.after_s, other_s) if look is not None else other_s)
