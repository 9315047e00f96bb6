"""What admission fills in.

Invariant: pure; a value the user gave is never changed, and a value that makes no sense is left for validation to
refuse. A VirtualMachine written as v1alpha1 gets nothing in its specification: it reads back as it was written, and the
defaults are given when its instance is made.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_CEILING
from typing import Any
from uuid import uuid4

from podvisor_common.api import v1
from podvisor_common.api.quantity import Quantity, QuantityError, parse_quantity
from podvisor_common.api.unsupported import DISK_TARGETS
from podvisor_common.api.v1 import names

from podvisor_controller.config import eviction_strategy_of, feature_gates_of
from podvisor_controller.webhooks.conversion import written_as_v1alpha1
from podvisor_controller.webhooks.defaults_hardware import default_hardware
from podvisor_controller.webhooks.defaults_patch import Operation, patch_between
from podvisor_controller.webhooks.disk_buses import default_bus
from podvisor_controller.webhooks.permitted import Permitted

Json = dict[str, Any]

_MACHINE_TYPES = {"amd64": "q35", "arm64": "virt"}
_PROBE_TIMINGS = {
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
}
# Of an interface that nobody asked for, where the cluster's settings name none.
DEFAULT_BINDING = "bridge"


@dataclass(frozen=True, slots=True)
class ClusterDefaults:
    """What the cluster's settings say about guests that do not say it themselves, and what guests may ask for."""

    architecture: str = "amd64"
    # Empty: the architecture's.
    machine_type: str = ""
    # By architecture; they come before machine_type.
    machine_types: Mapping[str, str] = field(default_factory=dict)
    cpu_model: str = ""
    cpu_request: Quantity | None = None
    interface_binding: str = DEFAULT_BINDING
    # Empty: none is filled in.
    eviction_strategy: str = ""
    # Those that are on.
    feature_gates: frozenset[str] = frozenset()
    # Whether the binding bridge may be used with the pod network.
    bridge_on_pod_network: bool = True

    @classmethod
    def of(cls, configuration: v1.KubeVirtConfiguration, architecture: str) -> "ClusterDefaults":
        """The defaults of a KubeVirt object on nodes of an architecture (`amd64`, `arm64`)."""
        network = configuration.network or v1.NetworkConfiguration()
        by_architecture = configuration.architecture_configuration or v1.ArchitectureConfiguration()
        return cls(
            architecture=architecture,
            machine_type=configuration.machine_type,
            machine_types=by_architecture.machine_types(),
            cpu_model=configuration.cpu_model,
            cpu_request=configuration.cpu_request,
            interface_binding=network.default_network_interface or DEFAULT_BINDING,
            eviction_strategy=eviction_strategy_of(configuration),
            feature_gates=feature_gates_of(configuration),
            bridge_on_pod_network=network.permit_bridge_interface_on_pod_network is not False,
        )

    @property
    def permitted(self) -> Permitted:
        """What guests may ask for."""
        return Permitted(self.feature_gates, self.bridge_on_pod_network)


def default_virtual_machine(
    obj: Mapping[str, Any],
    defaults: ClusterDefaults | None = None,
    *,
    make_uuid: Callable[[], str] = lambda: str(uuid4()),
) -> list[Operation]:
    """The patch for a VirtualMachine being created: the finalizer, and an identity and a board that last."""
    defaults = defaults or ClusterDefaults()
    after = copy.deepcopy(dict(obj))
    _add_finalizer(after, names.VM_FINALIZER)
    spec = _object(_object(after, "spec"), "template").get("spec")
    if isinstance(spec, dict) and not written_as_v1alpha1(obj):
        _default_architecture_and_board(spec, defaults)
        domain = spec.get("domain")
        if isinstance(domain, dict):
            firmware = domain.setdefault("firmware", {})
            if isinstance(firmware, dict):
                for name in ("uuid", "serial"):
                    if _is_unset(firmware.get(name)):
                        firmware[name] = make_uuid()
    return patch_between(obj, after)


def default_virtual_machine_instance(
    obj: Mapping[str, Any], defaults: ClusterDefaults | None = None
) -> list[Operation]:
    """The patch for an instance being created: after it, the specification says all that a launcher needs."""
    after = copy.deepcopy(dict(obj))
    _add_finalizer(after, names.VMI_FINALIZER)
    _default_instance_spec(after.get("spec"), defaults or ClusterDefaults())
    return patch_between(obj, after)


