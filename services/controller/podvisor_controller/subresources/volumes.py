"""Whether a volume can be attached to a machine or an instance, or detached, as it is now. Pure.

Texts and codes are KubeVirt's, for its clients tell people what they say.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from podvisor_common.api import v1
from podvisor_common.api.v1.names import Phase
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES

from podvisor_controller.subresources.options import check_fields, converted
from podvisor_controller.subresources.statuses import bad_request, conflict
from podvisor_controller.vm.hotplug import own_volumes
from podvisor_controller.vm.volume_requests import Outcome, Request, outcome_of

# What a guest can only have from its start on, and no volume that comes and goes is there then.
_NOT_OF_A_RUNNING_GUEST = {
    "bootOrder": "a guest does not boot from what is attached while it runs.",
    "dedicatedIOThread": "I/O threads are made when a guest starts.",
}


def add_request(options: Mapping[str, Any]) -> Request:
    """The request of AddVolumeOptions as they are sent. Raises StatusError (400)."""
    kind, name = "AddVolumeOptions", options.get("name")
    disk, source = options.get("disk"), options.get("volumeSource")
    if not name:
        raise bad_request(f"{kind} requires name to be set")
    if disk is None:
        raise bad_request(f"{kind} requires disk to not be nil")
    if source is None:
        raise bad_request(f"{kind} requires VolumeSource to not be nil")
    if isinstance(disk, dict):
        disk = {**disk, "name": name}
    if isinstance(source, dict):
        source = {key: _hotpluggable(one) for key, one in source.items()}
    sent = {"name": name, "disk": disk, "volumeSource": source}
    check_fields(options, v1.AddVolumeOptions)
    for field, why in _NOT_OF_A_RUNNING_GUEST.items():
        if isinstance(disk, dict) and disk.get(field):
            raise bad_request(f"{kind}.disk.{field} is not supported: {why}")
    return Request(add_volume_options=converted(sent, v1.AddVolumeOptions))


def remove_request(options: Mapping[str, Any]) -> Request:
    """The request of RemoveVolumeOptions as they are sent. Raises StatusError (400)."""
    kind, name = "RemoveVolumeOptions", options.get("name")
    if not name:
        raise bad_request(f"{kind} requires name to be set")
    check_fields(options, v1.RemoveVolumeOptions)
    return Request(remove_volume_options=converted({"name": name}, v1.RemoveVolumeOptions))


def template_with(vm: v1.VirtualMachine, request: Request) -> Outcome:
    """What the request alone makes of the machine's template. Raises StatusError (400, 409)."""
    name, spec = vm.metadata.name, vm.spec.template.spec
    present = vm.status.volume_requests or []
    why = _obstacle(spec, request) or _pending_obstacle(present, request)
    if why:
        raise conflict(VIRTUAL_MACHINES, name, why)
    return _carried_out(spec, request)


def plugged(vmi: v1.VirtualMachineInstance, request: Request) -> Outcome:
    """The volumes and disks that the instance is to have. Raises StatusError (400, 409)."""
    name = vmi.metadata.name
    if vmi.status.phase != Phase.RUNNING:
        raise conflict(VIRTUAL_MACHINE_INSTANCES, name, "VMI is not running")
    why = _obstacle(vmi.spec, request)
    if why:
        raise conflict(VIRTUAL_MACHINE_INSTANCES, name, why)
    return _carried_out(vmi.spec, request)


def own_with(vmi: v1.VirtualMachineInstance, request: Request) -> frozenset[str]:
    """The names of the volumes that are the instance's own once the request is carried out."""
    name, is_add = _subject(request)
    return own_volumes(vmi) | {name} if is_add else own_volumes(vmi) - {name}


def _hotpluggable(source: Any) -> Any:
    return {**source, "hotpluggable": True} if isinstance(source, dict) else source


def _obstacle(spec: v1.VirtualMachineInstanceSpec, request: Request) -> str:
    """What of a specification is in the way of a request; empty when nothing is."""
    volumes = {volume.name: volume for volume in spec.volumes or ()}
    add, remove = request.add_volume_options, request.remove_volume_options
    if add is not None:
        return _add_obstacle(add, volumes, spec.domain.devices.disks or ())
    assert remove is not None
    start = f"Unable to remove volume [{remove.name}] because it"
    if remove.name not in volumes:
        return f"{start} does not exist"
    return "" if volumes[remove.name].is_hotpluggable else f"{start} is not hotpluggable"


def _add_obstacle(
    add: v1.AddVolumeOptions, volumes: Mapping[str, v1.Volume], disks: Iterable[v1.Disk]
) -> str:
    if add.name in volumes:
        return f"Unable to add volume [{add.name}] because volume with that name already exists"
    claim = _claim_of(Request(add_volume_options=add))
    if claim and any(volume.claim_name == claim for volume in volumes.values()):
        return f"Unable to add volume source [{claim}] because it already exists"
    if any(disk.name == add.name and disk.cdrom is None for disk in disks):
        return f"Unable to add volume [{add.name}] because disk with that name already exists"
    return ""


def _pending_obstacle(present: Sequence[Request], request: Request) -> str:
    """A request for the same volume, or the same claim, that is not carried out yet is in the way of another one."""
    claim = _claim_of(request)
    for other in present:
        name, is_add = _subject(other)
        wanted, adds = _subject(request)
        if claim and name != wanted and claim == _claim_of(other):
            return f"Unable to add volume source [{claim}] because it already exists in the add volume request for volume [{name}]"
        if name != wanted:
            continue
        rest = f"volume request for volume [{name}] already exists and is still being processed"
        if is_add:
            return f"add {rest}" if adds else f"unable to remove volume since an add {rest}"
        return f"unable to add volume since a remove {rest}" if adds else f"a remove {rest}"
    return ""


def _subject(request: Request) -> tuple[str, bool]:
    """The volume that a request is about, and whether it is to come."""
    options = request.add_volume_options or request.remove_volume_options
    return options.name if options else "", request.add_volume_options is not None


def _carried_out(spec: v1.VirtualMachineInstanceSpec, request: Request) -> Outcome:
    outcome = outcome_of(spec, [request])
    if outcome.refusals:
        raise bad_request(" ".join(outcome.refusals))
    return outcome


def _claim_of(request: Request) -> str:
    """The claim that a request is for; empty when it is for none."""
    add = request.add_volume_options
    source = (add.volume_source if add is not None else None) or v1.HotplugVolumeSource()
    if source.persistent_volume_claim is not None:
        return source.persistent_volume_claim.claim_name
    return source.data_volume.name if source.data_volume is not None else ""
