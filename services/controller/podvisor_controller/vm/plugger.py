"""Writes the volumes, disks and interfaces of instances, and the volumes and disks of templates.

Invariant: decides and remembers nothing. What was decided of other devices than the object has now is not written: ApiConflict.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from podvisor_common.aio.backoff import Backoff
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict, ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES, key_of

from podvisor_controller.pauses import retry_backoff
from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.refusals import refusal
from podvisor_controller.vm import plan
from podvisor_controller.vm.hotplug import own_volumes, own_volumes_annotation
from podvisor_controller.vm.volume_edits import TEMPLATE, edits_of

_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode


@dataclass(slots=True)
class RefusedPlug:
    """Why a guest does not get what its machine's template has for it, and when that is tried again."""

    why: str = ""
    retry_at: datetime | None = None
    backoff: Backoff = field(default_factory=retry_backoff)

    def note(self, why: str, at: datetime) -> None:
        """Refused, perhaps once more: each time the pause is longer. Empty: not refused any more."""
        self.why, self.retry_at = why, None
        if why:
            self.retry_at = at + timedelta(seconds=self.backoff.next_s())
        else:
            self.backoff.reset()


@dataclass(frozen=True, slots=True)
class Plugger:
    """Writes devices that come and go."""

    client: KubeClient
    vms: Informer[v1.VirtualMachine]
    vmis: Informer[v1.VirtualMachineInstance]

    async def plug(self, vmi: v1.VirtualMachineInstance, action: plan.PlugVolumes) -> str:
        """Give an instance other volumes. Why that is refused, for a person; empty when it is not."""
        spec = {
            "volumes": msgspec.to_builtins(action.volumes),
            "domain": {"devices": {"disks": msgspec.to_builtins(action.disks)}},
        }
        metadata = as_it_was_seen(vmi.metadata)
        if own_volumes(vmi) != action.own:
            none = {names.EPHEMERAL_VOLUMES_ANNOTATION: None}
            metadata["annotations"] = none | own_volumes_annotation(action.own)
        return await self._patch(vmi, {"metadata": metadata, "spec": spec}, "given other volumes")

    async def wire(self, vmi: v1.VirtualMachineInstance, action: plan.PlugInterfaces) -> str:
        """Give an instance other interfaces. Why that is refused, for a person; empty when it is not."""
        spec = {
            "networks": msgspec.to_builtins(action.networks),
            "domain": {"devices": {"interfaces": msgspec.to_builtins(action.interfaces)}},
        }
        patch = {"metadata": as_it_was_seen(vmi.metadata), "spec": spec}
        return await self._patch(vmi, patch, "given other interfaces")

    async def _patch(self, vmi: v1.VirtualMachineInstance, patch: dict[str, Any], done: str) -> str:
        try:
            answer = await self.client.merge_patch(VIRTUAL_MACHINE_INSTANCES, key_of(vmi), patch)
        except ApiNotFound:
            return ""
        except (ApiForbidden, ApiInvalid) as error:
            return refusal("VirtualMachineInstance", done, error)
        self.vmis.learn(_decode_vmi(answer))
        return ""

    async def change_template(self, vm: v1.VirtualMachine, action: plan.ChangeTemplate) -> str:
        """Give a machine's template other volumes. Why that is refused, for a person; empty when it is not."""
        key = key_of(vm)
        try:
            raw = await self.client.get(VIRTUAL_MACHINES, key)
            live = _decode_vm(raw)
            if live.metadata.uid != vm.metadata.uid or _volumes_of(live) != _volumes_of(vm):
                raise ApiConflict(409, "Conflict", "the machine is another, or has other volumes")
            obj: dict[str, Any] = msgspec.json.decode(raw)
            edits = edits_of(obj, TEMPLATE, action.volumes, action.disks, exactly=False)
            answer = await self.client.json_patch(VIRTUAL_MACHINES, key, edits)
        except ApiNotFound:
            return ""
        except ApiForbidden as error:
            return refusal("VirtualMachine", "given other volumes", error)
        except ApiInvalid as error:
            await self._check_unmoved(live)
            return refusal("VirtualMachine", "given other volumes", error)
        self.vms.learn(_decode_vm(answer))
        return ""

    async def _check_unmoved(self, vm: v1.VirtualMachine) -> None:
        """Raise ApiConflict when somebody wrote in between: then it may be a place that has moved, and not the edit."""
        live = _decode_vm(await self.client.get(VIRTUAL_MACHINES, key_of(vm)))
        if live.metadata.resource_version != vm.metadata.resource_version:
            raise ApiConflict(409, "Conflict", "the machine has changed meanwhile")


def _volumes_of(
    vm: v1.VirtualMachine,
) -> tuple[list[v1.Volume] | None, list[v1.Disk] | None]:
    spec = vm.spec.template.spec
    return spec.volumes, spec.domain.devices.disks