def default_instance_update(
    obj: Mapping[str, Any], old: Mapping[str, Any], defaults: ClusterDefaults | None = None
) -> list[Operation]:
    """The patch for an instance being updated. A manifest that is applied again lacks what its creation was given in lists,
    which a client replaces as a whole: given again, nothing of the specification has changed."""
    if obj.get("spec") == old.get("spec"):
        return []
    after = copy.deepcopy(dict(obj))
    _default_instance_spec(after.get("spec"), defaults or ClusterDefaults())
    return patch_between(obj, after)


def default_plugged_disks(obj: Mapping[str, Any]) -> list[Operation]:
    """The patch for an instance that is given other volumes: its disks are made whole, and nothing else is touched, whatever the
    cluster's defaults are by now."""
    after = copy.deepcopy(dict(obj))
    default_disks(after["spec"])
    return patch_between(obj, after)


def _default_instance_spec(spec: Any, defaults: ClusterDefaults) -> None:
    if isinstance(spec, dict) and isinstance(spec.get("domain"), dict):
        _default_architecture_and_board(spec, defaults)
        _default_disks(spec)
        _default_network(spec, defaults)
        _default_cpu(spec["domain"], defaults)
        _default_memory(spec["domain"])
        default_hardware(spec["domain"])
        _default_pull_policies(spec)
        _default_buses(spec)
        _default_probes(spec)
        if defaults.eviction_strategy and _is_unset(spec.get("evictionStrategy")):
            spec["evictionStrategy"] = defaults.eviction_strategy


def _default_probes(spec: Json) -> None:
    for name in ("readinessProbe", "livenessProbe"):
        if isinstance(probe := spec.get(name), dict):
            for field_name, value in _PROBE_TIMINGS.items():
                if probe.get(field_name) in (None, 0):
                    probe[field_name] = value


def default_disks(spec: Json) -> None:
    """What an instance is given of disks: one for each volume that none names, and a bus for each."""
    _default_disks(spec)
    _default_buses(spec)


def _add_finalizer(obj: Json, finalizer: str) -> None:
    metadata = obj.setdefault("metadata", {})
    finalizers = list(metadata.get("finalizers") or [])
    if finalizer not in finalizers:
        metadata["finalizers"] = [*finalizers, finalizer]


def _default_architecture_and_board(spec: Json, defaults: ClusterDefaults) -> None:
    if _is_unset(spec.get("architecture")):
        spec["architecture"] = defaults.architecture
    domain = spec.get("domain")
    machine = domain.setdefault("machine", {}) if isinstance(domain, dict) else None
    if isinstance(machine, dict) and _is_unset(machine.get("type")):
        given = _of_architecture(defaults.machine_types, spec, "") or defaults.machine_type
        machine["type"] = given or _of_architecture(_MACHINE_TYPES, spec, "q35")


def _default_disks(spec: Json) -> None:
    """A disk for each volume that neither a disk nor a shared file system names."""
    volumes = _objects(spec.get("volumes"))
    devices = spec["domain"].setdefault("devices", {})
    if not isinstance(devices, dict):
        return
    disks = devices.get("disks")
    named = {*_names(_objects(disks)), *_names(_objects(devices.get("filesystems")))}
    missing = [{"name": name} for name in _names(volumes) if name and name not in named]
    if missing and (disks is None or isinstance(disks, list)):
        devices["disks"] = [*(disks or []), *missing]


def _default_network(spec: Json, defaults: ClusterDefaults) -> None:
    """The pod network, unless an interface or a network is given or the user wants none."""
    devices = spec["domain"].get("devices")
    if not isinstance(devices, dict) or devices.get("autoattachPodInterface") is False:
        return
    if not all(
        value is None or value == [] for value in (spec.get("networks"), devices.get("interfaces"))
    ):
        return
    spec["networks"] = [{"name": "default", "pod": {}}]
    devices["interfaces"] = [{"name": "default", defaults.interface_binding: {}}]


