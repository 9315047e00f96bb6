"""The machine of a snapshot: locked, let go of, and read word for word.

Invariant: a machine is locked by its status and a finalizer, in that order, and let go of in the other one: whoever finds one of the
two alone knows what is left to be done. Every write is to the machine as it was seen: ApiConflict when it has changed.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from podvisor_common.api import v1
from podvisor_common.api.snapshot import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict, ApiForbidden, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import CONTROLLER_REVISIONS, VIRTUAL_MACHINES, ObjectKey, key_of

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.snapshot.manifests import Json, as_it_runs
from podvisor_controller.vm.observed import generation_of
from podvisor_controller.vm.revision import revision_name_of

_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_log = structlog.get_logger(__name__)


class Source:
    """Reads and locks machines."""

    def __init__(self, client: KubeClient, vms: Informer[v1.VirtualMachine]) -> None:
        self._client = client
        self._vms = vms

    async def lock(self, vm: v1.VirtualMachine, snapshot: str) -> None:
        """Have the machine say that the snapshot of that name is in progress, and stay until it is let go of."""
        if vm.status.snapshot_in_progress != snapshot:
            vm = await self._write_status(vm, snapshot)
        finalizers = vm.metadata.finalizers or ()
        if names.SOURCE_FINALIZER not in finalizers:
            await self._write_finalizers(vm, [*finalizers, names.SOURCE_FINALIZER])

    async def unlock(self, vm: v1.VirtualMachine) -> None:
        """Let the machine change, and go. One that has gone is no error."""
        try:
            finalizers = vm.metadata.finalizers or ()
            if names.SOURCE_FINALIZER in finalizers:
                rest = [one for one in finalizers if one != names.SOURCE_FINALIZER]
                vm = await self._write_finalizers(vm, rest)
            await self._write_status(vm, None)
        except ApiNotFound:
            _log.debug("machine was gone already")

    async def read(
        self, vm: v1.VirtualMachine, vmi: v1.VirtualMachineInstance | None, snapshot: str
    ) -> tuple[v1.VirtualMachine, Json]:
        """The machine as the API server has it, and what to keep of it. ApiConflict when it is not locked for the snapshot."""
        answer = await self._client.get(VIRTUAL_MACHINES, key_of(vm))
        live = _decode_vm(answer)
        is_other = live.metadata.uid != vm.metadata.uid
        if is_other or live.status.snapshot_in_progress != snapshot:
            raise ApiConflict(409, "Conflict", "the machine is another, or not locked")
        machine: Json = msgspec.json.decode(answer)
        if vmi is None or vmi.is_final or generation_of(vmi) == live.metadata.generation:
            return live, machine
        return live, as_it_runs(machine, await self._started(vmi))

    async def _started(self, vmi: v1.VirtualMachineInstance) -> Mapping[str, Any] | None:
        """The specification that the start of an instance recorded; None where it cannot be known."""
        name = revision_name_of(vmi)
        if not name:
            return None
        try:
            answer = await self._client.get(
                CONTROLLER_REVISIONS, ObjectKey(vmi.metadata.namespace, name)
            )
        except (ApiNotFound, ApiForbidden) as error:
            _log.warning("revision cannot be read", revision=name, kind=type(error).__name__)
            return None
        data = msgspec.json.decode(answer).get("data")
        return data.get("spec") if isinstance(data, dict) else None

    async def _write_status(self, vm: v1.VirtualMachine, snapshot: str | None) -> v1.VirtualMachine:
        patch = {
            "metadata": {"resourceVersion": vm.metadata.resource_version},
            "status": {"snapshotInProgress": snapshot},
        }
        answer = await self._client.merge_patch(
            VIRTUAL_MACHINES, key_of(vm), patch, subresource="status"
        )
        return self._learn(answer)

    async def _write_finalizers(
        self, vm: v1.VirtualMachine, finalizers: list[str]
    ) -> v1.VirtualMachine:
        metadata = as_it_was_seen(vm.metadata) | {"finalizers": finalizers}
        answer = await self._client.merge_patch(
            VIRTUAL_MACHINES, key_of(vm), {"metadata": metadata}
        )
        return self._learn(answer)

    def _learn(self, answer: bytes) -> v1.VirtualMachine:
        vm = _decode_vm(answer)
        self._vms.learn(vm)
        return vm
