"""The volumes of a launcher pod, and where its `compute` container finds them. Pure.

Invariant: the place of a volume follows from its name in the manifest alone, as podvisor_common.launcher_pod has it. What
the guest does not write to is read-only. A Secret or ConfigMap of the user's may be missing: the launcher then says so,
where a required one would leave the pod hanging.
"""

import hashlib
import posixpath
from dataclasses import dataclass, field

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.quantity import format_bytes, quantity_to_int
from podvisor_common.launcher_pod import (
    CREDENTIALS_DIRECTORY,
    DEVICES_DIRECTORY,
    FILES_DIRECTORY,
    IMAGES_DIRECTORY,
    KERNEL_IMAGE,
    RUN_DIRECTORY,
    SECRETS_DIRECTORY,
    VOLUMES_DIRECTORY,
)

from podvisor_controller.vmi.claims import Claims, carried, is_only_read
from podvisor_controller.vmi.container import COMPUTE, NAME_MAX, Manifest
from podvisor_controller.vmi.kernel import kernel_container

_PRIVATE = "private"
# In memory: libvirtd that cannot write down the state of its guest, for its node's disk is full, ends the guest.
_RUNTIME = "runtime"
# Bounds of the pod's scratch space, but for `private`: that holds what guests write to disks that do not last.
_SCRATCH = {"sockets": "1Mi", _PRIVATE: "", _RUNTIME: "64Mi", "console": "16Mi"}
# What an overlay may grow to whose size is not known here: to that of the largest image that a launcher opens.
UNKNOWN_OVERLAY_BYTES = 64 << 40
# Tables of an image come on top of what is in it: 8 bytes and a reference count for each cluster of 64 KiB.
_IMAGE_BYTES_PER_TABLE_BYTE = 1024
_IMAGE_HEADER_BYTES = 1 << 20
# Everything else in `private`: ISOs, firmware variables, the state of the launcher.
_PRIVATE_REST_BYTES = 64 << 30

_MOST_BYTES = 2**63 - 1

# The group that the pod's volumes belong to is the launcher's.
_READABLE = 0o440
# What is asked for where Kubernetes itself mounts a token: it then goes on to be valid for a year, which a guest needs
# that is never given another.
_TOKEN_SECONDS = 3607


@dataclass(slots=True)
class PodVolumes:
    """Volumes of the pod, mounts and devices of `compute`."""

    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    devices: list[Manifest] = field(default_factory=list)

    def mount(self, name: str, path: str, source: Manifest, *, read_only: bool = True) -> None:
        """Add a volume that is a directory."""
        flag = {"readOnly": True} if read_only else {}
        short = _valid(name)
        self.volumes.append({"name": short, **source})
        self.mounts.append({"name": short, "mountPath": path, **flag})

    def attach(self, name: str, path: str, source: Manifest) -> None:
        """Add a volume that is a device."""
        short = _valid(name)
        self.volumes.append({"name": short, **source})
        self.devices.append({"name": short, "devicePath": path})


def pod_volumes(vmi: v1.VirtualMachineInstance, claims: Claims, *, with_images: bool) -> PodVolumes:
    """What the pod of an instance has of volumes, in one order. `claims` holds all that they name; KeyError otherwise.

    Images of containers are volumes only `with_images`.
    """
    found = PodVolumes()
    limits = _SCRATCH | {_PRIVATE: format_bytes(private_limit_bytes(vmi, claims))}
    for name, limit in limits.items():
        medium = {"medium": "Memory"} if name == _RUNTIME else {}
        source = {"emptyDir": {**medium, "sizeLimit": limit}}
        found.mount(name, f"{RUN_DIRECTORY}/{name}", source, read_only=False)
    for volume in carried(vmi):
        _add_disk(found, vmi, volume, claims)
        if with_images and volume.container_disk is not None:
            image = {
                "image": _image_source(
                    volume.container_disk.image, volume.container_disk.image_pull_policy
                )
            }
            found.mount(f"disk-{volume.name}", f"{IMAGES_DIRECTORY}/{volume.name}", image)
        _add_cloud_init(found, volume)
        if (files := _files(volume)) is not None:
            found.mount(f"files-{volume.name}", f"{FILES_DIRECTORY}/{volume.name}", files)
    kernel = kernel_container(vmi)
    if with_images and kernel is not None:
        image = {"image": _image_source(kernel.image, kernel.image_pull_policy)}
        found.mount("kernel-boot", f"{IMAGES_DIRECTORY}/{KERNEL_IMAGE}", image)
    for secret in _credentials(vmi):
        path = f"{CREDENTIALS_DIRECTORY}/{secret}"
        found.mount(f"credentials-{secret}", path, _optional_secret(secret))
    return found


def has_claimed_file_system(vmi: v1.VirtualMachineInstance, claims: Claims) -> bool:
    """There is a claim in whose file system an image may have to be made."""
    return any(
        not claims[volume.claim_name].is_block
        for volume in carried(vmi)
        if volume.persistent_volume_claim is not None or volume.data_volume is not None
    )


def service_account(vmi: v1.VirtualMachineInstance) -> str:
    """The ServiceAccount whose credentials the guest is given; empty when there is none."""
    accounts = (v.service_account for v in carried(vmi) if v.service_account is not None)
    return next((account.service_account_name for account in accounts), "")


