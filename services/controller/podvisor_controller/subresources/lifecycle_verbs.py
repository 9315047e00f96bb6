"""The verbs start, stop and restart of machines: what lifecycle.py decides is written.

Both objects are read anew for each call: what a call before has written is known, whichever replica has answered it. The time that a guest
has is cut only once the rest is written, for a guest that is to run on keeps it.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from podvisor_common.api import v1
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.api.v1.names import RunStrategy
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES, ObjectKey

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.subresources import lifecycle
from podvisor_controller.subresources.attempts import until_written
from podvisor_controller.subresources.lifecycle import Writing
from podvisor_controller.subresources.options import read_checked
from podvisor_controller.subresources.verbs import Call, Verb
from podvisor_controller.vm.observed import owns

_Options = TypeVar("_Options", v1.StartOptions, v1.StopOptions, v1.RestartOptions)
_Decide = Callable[[v1.VirtualMachine, v1.VirtualMachineInstance | None], Writing]

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
    client: KubeClient,
    name: str,
    type_: type[_Options],
    decide: Callable[[v1.VirtualMachine, v1.VirtualMachineInstance | None, _Options], Writing],
) -> Verb:
    async def handle(call: Call) -> web.StreamResponse:
        options, dry_run = await read_checked(call.request, type_)
        writer = _Writer(client, call.key, dry_run)
        vmi, writing = await until_written(
            VIRTUAL_MACHINES,
            call.key.name,
            lambda: writer.attempt(lambda vm, vmi: decide(vm, vmi, options)),
        )
        grace_s = writing.grace_period_s
        if vmi is not None and grace_s is not None:
            uid = vmi.metadata.uid
            await until_written(
                VIRTUAL_MACHINE_INSTANCES, call.key.name, lambda: writer.cut_time(uid, grace_s)
            )
        return web.Response(status=202)

    return Verb("PUT", VIRTUAL_MACHINES, name, handle, type_.__name__)


class _Writer:
    """Writes to one machine and its instance."""

    def __init__(self, client: KubeClient, key: ObjectKey, dry_run: bool) -> None:
        self._client = client
        self._key = key
        self._dry_run = dry_run

    async def attempt(self, decide: _Decide) -> tuple[v1.VirtualMachineInstance | None, Writing]:
        """Read, decide and write once; the instance as it was, and what was decided. Raises StatusError and ApiError."""
        vm = _decode_vm(await self._client.get(VIRTUAL_MACHINES, self._key))
        vmi = await self._instance()
        vmi = vmi if owns(vm, vmi) else None
        writing = decide(vm, vmi)
        seen, spec = vm.metadata, _spoken(vm, writing.strategy)
        if writing.requests is not None:
            status: dict[str, Any] = {
                "stateChangeRequests": msgspec.to_builtins(writing.requests) or None
            }
            if vm.effective_run_strategy == RunStrategy.HALTED:
                # Else the halt, where it is not acted upon yet, would be the last word.
                status["runStrategy"] = RunStrategy.HALTED
            if spec:
                # What was asked for before is dropped only for a machine that may be halted.
                await self._change(seen, dry_run=True, spec=spec)
            seen = await self._change(seen, subresource="status", status=status)
        if spec:
            await self._change(seen, spec=spec)
        return vmi, writing

    async def cut_time(self, uid: str, grace_s: int) -> None:
        """Have the guest of the instance with that uid, if it is still there, take no more time to shut down. Raises ApiError."""
        vmi = await self._instance()
        if vmi is None or vmi.metadata.uid != uid or vmi.grace_period_s <= grace_s:
            return
        patch = {
            "metadata": as_it_was_seen(vmi.metadata),
            "spec": {"terminationGracePeriodSeconds": grace_s},
        }
        with suppress(ApiNotFound):  # it has taken no longer
            await self._client.merge_patch(
                VIRTUAL_MACHINE_INSTANCES, self._key, patch, dry_run=self._dry_run
            )

    async def _instance(self) -> v1.VirtualMachineInstance | None:
        try:
            return _decode_vmi(await self._client.get(VIRTUAL_MACHINE_INSTANCES, self._key))
        except ApiNotFound:
            return None

    async def _change(
        self,
        seen: ObjectMeta,
        *,
        subresource: str | None = None,
        dry_run: bool = False,
        **fields: Any,
    ) -> ObjectMeta:
        """Patch the machine as it was `seen`, and return what it is now; for a dry run that is what it was."""
        patch, dry_run = {"metadata": as_it_was_seen(seen), **fields}, dry_run or self._dry_run
        answer = await self._client.merge_patch(
            VIRTUAL_MACHINES, self._key, patch, subresource=subresource, dry_run=dry_run
        )
        return seen if dry_run else _decode_vm(answer).metadata


def _spoken(vm: v1.VirtualMachine, strategy: RunStrategy | None) -> dict[str, Any]:
    """The strategy in the field in which the machine's user says it; nothing for none."""
    if strategy is None:
        return {}
    if vm.spec.running is not None:
        return {"running": strategy == RunStrategy.ALWAYS}
    return {"runStrategy": strategy}
