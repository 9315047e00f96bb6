"""docs/compatibility.md from the API's types: what of KubeVirt's API is served, what is refused, what differs.

Invariant: fields and versions come from the types and the table of unsupported fields, never from hand-written lists; only
the differences that no type can tell are written here.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import inspect as types

from podvisor_common.api import clone, export, pool, snapshot, v1, v1alpha1
from podvisor_common.api.crds import all_crds
from podvisor_common.api.schema import json_fields
from podvisor_common.api.unsupported import UNSUPPORTED, UNSUPPORTED_SETTINGS
from podvisor_common.api.v1 import names

_HEADER = (
    "<!-- Generated from libs/common/podvisor_common/api by `make generate`; do not edit. -->\n"
)

_INTRODUCTION = """# Compatibility with KubeVirt

podvisor serves KubeVirt's API: manifests are taken as they are, and a field that is not implemented is **refused by its path**
(`spec.template.spec.domain.devices.gpus is not supported yet`) rather than ignored. A field that KubeVirt does not have
either is refused by the API server under strict validation, which is kubectl's default, and answered with a warning otherwise."""

_SETTINGS = """The one KubeVirt object, `kubevirt` in the install namespace, is read live: what is changed in it holds for the next instance that
is made, `evictionStrategy` also for the next eviction of those that say nothing themselves, and `logVerbosity.virtController` at once. No component is restarted. Of
the feature gates `HostDisk` counts, the others are accepted, whatever they are. A setting that is not implemented is refused by its path, by the API server alone, so that the settings can
be written while podvisor is down."""

