"""Who uses the claims of an export, or is about to. Pure.

Invariant: a claim that anybody may write to is never called free: what is read meanwhile would be torn. Who only reads is in nobody's way.
"""

from collections.abc import Iterable

from podvisor_common.api import v1
from podvisor_common.api.export import VirtualMachineExport

from podvisor_controller.snapshot.volumes import volumes_of
from podvisor_controller.user_pods import UserPod
from podvisor_controller.vm.observed import wants_new
from podvisor_controller.vmi.claims import claim_of, is_only_read, leaving


def pod_in_the_way(pods: Iterable[UserPod], claims: set[str], export: VirtualMachineExport) -> str:
    """Which claim is in use by a pod of the export's namespace that is not its own, for a person; empty when none is."""
    for pod in pods:
        owners = pod.metadata.owner_references or ()
        is_own = any(one.controller and one.uid == export.metadata.uid for one in owners)
        if is_own or pod.is_ended:
            continue
        if taken := claims & pod.claims(written=True):
            return _told(export, min(taken), f"Pod {pod.metadata.name}")
    return ""


def instance_in_the_way(
    claim: str, instances: Iterable[v1.VirtualMachineInstance], export: VirtualMachineExport
) -> str:
    """Which of these instances with the claim has it for more than reading, for a person; empty when none has."""
    for vmi in instances:
        has_it = [v for v in vmi.spec.volumes or () if v.claim_name == claim]
        had_it = any(claim_of(entry) == claim for entry in leaving(vmi))
        if had_it or any(not is_only_read(vmi, volume) for volume in has_it):
            return _told(export, claim, f"VirtualMachineInstance {vmi.metadata.name}")
    return ""


def machine_in_the_way(
    claim: str, machines: Iterable[v1.VirtualMachine], export: VirtualMachineExport
) -> str:
    """Which of these machines without an instance is about to get one, for a person; empty when none is.

    Between an instance and its successor nobody has the claim: an export that began there would keep a machine from running again.
    """
    for vm in machines:
        if wants_new(vm) and any(volume.claim_name == claim for volume in volumes_of(vm)):
            name = vm.metadata.name
            return _told(export, claim, f"VirtualMachine {name}, which is to run")
    return ""


def _told(export: VirtualMachineExport, claim: str, user: str) -> str:
    return f"PersistentVolumeClaim {export.metadata.namespace}/{claim} is in use by {user}"
