"""The CustomResourceDefinitions podvisor serves, as data.

Invariant: VirtualMachine is the only kind that needs a conversion webhook; all others have one schema in
all their versions, so that the API server converts them alone, whatever runs or does not.
"""

from typing import Any

from podvisor_common.api import clone, export, pool, snapshot, v1, v1alpha1
from podvisor_common.api.base import ApiStruct
from podvisor_common.api.clone import names as clone_names
from podvisor_common.api.export import names as export_names
from podvisor_common.api.schema import object_schema
from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.api.v1 import names

Manifest = dict[str, Any]

CONVERSION_PATH = "/convert"
_DEPRECATION = "kubevirt.io/v1alpha3 is deprecated, use kubevirt.io/v1"
_POOL_DEPRECATION = "pool.kubevirt.io/v1alpha1 is deprecated, use pool.kubevirt.io/v1beta1"
_SNAPSHOT_DEPRECATION = (
    "snapshot.kubevirt.io/v1alpha1 is deprecated, use snapshot.kubevirt.io/v1beta1"
)
_EXPORT_DEPRECATION = "export.kubevirt.io/v1beta1 is deprecated, use export.kubevirt.io/v1"
_CLONE_DEPRECATION = "clone.kubevirt.io/v1alpha1 is deprecated, use clone.kubevirt.io/v1beta1"
# What the API server reads and writes for `kubectl scale` and autoscalers.
_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.labelSelector",
}
_SELECTOR_RULES = [
    {
        "rule": "(has(self.matchLabels) && size(self.matchLabels) > 0)"
        " || (has(self.matchExpressions) && size(self.matchExpressions) > 0)",
        "message": "must name at least one requirement, for an empty selector is every object's",
    }
]
_IMMUTABLE_RULES = [{"rule": "self == oldSelf", "message": "spec is immutable after creation"}]
_RUN_STRATEGY_RULES = [
    {
        "rule": "!(has(self.running) && has(self.runStrategy))",
        "message": "Running and RunStrategy are mutually exclusive",
        "fieldPath": ".running",
    },
    {
        "rule": "has(self.running) || has(self.runStrategy)",
        "message": "RunStrategy must be specified",
        "fieldPath": ".runStrategy",
        "reason": "FieldValueRequired",
    },
]


def all_crds() -> dict[str, Manifest]:
    """Every definition, by its plural name."""
    return {
        "virtualmachines": _virtual_machines(),
        "virtualmachineinstances": _virtual_machine_instances(),
        "virtualmachineinstancereplicasets": _replica_sets(),
        "virtualmachinepools": _pools(),
        "virtualmachinesnapshots": _snapshots(),
        "virtualmachinesnapshotcontents": _snapshot_contents(),
        "virtualmachinerestores": _restores(),
        "virtualmachineexports": _exports(),
        "virtualmachineclones": _clones(),
        "kubevirts": _kubevirts(),
    }


def _column(name: str, json_path: str, type_: str = "string", **more: Any) -> Manifest:
    return {"name": name, "type": type_, "jsonPath": json_path, **more}


def _condition_column(name: str, type_: str, **more: Any) -> Manifest:
    return _column(name, f".status.conditions[?(@.type=='{type_}')].status", **more)


_AGE = _column("Age", ".metadata.creationTimestamp", "date")


_SET_COLUMNS = [
    _column("Desired", ".spec.replicas", "integer", description="How many there shall be"),
    _column("Current", ".status.replicas", "integer", description="How many there are"),
    _column("Ready", ".status.readyReplicas", "integer", description="How many are ready"),
    _AGE,
]


def _version(
    name: str, kind: type[ApiStruct], columns: list[Manifest], *, storage: bool = False
) -> Manifest:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": object_schema(kind)},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }


def _deprecated(version: Manifest, warning: str) -> Manifest:
    return {**version, "deprecated": True, "deprecationWarning": warning}


def _both_versions(kind: type[ApiStruct], columns: list[Manifest]) -> list[Manifest]:
    """v1, which is stored, and v1alpha3 with the same schema."""
    old = _deprecated(_version("v1alpha3", kind, columns), _DEPRECATION)
    return [_version("v1", kind, columns, storage=True), old]