_DIFFERENCES = """## Differences that a client can see

- VirtualMachineInstance has a `status` subresource: a write to the object itself does not change its status.
- `status.interfaces` is replaced as a whole by its one writer; conditions and `phaseTransitionTimestamps` are maps by type and phase.
- VirtualMachine shows `status.nodeName`, `status.phase` and `status.interfaces`, and `kubectl get vm` prints node and address.
- `status.volumeStatus` names device and size of every volume, and with phase `UnMountedFromPod` the pod that it is about
  (`unmountedPodUID`).
- `status.guestOSInfo` is there while an agent is connected. `status.fsFreezeStatus` tells what was asked of podvisor: a guest that
  has its file systems stand still by itself is not asked for it.
- A probe names its port by a number. Probes by the agent pass while the guest's file systems stand still by request.
- `LiveMigratable` is False with reason `LiveMigrationNotSupported`. What the node or libvirt refuses is `Synchronized` False with a
  reason of its own (`DomainRejected`, `StartFailed`, `InvalidDisk`, `MissingSecret`, `NoSpace`, `NetworkNotReady`, ...) and the words of
  whoever refused in the message, where KubeVirt has one reason for all of it.
- An instance that is being deleted stays `Ready` until its guest has ended; its machine is not ready from the first moment on
  (`PodTerminating`). A machine on a node that does not answer is `Unknown`, not `Running`.
- Labels and annotations are those that are known before an object is made. An instance and its pod have no `kubevirt.io/nodeName`:
  select by field, `kubectl get vmi --field-selector status.nodeName=NODE`. What tells of migration, of a freeze before a backup or
  of the versions that KubeVirt has stored an object in is not there.
- A start is told by the events `SuccessfulCreate` and `Started`, an end by `SuccessfulDelete` and `Stopped`; there are no `Created`,
  `ShuttingDown` and `Deleted` beside them.
- `status.startTimeline` of an instance names the steps of its start, each in milliseconds from creation.
- A VirtualMachine applied as v1alpha1 runs once (`runStrategy: Once`), keeps its specification literally, and can be read as v1 and
  v1alpha3; what only one version can say rides in the annotation `podvisor.kubevirt.io/conversion`.
- A node that does not answer makes `Ready` False after 20 s (`NodeUnresponsive`) and leaves the phase alone. An instance is Failed, and
  replaced, only when its handler or kubelet says that the guest has ended, or when the node is deleted or tainted out-of-service.
- Container disks are mounted by the kubelet as OCI image volumes, without an init container or a sidecar, where the API server takes
  them; its nodes must be able to mount them then. Elsewhere a pod has KubeVirt's `container-disk-binary` and `volume<name>`, all of
  them init containers, and its containers share their process ids.
- A missing Secret or a broken disk image is the instance's `Synchronized` condition, and the start goes on when it is healed.
- Of two instances with one PersistentVolumeClaim, of which one writes to it and the disks are not `shareable`, the second gets no pod
  until the first has ended: `Synchronized` is False, reason `VolumeInUse`.
- Edits of a running machine's template that add or remove volumes which are `hotpluggable`, with their disks, or the medium of a CD-ROM
  drive, reach its guest, without a feature gate. Where a name gets another claim or disk, the guest lets go of the first one before. A claim that
  is missing or that another machine has leaves the guest alone: `Synchronized` is False, and nothing is attached until it can be.
- The chart sets `defaultNetworkInterface: masquerade`; without the chart's value it is `bridge`, as in KubeVirt. `passtBinding` needs no
  feature gate, takes no `dhcpOptions`, and adds 32 MiB to the pod's memory, or 304 MiB where no `ports` are listed. An interface that takes a hardware or PCI address of another one is refused.
- An interface with `state: absent` leaves the instance, and stays in the machine's template until somebody takes it out. Multus is asked again for the
  networks of a running launcher pod by the entries that are podvisor's; those of others keep their places, and one that names no interface is
  written with the name it has when one of podvisor's goes from before it.
- An entry of `status.volumeRequests` becomes an edit of the template. One that cannot be carried out is dropped with the event
  `HotPlugVolumeError`. A volume has an attachment pod of its own, which belongs to the launcher pod.
- `addvolume` and `removevolume` refuse fields that there are not, and `bootOrder` and `dedicatedIOThread`, which a guest has from its start or
  not at all. What they attach to an instance alone stays until it is detached from it, whatever becomes of its machine's template.
- An edit is refused for what it brings, and not for what was so before under rules that were less strict.
- `persistentVolumeClaimInfo` of a volume's status has no `filesystemOverhead`: what a file system needs for itself is not estimated.
- A guest has a memory balloon only with `autoattachMemBalloon: true`, and the words of the emulator in its SMBIOS table where neither the settings
  nor the machine say other ones. Variables of a UEFI firmware and the state of a TPM live as long as the pod: `persistent` is refused. What KVM alone
  has (`pvspinlock`, `kvm.hidden`, `hyperv`, `apic.endOfInterrupt`, the timers `kvm` and `hyperv`) is left out where guests are emulated.
- `features.apic.enabled: false` and `clock.timer.hpet.tickPolicy` are passed on to libvirt and change nothing for the guest: its board always has
  an APIC, and QEMU's HPET has one way to tick.
- `rebootPolicy`, `panicDevices` and `ioThreadsPolicy` need no feature gate. `kernelBoot` needs a `kernelPath`, `ioThreads` the policy
  `supplementalPool`, and a page of `hugepages` is of 2Mi or 1Gi.
- User-data that stands in the manifest as clear text is admitted with a warning.
- A claim, or a file of the node, that is written to is behind one disk of a machine, and a second one is refused. So are labels of more
  than 32 characters, for which an ISO image has no room, a `lun` that is not on `scsi`, and `io: native` or `shareable` with a cache.
- A hard disk that names no bus is on `scsi` when its volume is hotpluggable. A `resourceFieldRef` of a `downwardAPI` volume is about the
  container `compute`.
- The annotation `podvisor.io/raw-volumes` of an instance or a template names volumes of claims and node disks, between commas, whose images
  are raw whatever their first bytes look like.
- Launcher pods hold no capability, and no token but the one that a `serviceAccount` volume gives to the guest; they have the containers
  `compute` and `guest-console-log`, and the latter's log is the serial console.
- A request to start waits for an instance that is on its way out instead of being dropped, and to halt a machine drops what was
  asked before instead of letting the second half of a restart start it again.
- `evictionStrategy: LiveMigrateIfPossible` is `None`, and `LiveMigrate` is refused, as long as nothing can be migrated. The webhook of
  evictions has `failurePolicy: Fail` in place of a PodDisruptionBudget for each instance, and is asked about launcher pods only.
- The names of a VirtualMachineInstanceReplicaSet's instances follow from its UID, so that none is made twice. Those that are missed least
  are deleted first. A selector that is empty or names a label of podvisor's own is refused, and an instance that had ended before it
  was the set's is not adopted.
- The settings object `KubeVirt` is made from the chart's values. What a person changes in it stays as that person wrote it.
- A VirtualMachinePool tells the revision of its template by a digest instead of its generation, and keeps no ControllerRevisions: the
  label `kubevirt.io/vm-pool-revision-name` says of a machine what of the pool it was made from, and of an instance what of that a guest
  can notice. An instance whose machine changed in nothing that a guest can notice is not restarted.
- A proactive update restarts machines by requests to stop and start, so that those under `Manual` and `RerunOnFailure` run again; those
  under `Once` are left alone. A pool has no finalizer, and adopts matching machines with a name of its own that nobody manages.
- No file system is frozen for a snapshot: those of a running guest are indicated as `NoGuestAgent`. Of several VolumeSnapshotClasses with the driver
  of a claim's StorageClass, of which none is the default one, the first by name is taken. Only claims that will be in a snapshot have to be bound.
- Of a claim's file system an export serves `raw` and `gzip` where there is a regular file `disk.img`, else `dir` and `tar.gz`; annotations of CDI are not
  looked at. A machine that is to start with a claim which is being exported waits for the end of the export (`VolumeInUse`); pods that only read a claim do
  not keep it from being exported. There is no virt-exportproxy, and so no external links: clients outside of the cluster use
  `virtctl vmexport --port-forward` or `kubectl port-forward`.
- What can never come of a restore is its condition `Failure`, where KubeVirt tries again forever: a snapshot that failed, patches that cannot be
  applied, a target that is another machine than the one that was kept. A claim that exists and is not the restore's own is never taken for
  it, and `InPlace` deletes none that another machine or instance has.
- A machine that a restore makes beside the one that was kept has no MAC address, firmware UUID or serial of that one, unless a patch gives it
  other ones.
- A name for a clone's target is made up by the controller, and stands in its status alone. A filter is a key or the beginning of keys before
  a `*`, and no regular expression.
- A launcher pod becomes ready when its guest runs, and not as soon as its containers do: no Service leads to a machine that is still being started.
- Of `subresources.kubevirt.io`, `start`, `stop` and `restart` of machines, `addvolume` and `removevolume` are served; console, VNC, pause and the
  others are not yet. Neither is live migration.
- What a verb was answered with success for counts at once, whether or not it is carried out: a machine that was started a moment ago can be stopped or
  restarted, and one that was stopped can be started, where KubeVirt looks at an instance that is not there yet or still there, and refuses. A
  `Stop` request without a `uid` stops whatever instance there is. Options that are no field of theirs are refused (400)."""


