"""Volumes of a machine: where the content of its disks comes from. And the public keys that go with cloud-init's data."""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc
from podvisor_common.api.quantity import Quantity

_NAME = {"minLength": 1, "maxLength": 63}


class ContainerDisk(ApiStruct, frozen=True):
    """A disk image inside a container image. What the guest writes is gone when it stops."""

    image: Annotated[str, doc("Container image with the disk in `/disk/`.")]
    path: Annotated[
        str, doc("Absolute path of the disk in the image. The only file in `/disk/` by default.")
    ] = ""
    image_pull_policy: Annotated[
        str, doc("`Always`, `IfNotPresent` or `Never`. Depends on the tag by default.")
    ] = ""
    image_pull_secret: Annotated[str, doc("Name of the Secret for the registry.")] = ""


class LocalObjectReference(ApiStruct, frozen=True):
    """An object in the same namespace."""

    name: Annotated[str, doc("Name of the object.")] = ""


class _CloudInit(ApiStruct, frozen=True):
    """What cloud-init is given, by whichever data source."""

    user_data: Annotated[str, doc("User-data as clear text, at most 2048 bytes.")] = ""
    user_data_base64: Annotated[str, doc("User-data in base64, at most 2048 bytes.")] = ""
    secret_ref: Annotated[
        LocalObjectReference | None,
        doc("Secret with the user-data under the key `userdata` or `userData`."),
    ] = None
    network_data: Annotated[str, doc("Network-config as clear text, at most 2048 bytes.")] = ""
    network_data_base64: Annotated[str, doc("Network-config in base64, at most 2048 bytes.")] = ""
    network_data_secret_ref: Annotated[
        LocalObjectReference | None,
        doc("Secret with the network-config under the key `networkdata` or `networkData`."),
    ] = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class CloudInitNoCloud(_CloudInit, frozen=True):
    """A NoCloud data source for cloud-init."""


class CloudInitConfigDrive(_CloudInit, frozen=True):
    """A ConfigDrive data source for cloud-init, as OpenStack has it."""


class PersistentVolumeClaimSource(ApiStruct, frozen=True):
    """A PersistentVolumeClaim: its file `disk.img`, or the device if it is a block volume."""

    claim_name: Annotated[str, doc("Name of the claim in the same namespace.")]
    read_only: Annotated[bool, doc("Nothing is written to it.")] = False
    hotpluggable: Annotated[
        bool, doc("The volume may be attached to and detached from a running guest.")
    ] = False


class EphemeralClaimSource(ApiStruct, frozen=True):
    """A PersistentVolumeClaim that is only read."""

    claim_name: Annotated[str, doc("Name of the claim in the same namespace.")]
    read_only: Annotated[bool, doc("Accepted; it is never written to.")] = False


class Ephemeral(ApiStruct, frozen=True):
    """A copy-on-write image over a claim. What the guest writes is gone when it stops."""

    persistent_volume_claim: Annotated[
        EphemeralClaimSource | None, doc("Claim with the content to begin with.")
    ] = None


class EmptyDisk(ApiStruct, frozen=True):
    """An empty disk that lives as long as the instance."""

    capacity: Annotated[Quantity, doc("What the guest sees; only what it writes takes space.")]


class HostDisk(ApiStruct, frozen=True):
    """A disk image in a directory of the node. Needs the feature gate HostDisk."""

    path: Annotated[str, doc("Absolute path of the image on the node.")]
    type: Annotated[str, doc("`Disk`: it must be there. `DiskOrCreate`: made when it is not.")]
    capacity: Annotated[Quantity | None, doc("Size of an image that is made.")] = None
    shared: Annotated[bool | None, doc("Several machines may use it.")] = None


class DataVolumeSource(ApiStruct, frozen=True):
    """A DataVolume, which fills the PersistentVolumeClaim of its name."""

    name: Annotated[str, doc("Name of the DataVolume and of its claim.")]
    hotpluggable: Annotated[
        bool, doc("The volume may be attached to and detached from a running guest.")
    ] = False


