"""The verbs pause, unpause, reset and softreboot of instances: the handler of the guest's node carries them out."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
from aiohttp import web
from podvisor.domain.v1 import domain_pb2
from podvisor.handler.v1 import handler_pb2, handler_pb2_grpc
from podvisor_common.api import meta, v1
from podvisor_common.api.v1.names import ConditionType
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_common.rpc.client import call
from podvisor_common.rpc.errors import FailedPrecondition

from podvisor_controller.subresources.instances import Handlers, Instances, Refusals, conflicting
from podvisor_controller.subresources.options import read_checked
from podvisor_controller.subresources.statuses import conflict, forbidden
from podvisor_controller.subresources.verbs import Call, Verb

ANSWER_WITHIN_S = 15.0

_Stub: TypeAlias = "handler_pb2_grpc.HandlerServiceAsyncStub"
_Ask: TypeAlias = Callable[[_Stub, handler_pb2.MachineReference], Awaitable[object]]
_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode


@dataclass(frozen=True, slots=True)
class _Power:
    """One of the verbs: what is asked of the handler, and the words of each refusal, by the handler's reason."""

    ask: _Ask
    words: dict[str, str]

    @property
    def refusals(self) -> Refusals:
        """The answers."""
        return {reason: conflicting(words) for reason, words in self.words.items()}


# Of a guest that cannot be asked to reboot.
_NO_WAY = "VMI neither have the agent connected nor the ACPI feature enabled"
_PAUSE = _Power(
    lambda handler, reference: call(
        handler.PauseDomain,
        handler_pb2.PauseDomainRequest(reference=reference),
        timeout_s=ANSWER_WITHIN_S,
    ),
    {"NotRunning": "VM is not running", "AlreadyPaused": "VMI is already paused"},
)
_UNPAUSE = _Power(
    lambda handler, reference: call(
        handler.ResumeDomain,
        handler_pb2.ResumeDomainRequest(reference=reference),
        timeout_s=ANSWER_WITHIN_S,
    ),
    {"NotRunning": "VMI is not running", "NotPaused": "VMI is not paused"},
)
_RESET = _Power(
    lambda handler, reference: call(
        handler.ResetDomain,
        handler_pb2.ResetDomainRequest(reference=reference),
        timeout_s=ANSWER_WITHIN_S,
    ),
    {"NotRunning": "VM is not running"},
)
_SOFT_REBOOT = _Power(
    lambda handler, reference: call(
        handler.RebootDomain,
        handler_pb2.RebootDomainRequest(reference=reference),
        timeout_s=ANSWER_WITHIN_S,
    ),
    {
        "NotRunning": "VM is not running",
        "AlreadyPaused": "VMI is paused",
        "GuestAgentNotConnected": _NO_WAY,
        "GuestAgentFailed": "the guest agent has not rebooted the guest, which has no ACPI feature enabled",
        "GuestAgentTimedOut": "the guest agent does not answer, and the guest has no ACPI feature enabled",
    },
)


def verbs(client: KubeClient, handlers: Handlers) -> list[Verb]:
    """The four of them."""
    verbs = _PowerVerbs(client, Instances(client, handlers))
    return [
        Verb("PUT", VIRTUAL_MACHINE_INSTANCES, "pause", verbs.pause, "PauseOptions"),
        Verb("PUT", VIRTUAL_MACHINE_INSTANCES, "unpause", verbs.unpause, "UnpauseOptions"),
        Verb("PUT", VIRTUAL_MACHINE_INSTANCES, "reset", verbs.reset),
        Verb("PUT", VIRTUAL_MACHINE_INSTANCES, "softreboot", verbs.soft_reboot),
    ]


class _PowerVerbs:
    def __init__(self, client: KubeClient, instances: Instances) -> None:
        self._client = client
        self._instances = instances

    async def pause(self, call_: Call) -> web.StreamResponse:
        """Have the guest stand still, unless something would take that for its death."""
        _, dry_run = await read_checked(call_.request, v1.PauseOptions)
        vmi = await self._instances.get(call_.key)
        probe = vmi.spec.liveness_probe
        if probe is not None and probe.guest_agent_ping is None:
            raise forbidden(
                VIRTUAL_MACHINE_INSTANCES,
                call_.key.name,
                "Pausing VMIs with LivenessProbe is currently not supported",
            )
        return await self._carry_out(vmi, _PAUSE, dry_run)

    async def unpause(self, call_: Call) -> web.StreamResponse:
        """Have it go on, unless a snapshot of its machine is being taken."""
        _, dry_run = await read_checked(call_.request, v1.UnpauseOptions)
        await self._check_no_snapshot(call_.key)
        return await self._carry_out(await self._instances.get(call_.key), _UNPAUSE, dry_run)

    async def reset(self, call_: Call) -> web.StreamResponse:
        """Press its reset button."""
        return await self._carry_out(await self._instances.get(call_.key), _RESET)

    async def soft_reboot(self, call_: Call) -> web.StreamResponse:
        """Ask it to reboot, if there is a way to ask."""
        vmi = await self._instances.get(call_.key)
        features, agent = vmi.spec.domain.features, ConditionType.AGENT_CONNECTED
        without_acpi = (
            features is not None and features.acpi is not None and features.acpi.enabled is False
        )
        known = meta.find_condition(vmi.status.conditions, agent)
        if without_acpi and (known is None or known.status != "True"):
            raise conflict(VIRTUAL_MACHINE_INSTANCES, call_.key.name, _NO_WAY)
        return await self._carry_out(vmi, _SOFT_REBOOT)

    async def _carry_out(
        self, vmi: v1.VirtualMachineInstance, power: _Power, dry_run: bool = False
    ) -> web.StreamResponse:
        async with self._instances.guest(vmi, power.refusals) as (handler, reference):
            if dry_run:
                await _check(handler, reference, power)
            else:
                await power.ask(handler, reference)
        return web.Response(status=202)

    async def _check_no_snapshot(self, key: ObjectKey) -> None:
        try:
            vm = _decode_vm(await self._client.get(VIRTUAL_MACHINES, key))
        except ApiNotFound:
            return
        if vm.status.snapshot_in_progress:
            raise conflict(VIRTUAL_MACHINE_INSTANCES, key.name, "VM snapshot is in progress")


async def _check(handler: _Stub, reference: handler_pb2.MachineReference, power: _Power) -> None:
    """Refuse what would be refused, by the last report of the guest."""
    request = handler_pb2.GetDomainRequest(reference=reference)
    found = await call(handler.GetDomain, request, timeout_s=ANSWER_WITHIN_S)
    state = found.machine.report.state
    reason = None
    if state not in (domain_pb2.DOMAIN_STATE_RUNNING, domain_pb2.DOMAIN_STATE_PAUSED):
        reason = "NotRunning"
    elif power is _PAUSE and state == domain_pb2.DOMAIN_STATE_PAUSED:
        reason = "AlreadyPaused"
    elif power is _UNPAUSE and state == domain_pb2.DOMAIN_STATE_RUNNING:
        reason = "NotPaused"
    if reason is not None:
        raise FailedPrecondition(power.words[reason], reason=reason)