def _default_cpu(domain: Json, defaults: ClusterDefaults) -> None:
    """The request of the pod, the topology of the guest and the model of its processors."""
    resources = domain.get("resources")
    requests, limits = _object(resources, "requests"), _object(resources, "limits")
    asked = requests.get("cpu", limits.get("cpu"))
    if asked is None:
        asked = defaults.cpu_request
    if asked is not None and requests.get("cpu") is None:
        room = _room(_room(domain, "resources"), "requests")
        if room is not None:
            room["cpu"] = asked
    cpu = domain.setdefault("cpu", {})
    if not isinstance(cpu, dict):
        return
    if not any(cpu.get(name) for name in ("cores", "sockets", "threads")):
        cpu["sockets"] = _whole(limits.get("cpu", asked))
    for name in ("cores", "sockets", "threads"):
        cpu.setdefault(name, 1)
    if defaults.cpu_model and _is_unset(cpu.get("model")):
        cpu["model"] = defaults.cpu_model


def _whole(quantity: Quantity | None) -> int:
    """Whole processors of a cpu quantity, at least 1; 1 when it makes no sense."""
    try:
        amount = parse_quantity("1" if quantity is None else quantity)
    except QuantityError:
        return 1
    return max(1, int(amount.to_integral_value(ROUND_CEILING)))


def _default_memory(domain: Json) -> None:
    resources = domain.get("resources")
    requests, limits = _object(resources, "requests"), _object(resources, "limits")
    asked = requests.get("memory", limits.get("memory"))
    memory = domain.get("memory")
    if memory is None:
        memory = {}
    if asked is None:
        asked = _object(memory, "hugepages").get("pageSize") or None
    if asked is not None and isinstance(memory, dict) and memory.get("guest") is None:
        domain["memory"] = {**memory, "guest": asked}


def _default_pull_policies(spec: Json) -> None:
    boot = _object(_object(_object(spec, "domain"), "firmware"), "kernelBoot")
    images = [volume.get("containerDisk") for volume in _objects(spec.get("volumes"))]
    for disk in (*images, boot.get("container")):
        image = disk.get("image") if isinstance(disk, dict) else None
        if (
            isinstance(disk, dict)
            and isinstance(image, str)
            and _is_unset(disk.get("imagePullPolicy"))
        ):
            moving = image.endswith(":latest") or (":" not in image and "@" not in image)
            disk["imagePullPolicy"] = "Always" if moving else "IfNotPresent"


def _default_buses(spec: Json) -> None:
    given = spec.get("architecture")
    architecture = given if isinstance(given, str) else ""
    hotpluggable = _hotpluggable(spec)
    for disk in _objects(_object(spec["domain"], "devices").get("disks")):
        if not any(disk.get(target) is not None for target in DISK_TARGETS):
            disk["disk"] = {}
        for name in DISK_TARGETS:
            target = disk.get(name)
            if isinstance(target, dict) and _is_unset(target.get("bus")):
                may_go = disk.get("name") in hotpluggable
                target["bus"] = default_bus(name, architecture, hotpluggable=may_go)
        cdrom = disk.get("cdrom")
        if isinstance(cdrom, dict):
            if cdrom.get("readonly") is None:
                cdrom["readonly"] = True
            if _is_unset(cdrom.get("tray")):
                cdrom["tray"] = "closed"


def _hotpluggable(spec: Json) -> list[str]:
    """The names of the volumes that may come and go while the guest runs."""
    return _names(
        [
            volume
            for volume in _objects(spec.get("volumes"))
            if any(
                _object(volume, source).get("hotpluggable") is True
                for source in ("persistentVolumeClaim", "dataVolume")
            )
        ]
    )


def _object(value: Any, key: str) -> Json:
    """The object under a key, an empty one when there is none."""
    child = value.get(key) if isinstance(value, dict) else None
    return child if isinstance(child, dict) else {}


def _room(value: Json | None, key: str) -> Json | None:
    """The object under a key, made when there is nothing; None when something else stands there."""
    if value is None:
        return None
    if value.get(key) is None:
        value[key] = {}
    child = value[key]
    return child if isinstance(child, dict) else None


def _objects(value: Any) -> list[Json]:
    """The objects in a list; nothing when it is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _names(items: list[Json]) -> list[str]:
    names_given = (item.get("name") for item in items)
    return [name for name in names_given if isinstance(name, str)]


def _is_unset(value: Any) -> bool:
    """Left out, null or empty: what a client that knows the type writes for a text it does not set."""
    return value is None or value == ""


def _of_architecture(table: Mapping[str, str], spec: Json, otherwise: str) -> str:
    architecture = spec["architecture"]
    return table.get(architecture, otherwise) if isinstance(architecture, str) else otherwise