def compatibility_page() -> str:
    """The whole page, in Markdown."""
    parts = (
        _INTRODUCTION,
        _versions(),
        _run_strategies(),
        _fields(),
        _pools(),
        _snapshots(),
        _first_version(),
        _status_fields(),
        _settings(),
        _DIFFERENCES,
    )
    return _HEADER + "\n" + "\n\n".join(parts) + "\n"


def _versions() -> str:
    rows = []
    for definition in all_crds().values():
        versions = [
            f"{version['name']} (stored)" if version["storage"] else version["name"]
            for version in definition["spec"]["versions"]
        ]
        rows.append((definition["spec"]["names"]["kind"], ", ".join(versions)))
    return "## Kinds and versions\n\n" + _table(("Kind", "Versions"), rows)


def _run_strategies() -> str:
    served = [s for s in names.RunStrategy if s in names.SUPPORTED_RUN_STRATEGIES]
    refused = [s for s in names.RunStrategy if s not in names.SUPPORTED_RUN_STRATEGIES]
    return f"## Run strategies\n\nServed: {_code(served)}. Refused: {_code(refused)}."


def _fields() -> str:
    """What a specification may say, by place; every struct once, where it is met first."""
    rows = [
        (f"`{path}`", _code(json_fields(struct)), _code(UNSUPPORTED.get(struct, ())))
        for path, struct in _structs(v1.VirtualMachineSpec, "spec")
    ]
    of_sets = _code(json_fields(v1.VirtualMachineInstanceReplicaSetSpec))
    note = (
        "A VirtualMachineInstance has under `spec` what a VirtualMachine has under `spec.template.spec`, and a"
        f" VirtualMachineInstanceReplicaSet has the same `spec.template` and beside it all there is: {of_sets}."
    )
    return f"## Fields of v1 and v1alpha3\n\n{note}\n\n" + _table(
        ("Place", "Served", "Refused"), rows
    )


