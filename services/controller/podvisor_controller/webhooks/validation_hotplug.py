"""What podvisor itself may change of an instance's specification: volumes that may come and go with their disks, interfaces, and the
time that the guest has to shut down. Pure.

Invariant: a volume comes or leaves as a whole, and a name is given to another one only when nothing is held by it any more. Drives of
CD-ROMs stay, only what is in them comes and goes. Interfaces are looked at in validation_interface_plugs.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from podvisor_common.api import v1

from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.validation_disks import boot_order_causes, disk_causes
from podvisor_controller.webhooks.validation_fields import Cause, CauseReason, invalid, quoted
from podvisor_controller.webhooks.validation_interface_plugs import interface_plug_causes
from podvisor_controller.webhooks.validation_network import network_causes
from podvisor_controller.webhooks.validation_spec import grace_period_causes
from podvisor_controller.webhooks.validation_template import decoding_cause
from podvisor_controller.webhooks.validation_updates import new_causes
from podvisor_controller.webhooks.validation_volumes import volume_causes

RESTRICTED = "update of VMI object is restricted"

Raw = Mapping[str, Any]


def plug_causes(obj: Raw, old: Raw, permitted: Permitted) -> list[Cause]:
    """Why a change of an instance's specification by podvisor is refused; empty when it is not."""
    try:
        new, was = (msgspec.convert(o, v1.VirtualMachineInstance) for o in (obj, old))
    except msgspec.ValidationError as error:
        return [decoding_cause(error)]
    if _rest_of(obj) != _rest_of(old) or _fixed(new.spec) != _fixed(was.spec):
        text = (
            f"{RESTRICTED} to volumes that are hotpluggable, to their disks, to interfaces, and to"
            " terminationGracePeriodSeconds"
        )
        return [Cause("spec", text, CauseReason.NOT_SUPPORTED)]
    # What was so before is let be: the instance was admitted with it.
    causes = _causes(new.spec, obj["spec"], permitted)
    known = _causes(was.spec, old["spec"], permitted)
    return [
        *_name_causes(new, was),
        *interface_plug_causes(new, was),
        *new_causes(causes, known, obj, old),
    ]


def _rest_of(obj: Raw) -> Any:
    """A specification without what may change or is looked at element by element, as it is written."""
    changeable = ("volumes", "networks", "terminationGracePeriodSeconds")
    spec = {k: v for k, v in obj["spec"].items() if k not in changeable}
    domain = dict(spec["domain"])
    devices = domain.pop("devices", None) or {}
    devices = {k: v for k, v in devices.items() if k not in ("disks", "interfaces")}
    return {**spec, "domain": domain, "devices": devices}


def _fixed(spec: v1.VirtualMachineInstanceSpec) -> tuple[list[v1.Volume], list[v1.Disk]]:
    may_go = _pluggable(spec)
    volumes = [volume for volume in spec.volumes or () if volume.name not in may_go]
    disks = spec.domain.devices.disks or ()
    return volumes, [d for d in disks if d.cdrom is not None or d.name not in may_go]


def _pluggable(spec: v1.VirtualMachineInstanceSpec) -> dict[str, v1.Volume]:
    return {volume.name: volume for volume in spec.volumes or () if volume.is_hotpluggable}


def _name_causes(new: v1.VirtualMachineInstance, was: v1.VirtualMachineInstance) -> Iterator[Cause]:
    """A volume or its disk is another one than before, by the same name."""
    had, disks = _pluggable(was.spec), _disks(was.spec)
    held = {e.name for e in was.status.volume_status or () if e.hotplug_volume is not None}
    for index, volume in enumerate(new.spec.volumes or ()):
        field, name = f"spec.volumes[{index}]", quoted(volume.name)
        if not volume.is_hotpluggable:
            continue
        if volume.name not in had and volume.name in held:
            text = f"{name} is still being detached: it can be attached when that is done."
            yield invalid(f"{field}.name", text)
        elif volume.name in had and volume != had[volume.name]:
            yield invalid(field, f"{name} must be detached before another volume has its name.")
        elif volume.name in had and disks.get(volume.name) != _disks(new.spec).get(volume.name):
            yield invalid(field, f"{name} must be detached before its disk is another one.")


def _disks(spec: v1.VirtualMachineInstanceSpec) -> dict[str, v1.Disk]:
    return {disk.name: disk for disk in spec.domain.devices.disks or ()}


def _causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], permitted: Permitted
) -> Iterator[Cause]:
    yield from disk_causes(spec, raw, "spec")
    yield from volume_causes(spec, raw, "spec", permitted)
    yield from network_causes(spec, raw, "spec", permitted)
    yield from boot_order_causes(spec, "spec")
    yield from grace_period_causes(spec, "spec")
