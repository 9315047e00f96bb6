"""The machine that a restore is for: locked, let go of, asked to stop, replaced and made.

Invariant: decides and remembers nothing. Every write is to the machine as it was seen: ApiConflict when it has changed, ApiForbidden and
ApiInvalid when somebody does not let it happen.
"""

from typing import Any

import msgspec
import structlog
from podvisor_common.api import v1
from podvisor_common.api.v1.names import RunStrategy, StateChange
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import VIRTUAL_MACHINES, ObjectKey, key_of

Json = dict[str, Any]

# Those that stop an instance when they are asked to; under the others there is none only where none is to be.
_TAKE_REQUESTS = (RunStrategy.MANUAL, RunStrategy.RERUN_ON_FAILURE)

_decode = msgspec.json.Decoder(v1.VirtualMachine).decode
_log = structlog.get_logger(__name__)


class Target:
    """Reads and writes machines."""

    def __init__(self, client: KubeClient, vms: Informer[v1.VirtualMachine]) -> None:
        self._client = client
        self._vms = vms

    async def find(self, key: ObjectKey) -> v1.VirtualMachine | None:
        """The machine by the API server's word."""
        try:
            return self._learn(await self._client.get(VIRTUAL_MACHINES, key))
        except ApiNotFound:
            return None

    async def lock(self, vm: v1.VirtualMachine, restore: str) -> None:
        """Have the machine say that the restore of that name is in progress."""
        await self._write_status(vm, {"restoreInProgress": restore})

    async def unlock(self, vm: v1.VirtualMachine) -> None:
        """Let the machine start. One that has gone is no error."""
        try:
            await self._write_status(vm, {"restoreInProgress": None})
        except ApiNotFound:
            _log.debug("machine was gone already")

    async def stop(self, vm: v1.VirtualMachine, instance: v1.VirtualMachineInstance) -> None:
        """Have the instance stopped, and none take its place, in the words that the machine's run strategy has for it."""
        if vm.effective_run_strategy in _TAKE_REQUESTS:
            request = {"action": StateChange.STOP.value, "uid": instance.metadata.uid}
            await self._write_status(vm, {"stateChangeRequests": [request]})
            return
        spec = (
            {"runStrategy": RunStrategy.HALTED.value}
            if vm.spec.run_strategy
            else {"running": False}
        )
        body = {"metadata": {"resourceVersion": vm.metadata.resource_version}, "spec": spec}
        self._learn(await self._client.merge_patch(VIRTUAL_MACHINES, key_of(vm), body))

    async def replace(self, vm: v1.VirtualMachine, operations: list[Json]) -> None:
        """Change the machine by operations that hold of it as it was seen."""
        self._learn(await self._client.json_patch(VIRTUAL_MACHINES, key_of(vm), operations))

    async def create(self, manifest: Json) -> None:
        """Make a machine. Where its name is taken, by an earlier attempt or by somebody else, the next pass sees by whom."""
        metadata = manifest["metadata"]
        key = ObjectKey(metadata["namespace"], metadata["name"])
        try:
            answer = await self._client.create(VIRTUAL_MACHINES, key.namespace, manifest)
        except ApiAlreadyExists:
            await self.find(key)
            return
        self._learn(answer)

    async def _write_status(self, vm: v1.VirtualMachine, status: Json) -> None:
        body = {"metadata": {"resourceVersion": vm.metadata.resource_version}, "status": status}
        answer = await self._client.merge_patch(
            VIRTUAL_MACHINES, key_of(vm), body, subresource="status"
        )
        self._learn(answer)

    def _learn(self, answer: bytes) -> v1.VirtualMachine:
        vm = _decode(answer)
        self._vms.learn(vm)
        return vm
