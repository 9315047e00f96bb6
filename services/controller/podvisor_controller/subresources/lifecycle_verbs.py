"""The verbs start, stop and restart of machines: what lifecycle.py decides is written, of the instance first.

Both objects are read anew for each call: what a call before has written is known, whichever replica has answered it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from podvisor_common.api import v1
from podvisor_common.api.v1.names import RunStrategy
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES, ObjectKey

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.subresources import lifecycle
from podvisor_controller.subresources.attempts import accepted
from podvisor_controller.subresources.lifecycle import Writing
from podvisor_controller.subresources.options import (
    check_fields,
    converted,
    is_dry_run,
    read_options,
)
from podvisor_controller.subresources.verbs import Call, Verb
from podvisor_controller.vm.observed import owns

_Options = TypeVar("_Options", v1.StartOptions, v1.StopOptions, v1.RestartOptions)
_Decide = Callable[[v1.VirtualMachine, v1.VirtualMachineInstance | None, _Options], Writing]

_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode


def verbs(client: KubeClient) -> list[Verb]:
    """The three of them."""
    return [
        _verb(client, "start", v1.StartOptions, lifecycle.start),
        _verb(client, "stop", v1.StopOptions, lifecycle.stop),
        _verb(client, "restart", v1.RestartOptions, lifecycle.restart),
    ]


def _verb(
    client: KubeClient, name: str, type_: type[_Options], decide: "_Decide[_Options]"
) -> Verb:
    async def handle(call: Call) -> web.StreamResponse:
        sent = await read_options(call.request)
        check_fields(sent, type_)
        dry_run = is_dry_run(sent, call.request.query.getall("dryRun", []))
        options = converted(sent, type_)

        async def write() -> None:
            await _attempt(client, call.key, lambda vm, vmi: decide(vm, vmi, options), dry_run)

        return await accepted(VIRTUAL_MACHINES, call, write)

    return Verb("PUT", VIRTUAL_MACHINES, name, handle, type_.__name__)


async def _attempt(
    client: KubeClient,
    key: ObjectKey,
    decide: Callable[[v1.VirtualMachine, v1.VirtualMachineInstance | None], Writing],
    dry_run: bool,
) -> None:
    """Read, decide and write once. Raises StatusError and ApiError."""
    vm = _decode_vm(await client.get(VIRTUAL_MACHINES, key))
    vmi = await _instance(client, vm, key)
    writing = decide(vm, vmi)
    if vmi is not None and writing.grace_period_s is not None:
        patch: dict[str, Any] = {
            "metadata": as_it_was_seen(vmi.metadata),
            "spec": {"terminationGracePeriodSeconds": writing.grace_period_s},
        }
        await client.merge_patch(VIRTUAL_MACHINE_INSTANCES, key, patch, dry_run=dry_run)
    seen = {"metadata": as_it_was_seen(vm.metadata)}
    if writing.strategy is not None:
        spec = _strategy(vm, writing.strategy)
        await client.merge_patch(VIRTUAL_MACHINES, key, seen | {"spec": spec}, dry_run=dry_run)
    if writing.requests is not None:
        status = {"stateChangeRequests": msgspec.to_builtins(writing.requests) or None}
        if vm.effective_run_strategy == RunStrategy.HALTED:
            # Else the halt, where it is not acted upon yet, would be the last word.
            status["runStrategy"] = RunStrategy.HALTED
        await client.merge_patch(
            VIRTUAL_MACHINES, key, seen | {"status": status}, subresource="status", dry_run=dry_run
        )


async def _instance(
    client: KubeClient, vm: v1.VirtualMachine, key: ObjectKey
) -> v1.VirtualMachineInstance | None:
    """The machine's own instance, None where there is none."""
    try:
        vmi = _decode_vmi(await client.get(VIRTUAL_MACHINE_INSTANCES, key))
    except ApiNotFound:
        return None
    return vmi if owns(vm, vmi) else None


def _strategy(vm: v1.VirtualMachine, strategy: RunStrategy) -> dict[str, Any]:
    """In the field in which the machine's user says it."""
    if vm.spec.running is not None:
        return {"running": strategy == RunStrategy.ALWAYS}
    return {"runStrategy": strategy}
