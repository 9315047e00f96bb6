"""kubevirt.io/v1alpha1: the first VirtualMachine, one object for the machine and its single run.

A disk names its volume, so the two names may differ. Served by conversion from and to v1; only the schema is made
from these types.
"""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import Conditions, ObjectMeta
from podvisor_common.api.quantity import Quantity
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.instance import NetworkInterfaceStatus
from podvisor_common.api.v1.volumes import CloudInitNoCloud

_NAME = {"minLength": 1, "maxLength": 63}


class ResourceRequirements(ApiStruct, frozen=True):
    """Compute resources of the pod that carries the guest."""

    requests: Annotated[
        dict[str, Quantity] | None, doc("Least amounts; `memory` is the guest's memory.")
    ] = None


class CPU(ApiStruct, frozen=True):
    """The guest's processors."""

    cores: Annotated[int | None, doc("Cores. 1 by default.", minimum=1)] = None


class DiskTarget(ApiStruct, frozen=True):
    """A device of a guest."""

    bus: Annotated[str, doc("Bus of the device, for example `virtio`.")] = ""
    readonly: Annotated[bool, doc("The guest cannot write to it.")] = False


class Disk(ApiStruct, frozen=True):
    """A block device of the guest."""

    name: Annotated[str, doc("Name of the disk.", **_NAME)]
    volume_name: Annotated[str, doc("Name of the volume behind the disk.", **_NAME)]
    disk: Annotated[DiskTarget | None, doc("Attach the volume as a hard disk.")] = None
    cdrom: Annotated[DiskTarget | None, doc("Attach the volume as a CD-ROM.")] = None
    lun: Annotated[DiskTarget | None, doc("Attach the volume as a SCSI unit.")] = None


class Devices(ApiStruct, frozen=True):
    """The guest's devices."""

    disks: Annotated[list[Disk] | None, doc("Block devices.", maxItems=256)] = None


class Domain(ApiStruct, frozen=True):
    """The virtual hardware."""

    resources: Annotated[ResourceRequirements | None, doc("Compute resources of the pod.")] = None
    cpu: Annotated[CPU | None, doc("Processors.")] = None
    devices: Annotated[Devices | None, doc("Devices.")] = None


class RegistryDisk(ApiStruct, frozen=True):
    """A disk image inside a container image. What the guest writes is gone when it stops."""

    image: Annotated[str, doc("Container image with the disk in `/disk/`.")]
    image_pull_secret: Annotated[str, doc("Name of the Secret for the registry.")] = ""


class PersistentVolumeClaimSource(ApiStruct, frozen=True):
    """A claim in the same namespace."""

    claim_name: Annotated[str, doc("Name of the PersistentVolumeClaim.")]
    read_only: Annotated[bool, doc("Nothing is written to it.")] = False


class EphemeralSource(ApiStruct, frozen=True):
    """A copy-on-write view of a claim; what the guest writes is gone when it stops."""

    persistent_volume_claim: Annotated[
        PersistentVolumeClaimSource | None, doc("The claim that is only read.")
    ] = None


class Volume(ApiStruct, frozen=True):
    """Where the content of a disk comes from: exactly one source."""

    name: Annotated[str, doc("Name of the volume; a disk refers to it.", **_NAME)]
    registry_disk: Annotated[RegistryDisk | None, doc("Disk in a container image.")] = None
    cloud_init_no_cloud: Annotated[
        CloudInitNoCloud | None, doc("NoCloud data source for cloud-init.")
    ] = None
    persistent_volume_claim: Annotated[
        PersistentVolumeClaimSource | None, doc("A PersistentVolumeClaim.")
    ] = None
    ephemeral: Annotated[EphemeralSource | None, doc("Copy-on-write over a claim.")] = None


class VirtualMachineSpec(ApiStruct, frozen=True):
    """What the machine shall be. It is started once."""

    domain: Annotated[Domain, doc("The virtual hardware.")]
    volumes: Annotated[list[Volume] | None, doc("Sources of disks.", maxItems=256)] = None
    termination_grace_period_seconds: Annotated[
        int | None,
        doc(
            "How long the guest may take to shut down before it is destroyed, in seconds."
            " 30 by default.",
            minimum=0,
            format="int64",
        ),
    ] = None
    node_selector: Annotated[
        dict[str, str] | None, doc("Labels a node must have to run the machine.")
    ] = None


class VirtualMachineStatus(ApiStruct, frozen=True):
    """What is known of the machine."""

    phase: Annotated[str, doc("Where the machine is in its life.")] = ""
    node_name: Annotated[str, doc("Node that runs the machine.")] = ""
    interfaces: Annotated[
        list[NetworkInterfaceStatus] | None,
        doc("Network devices.", x_kubernetes_list_type="atomic"),
    ] = None
    conditions: Conditions = None


class VirtualMachine(ApiObject, frozen=True):
    """A machine and its one run."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineSpec, doc("What the machine shall be.")]
    status: Annotated[VirtualMachineStatus, doc("What is known of it.")] = VirtualMachineStatus()
    api_version: str = names.API_VERSION_V1ALPHA1
    kind: str = names.VIRTUAL_MACHINE
