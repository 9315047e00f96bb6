"""Who uses the claims of an export, or is about to. Pure.

Invariant: a claim that anybody may write to is never called free: what is read meanwhile would be torn. Who only reads is in nobody's way.
"""

from collections.abc import Iterable
from typing import Any

from podvisor_common.api import meta, v1
from podvisor_common.api.base import ApiStruct
from podvisor_common.api.export import VirtualMachineExport

from podvisor_controller.snapshot.volumes import volumes_of
from podvisor_controller.vm.observed import wants_new
from podvisor_controller.vmi.claims import claim_of, is_only_read, leaving

_ENDED = ("Succeeded", "Failed")


class _PodClaim(ApiStruct, frozen=True):
    claim_name: str = ""
    read_only: bool = False


class _PodVolume(ApiStruct, frozen=True):
    name: str = ""
    persistent_volume_claim: _PodClaim | None = None
    ephemeral: dict[str, Any] | None = None


class _PodSpec(ApiStruct, frozen=True):
    volumes: list[_PodVolume] | None = None


class _PodStatus(ApiStruct, frozen=True):
    phase: str = ""


class _PodMetadata(ApiStruct, frozen=True):
    name: str = ""
    owner_references: list[meta.OwnerReference] | None = None


class UserPod(ApiStruct, frozen=True):
    """Any pod, as far as it tells which claims it has."""

    metadata: _PodMetadata
    spec: _PodSpec = _PodSpec()
    status: _PodStatus = _PodStatus()


def pod_in_the_way(
    pods: Iterable[UserPod], claims: Iterable[str], export: VirtualMachineExport
) -> str:
    """Which claim is in use by a pod of the export's namespace that is not its own, for a person; empty when none is."""
    wanted = set(claims)
    for pod in pods:
        owners = pod.metadata.owner_references or ()
        is_own = any(one.controller and one.uid == export.metadata.uid for one in owners)
        if is_own or pod.status.phase in _ENDED:
            continue
        for volume in pod.spec.volumes or ():
            if (claim := _written_claim(pod, volume)) in wanted:
                return _told(export, claim, f"Pod {pod.metadata.name}")
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


def _written_claim(pod: UserPod, volume: _PodVolume) -> str:
    """The claim of a pod's volume, empty where there is none or it can only be read."""
    if volume.ephemeral is not None:
        return f"{pod.metadata.name}-{volume.name}"
    claim = volume.persistent_volume_claim
    return "" if claim is None or claim.read_only else claim.claim_name


def _told(export: VirtualMachineExport, claim: str, user: str) -> str:
    return f"PersistentVolumeClaim {export.metadata.namespace}/{claim} is in use by {user}"