class ConfigMapVolumeSource(ApiStruct, frozen=True):
    """A ConfigMap as a disk with a file for each key."""

    name: Annotated[str, doc("Name of the ConfigMap.")] = ""
    optional: Annotated[bool | None, doc("The machine starts without it if it is missing.")] = None
    volume_label: Annotated[str, doc("Label of the file system on the disk.")] = ""


class SecretVolumeSource(ApiStruct, frozen=True):
    """A Secret as a disk with a file for each key."""

    secret_name: Annotated[str, doc("Name of the Secret.")] = ""
    optional: Annotated[bool | None, doc("The machine starts without it if it is missing.")] = None
    volume_label: Annotated[str, doc("Label of the file system on the disk.")] = ""


class ObjectFieldSelector(ApiStruct, frozen=True):
    """A field of the pod."""

    field_path: Annotated[str, doc("Path of the field, for example `metadata.labels`.")]
    api_version: Annotated[str, doc("Version of the path. `v1` by default.")] = ""


class ResourceFieldSelector(ApiStruct, frozen=True):
    """A resource of a container of the pod."""

    resource: Annotated[str, doc("Resource, for example `limits.cpu`.")]
    container_name: Annotated[str, doc("Name of the container.")] = ""
    divisor: Annotated[Quantity | None, doc("Unit of the value.")] = None


class DownwardAPIFile(ApiStruct, frozen=True):
    """A file with a fact about the pod."""

    path: Annotated[str, doc("Relative path of the file.")]
    field_ref: Annotated[ObjectFieldSelector | None, doc("A field of the pod.")] = None
    resource_field_ref: Annotated[ResourceFieldSelector | None, doc("A resource of it.")] = None
    mode: Annotated[int | None, doc("Permissions of the file.", format="int32")] = None


class DownwardAPIVolumeSource(ApiStruct, frozen=True):
    """Facts about the pod as a disk with a file for each."""

    fields: Annotated[list[DownwardAPIFile] | None, doc("The files.")] = None
    volume_label: Annotated[str, doc("Label of the file system on the disk.")] = ""


class ServiceAccountVolumeSource(ApiStruct, frozen=True):
    """The credentials of a ServiceAccount as a disk."""

    service_account_name: Annotated[str, doc("Name of the ServiceAccount.")] = ""


class Sysprep(ApiStruct, frozen=True):
    """An answer file for Windows's set-up, as a disk. Exactly one source."""

    secret: Annotated[
        LocalObjectReference | None, doc("Secret with `autounattend.xml` or `unattend.xml`.")
    ] = None
    config_map: Annotated[
        LocalObjectReference | None, doc("ConfigMap with `autounattend.xml` or `unattend.xml`.")
    ] = None