def _definition(
    kind: str,
    plural: str,
    short_names: list[str],
    versions: list[Manifest],
    label: str = names.APP_LABEL,
    group: str = names.GROUP,
) -> Manifest:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "labels": {label: ""}},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": short_names,
                "categories": ["all"],
            },
            "conversion": {"strategy": "None"},
            "versions": versions,
        },
    }


def _virtual_machines() -> Manifest:
    columns = [
        _AGE,
        _column("Status", ".status.printableStatus", description="The state in one word"),
        _condition_column("Ready", "Ready"),
        _column("Node", ".status.nodeName", description="Node that runs the machine"),
        _column("IP", ".status.interfaces[0].ipAddress", description="Address of the machine"),
    ]
    first_columns = [
        _AGE,
        _column("Phase", ".status.phase", description="Where the machine is in its life"),
        _column("Node", ".status.nodeName", description="Node that runs the machine"),
        _column("IP", ".status.interfaces[0].ipAddress", description="Address of the machine"),
    ]
    versions = _both_versions(v1.VirtualMachine, columns)
    for version in versions:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["x-kubernetes-validations"] = _RUN_STRATEGY_RULES
    versions.append(_version("v1alpha1", v1alpha1.VirtualMachine, first_columns))
    crd = _definition(names.VIRTUAL_MACHINE, "virtualmachines", ["vm", "vms"], versions)
    # The controller sets the caBundle; until then only v1 can be served.
    crd["spec"]["conversion"] = {
        "strategy": "Webhook",
        "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {
                "service": {
                    "namespace": "kubevirt",
                    "name": "virt-controller",
                    "path": CONVERSION_PATH,
                    "port": 443,
                }
            },
        },
    }
    return crd


def _virtual_machine_instances() -> Manifest:
    columns = [
        _AGE,
        _column("Phase", ".status.phase", description="Where the instance is in its life"),
        _column("IP", ".status.interfaces[0].ipAddress", description="Address of the instance"),
        _column("NodeName", ".status.nodeName", description="Node that runs the instance"),
        _condition_column("Ready", "Ready"),
        _condition_column("Live-Migratable", "LiveMigratable", priority=1),
        _condition_column("Paused", "Paused", priority=1),
    ]
    versions = _both_versions(v1.VirtualMachineInstance, columns)
    for version in versions:
        version["selectableFields"] = [{"jsonPath": ".status.nodeName"}]
    return _definition(
        names.VIRTUAL_MACHINE_INSTANCE, "virtualmachineinstances", ["vmi", "vmis"], versions
    )


def _replica_sets() -> Manifest:
    versions = _both_versions(v1.VirtualMachineInstanceReplicaSet, _SET_COLUMNS)
    for version in versions:
        _make_scalable(version)
    return _definition(
        names.REPLICA_SET, "virtualmachineinstancereplicasets", ["vmirs", "vmirss"], versions
    )


def _pools() -> Manifest:
    old = _version("v1alpha1", pool.VirtualMachinePool, _SET_COLUMNS)
    versions = [
        _version("v1beta1", pool.VirtualMachinePool, _SET_COLUMNS, storage=True),
        _deprecated(old, _POOL_DEPRECATION),
    ]
    for version in versions:
        _make_scalable(version)
    short_names = ["vmpool", "vmpools"]
    return _definition(
        names.POOL, "virtualmachinepools", short_names, versions, group=names.POOL_GROUP
    )


def _make_scalable(version: Manifest) -> None:
    """Give a version of a set the scale subresource, and let its selector not be empty."""
    version["subresources"]["scale"] = _SCALE
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["selector"]["x-kubernetes-validations"] = _SELECTOR_RULES