def _pools() -> str:
    """What a pool may say beside the machine it is made of."""
    of_machines = {struct for _, struct in _structs(v1.VirtualMachineSpec, "spec")}
    rows = [
        (f"`{path}`", _code(json_fields(struct)), _code(UNSUPPORTED.get(struct, ())))
        for path, struct in _structs(pool.VirtualMachinePoolSpec, "spec")
        if struct not in of_machines
    ]
    refused = [s for s in names.StatePreservation if s not in names.SUPPORTED_STATE_PRESERVATIONS]
    note = (
        "`spec.virtualMachineTemplate.spec` is the `spec` of a VirtualMachine. Refused values of `statePreservation`:"
        f" {_code(refused)}."
    )
    return f"## Fields of VirtualMachinePool\n\n{note}\n\n" + _table(
        ("Place", "Served", "Refused"), rows
    )


def _snapshots() -> str:
    """What snapshots, restores, clones and exports may say."""
    rows = [
        (kind, f"`{path}`", _code(json_fields(struct)))
        for kind, spec in (
            ("VirtualMachineSnapshot", snapshot.VirtualMachineSnapshotSpec),
            ("VirtualMachineRestore", snapshot.VirtualMachineRestoreSpec),
            ("VirtualMachineClone", clone.VirtualMachineCloneSpec),
            ("VirtualMachineExport", export.VirtualMachineExportSpec),
        )
        for path, struct in _structs(spec, "spec")
    ]
    return "## Fields of snapshots, restores, clones and exports\n\n" + _table(
        ("Kind", "Place", "Served"), rows
    )


def _first_version() -> str:
    rows = [
        (f"`{path}`", _code(json_fields(struct)))
        for path, struct in _structs(v1alpha1.VirtualMachineSpec, "spec")
    ]
    note = "What v1 refuses is refused here as well, under the path it has in v1alpha1."
    return f"## Fields of v1alpha1\n\n{note}\n\n" + _table(("Place", "Known"), rows)


def _status_fields() -> str:
    rows = [
        (kind.__name__.removesuffix("Status"), _code(UNSUPPORTED[kind]))
        for kind in (v1.VirtualMachineStatus, v1.VirtualMachineInstanceStatus)
    ]
    return "## Status\n\n" + _table(("Kind", "Known by name, never filled in"), rows)


def _settings() -> str:
    """What the KubeVirt object may say."""
    rows = [
        (
            f"`{path}`",
            _code(json_fields(struct)),
            _code(tuple(UNSUPPORTED_SETTINGS.get(struct, ()))),
        )
        for path, struct in _structs(v1.KubeVirtSpec, "spec")
    ]
    return f"## Settings\n\n{_SETTINGS}\n\n" + _table(("Place", "Known", "Refused"), rows)


def _structs(struct: type[msgspec.Struct], path: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """`struct` and the structs below it that the API of podvisor itself defines, each with its path."""
    waiting: list[tuple[str, type[msgspec.Struct]]] = [(path, struct)]
    seen = {struct}
    while waiting:
        path, struct = waiting.pop(0)
        yield path, struct
        info = types.type_info(struct)
        assert isinstance(info, types.StructType)
        for field in info.fields:
            for below, mark in _below(field.type):
                if below not in seen and below.__module__ != "podvisor_common.api.meta":
                    seen.add(below)
                    waiting.append((f"{path}.{field.encode_name}{mark}", below))


def _below(kind: types.Type) -> Iterator[tuple[type[msgspec.Struct], str]]:
    """The structs directly inside a field, with `[]` where they are items of a list."""
    if isinstance(kind, types.Metadata):
        yield from _below(kind.type)
    elif isinstance(kind, types.UnionType):
        for member in kind.types:
            yield from _below(member)
    elif isinstance(kind, types.ListType):
        yield from ((struct, f"[]{mark}") for struct, mark in _below(kind.item_type))
    elif isinstance(kind, types.StructType):
        yield kind.cls, ""


def _code(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
