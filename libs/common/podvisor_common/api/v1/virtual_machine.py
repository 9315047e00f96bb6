"""VirtualMachine: a machine that lasts, and says when an instance of it runs."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import Conditions, ListMeta, ObjectMeta
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.disks import Disk
from podvisor_common.api.v1.instance import NetworkInterfaceStatus
from podvisor_common.api.v1.machine import VirtualMachineInstanceSpec
from podvisor_common.api.v1.volumes import DataVolumeSource, PersistentVolumeClaimSource


class VirtualMachineInstanceTemplateSpec(ApiStruct, frozen=True):
    """What instances are made from."""

    spec: Annotated[VirtualMachineInstanceSpec, doc("What an instance is made of.")]
    metadata: Annotated[
        ObjectMeta | None,
        doc("Labels and annotations of instances.", nullable=True),
    ] = None


class VirtualMachineSpec(ApiStruct, frozen=True):
    """What a machine shall be and when it shall run."""

    template: Annotated[VirtualMachineInstanceTemplateSpec, doc("What instances are made from.")]
    run_strategy: Annotated[
        str,
        doc(
            "When an instance runs. `Always`: whenever there is none, another is made. `Halted`:"
            " never. `Manual`: as requests in the status say. `Once`: one is made and never"
            " replaced. `RerunOnFailure`: one that failed is replaced, one that ended well or was"
            " stopped is not. Excludes `running`."
        ),
    ] = ""
    running: Annotated[
        bool | None,
        doc("Deprecated, use `runStrategy`: true is `Always`, false is `Halted`."),
    ] = None


class StartFailure(ApiStruct, frozen=True):
    """Starts that failed one after another."""

    consecutive_fail_count: Annotated[int, doc("How many.")] = 0
    last_failed_vmi_uid: Annotated[str, doc("UID of the last instance that failed.")] = ""
    retry_after_timestamp: Annotated[
        str | None, doc("When the next is tried.", format="date-time")
    ] = None


class VirtualMachineStateChangeRequest(ApiStruct, frozen=True):
    """Somebody's wish to have the machine started or stopped, independent of its run strategy."""

    action: Annotated[
        str, doc("`Start` a new instance or `Stop` the one of `uid`.", enum=["Start", "Stop"])
    ]
    data: Annotated[
        dict[str, str] | None,
        doc('`paused: "true"`: the guest of the new instance does not run before it is unpaused.'),
    ] = None
    uid: Annotated[
        str,
        doc(
            "UID of the instance to stop; without one whatever instance there is. A start that names"
            " one is podvisor's own: the new instance takes the place of that one, which failed."
        ),
    ] = ""


class HotplugVolumeSource(ApiStruct, frozen=True):
    """A volume that can be attached to a running guest: exactly one source."""

    persistent_volume_claim: Annotated[
        PersistentVolumeClaimSource | None, doc("A PersistentVolumeClaim.")
    ] = None
    data_volume: Annotated[DataVolumeSource | None, doc("The claim of a DataVolume.")] = None


class AddVolumeOptions(ApiStruct, frozen=True):
    """A volume to attach."""

    name: Annotated[str, doc("Name of the volume and its disk.", minLength=1, maxLength=63)]
    disk: Annotated[Disk | None, doc("How the guest sees it.")] = None
    volume_source: Annotated[HotplugVolumeSource | None, doc("Where its content comes from.")] = (
        None
    )
    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class RemoveVolumeOptions(ApiStruct, frozen=True):
    """A volume to detach."""

    name: Annotated[str, doc("Name of the volume.", minLength=1, maxLength=63)]
    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class StartOptions(ApiStruct, frozen=True):
    """How a machine is started."""

    paused: Annotated[bool, doc("The guest does not run before it is unpaused.")] = False
    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class StopOptions(ApiStruct, frozen=True):
    """How a machine is stopped."""

    grace_period: Annotated[
        int | None, doc("Seconds in which the guest may shut down, in place of its own.")
    ] = None
    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class RestartOptions(ApiStruct, frozen=True):
    """How a machine is restarted."""

    grace_period_seconds: Annotated[
        int | None, doc("0: the guest has no time to shut down. Nothing else is possible.")
    ] = None
    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class PauseOptions(ApiStruct, frozen=True):
    """How a guest is paused."""

    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class UnpauseOptions(ApiStruct, frozen=True):
    """How a guest goes on."""

    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class FreezeUnfreezeTimeout(ApiStruct, frozen=True):
    """For how long a guest's file systems stand still."""

    unfreeze_timeout: Annotated[
        str | None,
        doc("After how long they go on by themselves; `0s` for never, five minutes by default."),
    ] = None