def private_limit_bytes(vmi: v1.VirtualMachineInstance, claims: Claims) -> int:
    """The bound of `private`: never less than its guest's disks can take there together.

    A pod above it is evicted, and its guest is lost with all that does not last. So it only stops what has no business
    there; what a guest may write is bounded by its disks, and for all of the pod by a limit of `ephemeral-storage`.
    """
    total = _PRIVATE_REST_BYTES
    for volume in carried(vmi):
        if volume.empty_disk is not None:
            total += _image_bytes(quantity_to_int(volume.empty_disk.capacity))
        elif volume.container_disk is not None:
            total += UNKNOWN_OVERLAY_BYTES
        elif volume.ephemeral is not None and volume.claim_name:
            capacity = (claims[volume.claim_name].status.capacity or {}).get("storage", 0)
            total += max(_image_bytes(quantity_to_int(capacity)), UNKNOWN_OVERLAY_BYTES)
    return min(total, _MOST_BYTES)


def _image_bytes(capacity_bytes: int) -> int:
    return capacity_bytes + capacity_bytes // _IMAGE_BYTES_PER_TABLE_BYTE + _IMAGE_HEADER_BYTES


def _add_disk(
    found: PodVolumes, vmi: v1.VirtualMachineInstance, volume: v1.Volume, claims: Claims
) -> None:
    """A claim or a directory of the node."""
    read_only = is_only_read(vmi, volume)
    name, path = f"volume-{volume.name}", f"{VOLUMES_DIRECTORY}/{volume.name}"
    if volume.claim_name:
        # Said of the claim as well: its files keep their owners then, and a device cannot be opened for writing.
        flag = {"readOnly": True} if read_only else {}
        source = {"persistentVolumeClaim": {"claimName": volume.claim_name, **flag}}
        if claims[volume.claim_name].is_block:
            found.attach(name, f"{DEVICES_DIRECTORY}/{volume.name}", source)
        else:
            found.mount(name, path, source, read_only=read_only)
    elif volume.host_disk is not None:
        directory = posixpath.dirname(volume.host_disk.path)
        source = {"hostPath": {"path": directory, "type": "DirectoryOrCreate"}}
        found.mount(name, path, source, read_only=read_only)


def _image_source(image: str, pull_policy: str) -> Manifest:
    return {"reference": image, **({"pullPolicy": pull_policy} if pull_policy else {})}


def _add_cloud_init(found: PodVolumes, volume: v1.Volume) -> None:
    cloud_init = volume.cloud_init_no_cloud or volume.cloud_init_config_drive
    if cloud_init is None:
        return
    path = f"{SECRETS_DIRECTORY}/{volume.name}"
    if cloud_init.secret_ref:
        source = _optional_secret(cloud_init.secret_ref.name)
        found.mount(f"secret-{volume.name}", f"{path}/user-data", source)
    if cloud_init.network_data_secret_ref:
        source = _optional_secret(cloud_init.network_data_secret_ref.name)
        found.mount(f"network-secret-{volume.name}", f"{path}/network-data", source)


def _files(volume: v1.Volume) -> Manifest | None:
    """The source of a volume that becomes a disk with files on it."""
    if volume.config_map is not None:
        return _optional_config_map(volume.config_map.name)
    if volume.secret is not None:
        return _optional_secret(volume.secret.secret_name)
    if volume.downward_api is not None:
        items = [_downward_item(item) for item in volume.downward_api.fields or ()]
        return {"downwardAPI": {"defaultMode": _READABLE, "items": items}}
    if volume.service_account is not None:
        return _service_account_source()
    if volume.sysprep is not None and volume.sysprep.secret is not None:
        return _optional_secret(volume.sysprep.secret.name)
    if volume.sysprep is not None and volume.sysprep.config_map is not None:
        return _optional_config_map(volume.sysprep.config_map.name)
    return None


def _optional_secret(name: str) -> Manifest:
    return {"secret": {"secretName": name, "defaultMode": _READABLE, "optional": True}}


def _optional_config_map(name: str) -> Manifest:
    return {"configMap": {"name": name, "defaultMode": _READABLE, "optional": True}}


def _downward_item(item: v1.DownwardAPIFile) -> Manifest:
    """As the manifest has it. A resource is `compute`'s unless it says whose."""
    body: Manifest = msgspec.to_builtins(item)
    if item.resource_field_ref is not None:
        body["resourceFieldRef"] = {"containerName": COMPUTE} | body["resourceFieldRef"]
    return body


def _service_account_source() -> Manifest:
    """The three files that every pod with a token has, of the account that the pod runs as."""
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
        {"configMap": authority},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"projected": {"defaultMode": _READABLE, "sources": sources}}


def _credentials(vmi: v1.VirtualMachineInstance) -> list[str]:
    """The Secrets with public keys and passwords, each once."""
    credentials = (
        given
        for access in vmi.spec.access_credentials or ()
        for given in (access.ssh_public_key, access.user_password)
    )
    secrets = (given.source.secret for given in credentials if given is not None)
    return sorted({secret.secret_name for secret in secrets if secret and secret.secret_name})


def _valid(name: str) -> str:
    """`name`, or where a pod's volume cannot be called that, what can be and is no other's: its beginning and a hash."""
    if len(name) <= NAME_MAX and "." not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: NAME_MAX - 9].replace('.', '-').rstrip('-')}-{digest}"