class Volume(ApiStruct, frozen=True):
    """Where the content of a disk comes from: exactly one source."""

    name: Annotated[str, doc("Name of the volume; a disk refers to it.", **_NAME)]
    container_disk: Annotated[ContainerDisk | None, doc("Disk in a container image.")] = None
    cloud_init_no_cloud: Annotated[
        CloudInitNoCloud | None, doc("NoCloud data source for cloud-init.")
    ] = None
    cloud_init_config_drive: Annotated[
        CloudInitConfigDrive | None, doc("ConfigDrive data source for cloud-init.")
    ] = None
    persistent_volume_claim: Annotated[
        PersistentVolumeClaimSource | None, doc("A PersistentVolumeClaim.")
    ] = None
    data_volume: Annotated[DataVolumeSource | None, doc("The claim of a DataVolume.")] = None
    ephemeral: Annotated[Ephemeral | None, doc("Copy-on-write over a claim.")] = None
    empty_disk: Annotated[EmptyDisk | None, doc("An empty disk.")] = None
    host_disk: Annotated[HostDisk | None, doc("An image on the node.")] = None
    config_map: Annotated[ConfigMapVolumeSource | None, doc("A ConfigMap.")] = None
    secret: Annotated[SecretVolumeSource | None, doc("A Secret.")] = None
    downward_api: Annotated[DownwardAPIVolumeSource | None, doc("Facts about the pod.")] = None
    service_account: Annotated[
        ServiceAccountVolumeSource | None, doc("Credentials of a ServiceAccount.")
    ] = None
    sysprep: Annotated[Sysprep | None, doc("An answer file for Windows's set-up.")] = None

    @property
    def claim_name(self) -> str:
        """The PersistentVolumeClaim behind the volume; empty when there is none."""
        if self.persistent_volume_claim is not None:
            return self.persistent_volume_claim.claim_name
        if self.data_volume is not None:
            return self.data_volume.name
        if self.ephemeral is not None and self.ephemeral.persistent_volume_claim is not None:
            return self.ephemeral.persistent_volume_claim.claim_name
        return ""

    @property
    def is_hotpluggable(self) -> bool:
        """The volume may come and go while the guest runs; its claim is then held by a pod of its own."""
        source = self.persistent_volume_claim or self.data_volume
        return source is not None and source.hotpluggable


class SecretReference(ApiStruct, frozen=True):
    """A Secret in the same namespace."""

    secret_name: Annotated[str, doc("Name of the Secret.")] = ""


class SSHPublicKeySource(ApiStruct, frozen=True):
    """Where public keys come from."""

    secret: Annotated[
        SecretReference | None, doc("Secret of which every value is a public key.")
    ] = None


class PropagatedByDataSource(ApiStruct, frozen=True):
    """By cloud-init, at the guest's start."""


class KeysPropagatedByAgent(ApiStruct, frozen=True):
    """By the guest's agent, as soon as it is there and whenever the Secret changes."""

    users: Annotated[
        list[str] | None, doc("Accounts of the guest that get the keys.", maxItems=64)
    ] = None


class PasswordPropagatedByAgent(ApiStruct, frozen=True):
    """By the guest's agent, as soon as it is there and whenever the Secret changes."""


class SSHPublicKeyPropagation(ApiStruct, frozen=True):
    """How public keys reach the guest: exactly one way."""

    config_drive: Annotated[
        PropagatedByDataSource | None, doc("By the cloudInitConfigDrive volume.")
    ] = None
    no_cloud: Annotated[PropagatedByDataSource | None, doc("By the cloudInitNoCloud volume.")] = (
        None
    )
    qemu_guest_agent: Annotated[KeysPropagatedByAgent | None, doc("By the guest's agent.")] = None


class SSHPublicKeyCredential(ApiStruct, frozen=True):
    """Public keys that may log in."""

    source: Annotated[SSHPublicKeySource, doc("Where they come from.")]
    propagation_method: Annotated[SSHPublicKeyPropagation, doc("How they reach the guest.")]


class UserPasswordSource(ApiStruct, frozen=True):
    """Where passwords come from."""

    secret: Annotated[
        SecretReference | None,
        doc("Secret of which every key is an account of the guest, and every value its password."),
    ] = None


class UserPasswordPropagation(ApiStruct, frozen=True):
    """How passwords reach the guest: exactly one way."""

    qemu_guest_agent: Annotated[PasswordPropagatedByAgent | None, doc("By the guest's agent.")] = (
        None
    )


class UserPasswordCredential(ApiStruct, frozen=True):
    """Passwords of accounts."""

    source: Annotated[UserPasswordSource, doc("Where they come from.")]
    propagation_method: Annotated[UserPasswordPropagation, doc("How they reach the guest.")]


class AccessCredential(ApiStruct, frozen=True):
    """Something that gives access to the guest."""

    ssh_public_key: Annotated[SSHPublicKeyCredential | None, doc("Public keys.")] = None
    user_password: Annotated[UserPasswordCredential | None, doc("Passwords.")] = None