class EvacuateCancelOptions(ApiStruct, frozen=True):
    """Which evacuation is taken back."""

    evacuation_node_name: Annotated[
        str, doc("The node that the instance was to leave; empty for any.")
    ] = ""
    dry_run: Annotated[list[str] | None, doc("`All`: only checked.")] = None


class VirtualMachineVolumeRequest(ApiStruct, frozen=True):
    """Somebody's wish to have a volume attached or detached: exactly one of the two."""

    add_volume_options: Annotated[AddVolumeOptions | None, doc("Attach a volume.")] = None
    remove_volume_options: Annotated[RemoveVolumeOptions | None, doc("Detach a volume.")] = None


class VolumeSnapshotStatus(ApiStruct, frozen=True):
    """Whether a snapshot of the machine has the content of a volume."""

    name: Annotated[str, doc("Name of the volume.")]
    enabled: Annotated[bool, doc("It has.")]
    reason: Annotated[str, doc("Why it does not have it, as a sentence for a person.")] = ""


class VirtualMachineStatus(ApiStruct, frozen=True):
    """What is known of a machine."""

    created: Annotated[bool, doc("There is an instance.")] = False
    ready: Annotated[bool, doc("The instance is ready.")] = False
    printable_status: Annotated[str, doc("The state in one word.", default="Stopped")] = ""
    phase: Annotated[str, doc("Phase of the latest instance. Beyond KubeVirt's API.")] = ""
    run_strategy: Annotated[str, doc("The run strategy in effect.")] = ""
    node_name: Annotated[str, doc("Node of the instance. Beyond KubeVirt's API.")] = ""
    interfaces: Annotated[
        list[NetworkInterfaceStatus] | None,
        doc(
            "Network devices of the instance. Beyond KubeVirt's API.",
            x_kubernetes_list_type="atomic",
        ),
    ] = None
    conditions: Conditions = None
    volume_requests: Annotated[
        list[VirtualMachineVolumeRequest] | None,
        doc(
            "Volumes to attach and detach. A request that was fulfilled is removed.",
            x_kubernetes_list_type="atomic",
        ),
    ] = None
    state_change_requests: Annotated[
        list[VirtualMachineStateChangeRequest] | None,
        doc(
            "What is to be done, one after another. A request that was fulfilled is removed.",
            maxItems=16,
            x_kubernetes_list_type="atomic",
        ),
    ] = None
    snapshot_in_progress: Annotated[
        str | None, doc("Name of the VirtualMachineSnapshot that is being taken of it.")
    ] = None
    restore_in_progress: Annotated[
        str | None, doc("Name of the VirtualMachineRestore that it is the target of.")
    ] = None
    volume_snapshot_statuses: Annotated[
        list[VolumeSnapshotStatus] | None,
        doc(
            "Of which volumes a snapshot has the content.",
            x_kubernetes_list_type="atomic",
        ),
    ] = None
    start_failure: Annotated[
        StartFailure | None, doc("Starts that failed one after another.", nullable=True)
    ] = None
    observed_generation: Annotated[
        int | None, doc("Generation that the instance follows.", format="int64")
    ] = None
    desired_generation: Annotated[
        int | None, doc("Generation of the specification.", format="int64")
    ] = None


class VirtualMachine(ApiObject, frozen=True):
    """A machine that lasts: it makes instances of itself as its run strategy says."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineSpec, doc("What the machine shall be.")]
    status: Annotated[VirtualMachineStatus, doc("What is known of it.")] = VirtualMachineStatus()
    api_version: str = names.API_VERSION
    kind: str = names.VIRTUAL_MACHINE

    @property
    def effective_run_strategy(self) -> str:
        """The run strategy, whichever of the two fields says it."""
        if self.spec.run_strategy:
            return self.spec.run_strategy
        return names.RunStrategy.ALWAYS if self.spec.running else names.RunStrategy.HALTED


class VirtualMachineList(ApiStruct, frozen=True):
    """A list answer."""

    metadata: ListMeta
    items: list[VirtualMachine]
