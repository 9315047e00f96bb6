"""Writes the volumes and disks of instances and of templates.

Invariant: decides and remembers nothing. An object that is not as it was seen is not written to: ApiConflict.
"""

from dataclasses import dataclass

import msgspec
from podvisor_common.api import v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES, key_of

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.refusals import refusal
from podvisor_controller.vm import plan
from podvisor_controller.vm.hotplug import volume_lists

_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode


@dataclass(frozen=True, slots=True)
class Plugger:
    """Writes volumes and disks."""

    client: KubeClient
    vms: Informer[v1.VirtualMachine]
    vmis: Informer[v1.VirtualMachineInstance]

    async def plug(self, vmi: v1.VirtualMachineInstance, action: plan.PlugVolumes) -> str:
        """Give an instance other volumes. Why that is refused, for a person; empty when it is not."""
        spec = volume_lists(action.volumes, action.disks)
        patch = {"metadata": as_it_was_seen(vmi.metadata), "spec": spec}
        try:
            answer = await self.client.merge_patch(VIRTUAL_MACHINE_INSTANCES, key_of(vmi), patch)
        except ApiNotFound:
            return ""
        except (ApiForbidden, ApiInvalid) as error:
            return refusal("VirtualMachineInstance", "given other volumes", error)
        self.vmis.learn(_decode_vmi(answer))
        return ""

    async def change_template(self, vm: v1.VirtualMachine, action: plan.ChangeTemplate) -> str:
        """Give a machine's template other volumes. Why that is refused, for a person; empty when it is not."""
        spec = volume_lists(action.volumes, action.disks)
        patch = {"metadata": as_it_was_seen(vm.metadata), "spec": {"template": {"spec": spec}}}
        try:
            answer = await self.client.merge_patch(VIRTUAL_MACHINES, key_of(vm), patch)
        except ApiNotFound:
            return ""
        except (ApiForbidden, ApiInvalid) as error:
            return refusal("VirtualMachine", "given other volumes", error)
        self.vms.learn(_decode_vm(answer))
        return ""