def _snapshots() -> Manifest:
    columns = [
        _column("SourceKind", ".spec.source.kind", description="Kind of what is kept"),
        _column("SourceName", ".spec.source.name", description="Name of what is kept"),
        _column("Phase", ".status.phase", description="How far it is"),
        _column("ReadyToUse", ".status.readyToUse", "boolean"),
        _column("CreationTime", ".status.creationTime", "date"),
        _column("Error", ".status.error.message"),
    ]
    definition = _snapshot_definition(
        snapshot_names.SNAPSHOT,
        "virtualmachinesnapshots",
        ["vmsnapshot", "vmsnapshots"],
        snapshot.VirtualMachineSnapshot,
        columns,
    )
    return _immutable(definition)


def _snapshot_contents() -> Manifest:
    columns = [
        _column("ReadyToUse", ".status.readyToUse", "boolean"),
        _column("CreationTime", ".status.creationTime", "date"),
        _column("Error", ".status.error.message"),
    ]
    return _snapshot_definition(
        snapshot_names.SNAPSHOT_CONTENT,
        "virtualmachinesnapshotcontents",
        ["vmsnapshotcontent", "vmsnapshotcontents"],
        snapshot.VirtualMachineSnapshotContent,
        columns,
    )


def _restores() -> Manifest:
    columns = [
        _column("TargetKind", ".spec.target.kind", description="Kind of what is restored"),
        _column("TargetName", ".spec.target.name", description="Name of what is restored"),
        _column("Complete", ".status.complete", "boolean"),
        _column("RestoreTime", ".status.restoreTime", "date"),
    ]
    definition = _snapshot_definition(
        snapshot_names.RESTORE,
        "virtualmachinerestores",
        ["vmrestore", "vmrestores"],
        snapshot.VirtualMachineRestore,
        columns,
    )
    return _immutable(definition)


def _snapshot_definition(
    kind: str,
    plural: str,
    short_names: list[str],
    struct: type[ApiStruct],
    columns: list[Manifest],
) -> Manifest:
    """A kind of snapshot.kubevirt.io: v1beta1, which is stored, and v1alpha1 with the same schema."""
    old = _version("v1alpha1", struct, columns)
    versions = [
        _version("v1beta1", struct, columns, storage=True),
        _deprecated(old, _SNAPSHOT_DEPRECATION),
    ]
    return _definition(kind, plural, short_names, versions, group=snapshot_names.GROUP)


def _clones() -> Manifest:
    columns = [
        _column("Phase", ".status.phase", description="How far it is"),
        _column("SourceVirtualMachine", ".spec.source.name", description="Name of the source"),
        _column("TargetVirtualMachine", ".status.targetName", description="Name of the target"),
    ]
    old = _version("v1alpha1", clone.VirtualMachineClone, columns)
    versions = [
        _version("v1beta1", clone.VirtualMachineClone, columns, storage=True),
        _deprecated(old, _CLONE_DEPRECATION),
    ]
    return _immutable(
        _definition(
            clone_names.CLONE,
            "virtualmachineclones",
            ["vmclone", "vmclones"],
            versions,
            group=clone_names.GROUP,
        )
    )


def _immutable(definition: Manifest) -> Manifest:
    """Let the specification stay what it is made with."""
    for version in definition["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["x-kubernetes-validations"] = _IMMUTABLE_RULES
    return definition


def _exports() -> Manifest:
    columns = [
        _column("SourceKind", ".spec.source.kind", description="Kind of what is exported"),
        _column("SourceName", ".spec.source.name", description="Name of what is exported"),
        _column("Phase", ".status.phase", description="How far it is"),
    ]
    old = _version("v1beta1", export.VirtualMachineExport, columns)
    versions = [
        _version("v1", export.VirtualMachineExport, columns, storage=True),
        _deprecated(old, _EXPORT_DEPRECATION),
    ]
    definition = _definition(
        export_names.EXPORT,
        "virtualmachineexports",
        ["vmexport", "vmexports"],
        versions,
        group=export_names.GROUP,
    )
    return _immutable(definition)


def _kubevirts() -> Manifest:
    columns = [_AGE, _column("Phase", ".status.phase")]
    versions = _both_versions(v1.KubeVirt, columns)
    return _definition(
        names.KUBEVIRT, "kubevirts", ["kv", "kvs"], versions, label="operator.kubevirt.io"
    )
