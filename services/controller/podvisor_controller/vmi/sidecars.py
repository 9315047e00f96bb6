"""Containers that keep the images of an instance's volumes mounted, where the cluster mounts no image as a volume. Pure.

Each is made of the user's image, and all that runs in it is a static program that an init container brought from the launcher's
image: it shows `compute` its root directory through the pod's shared process ids, and ends when `compute` has ended.

They are init containers that go on beside the others (`restartPolicy: Always`): `compute` begins when every image is there, as
with image volumes; one that is killed comes back; and none of them decides when and how the pod ends.
"""

from podvisor_common.api import v1
from podvisor_common.launcher_pod import IMAGES_DIRECTORY, KERNEL_IMAGE, RUN_DIRECTORY

from podvisor_controller.config import ClusterConfig
from podvisor_controller.vmi.container import (
    COMPUTE,
    PROGRAMS_DIRECTORY,
    Manifest,
    shortened,
    unprivileged,
)
from podvisor_controller.vmi.kernel import kernel_container

TOOLS_CONTAINER = "container-disk-binary"
HOLDER_PREFIX = "volume"
_KERNEL_HOLDER = "kernel-boot"

_HOLDER = "image-holder"
_TOOLS, _TOOLS_DIRECTORY = "tools", f"{RUN_DIRECTORY}/tools"
_IMAGES = "images"
_SCRATCH = ((_TOOLS, "4Mi"), (_IMAGES, "1Mi"))
# What runs here takes a tenth of it; a container's first moments, which are the runtime's, take the rest.
_RESOURCES = {
    "requests": {"cpu": "1m", "memory": "4Mi"},
    "limits": {"cpu": "100m", "memory": "16Mi"},
}


def with_image_holders(
    spec: Manifest, vmi: v1.VirtualMachineInstance, config: ClusterConfig
) -> Manifest:
    """The pod's specification with a holder for every container disk and for the kernel, whose image `compute` finds where a volume would be."""
    holders = [
        _holder(f"{HOLDER_PREFIX}{volume.name}", volume.name, disk.image, disk.image_pull_policy)
        for volume in vmi.spec.volumes or ()
        if (disk := volume.container_disk)
    ]
    if (kernel := kernel_container(vmi)) is not None:
        holders.append(
            _holder(_KERNEL_HOLDER, KERNEL_IMAGE, kernel.image, kernel.image_pull_policy)
        )
    if not holders:
        return spec
    scratch = [{"name": name, "emptyDir": {"sizeLimit": limit}} for name, limit in _SCRATCH]
    return spec | {
        "shareProcessNamespace": True,
        "initContainers": [_tools(config), *holders],
        "containers": [_shown_images(container) for container in spec["containers"]],
        "volumes": [*spec["volumes"], *scratch],
    }


def _shown_images(container: Manifest) -> Manifest:
    if container["name"] != COMPUTE:
        return container
    images = {"name": _IMAGES, "mountPath": IMAGES_DIRECTORY, "readOnly": True}
    return container | {"volumeMounts": [*container["volumeMounts"], images]}


def _tools(config: ClusterConfig) -> Manifest:
    """Copies the program that the others run."""
    return {
        "name": TOOLS_CONTAINER,
        "image": config.launcher_image,
        "imagePullPolicy": config.image_pull_policy,
        "command": ["cp", f"{PROGRAMS_DIRECTORY}/{_HOLDER}", _TOOLS_DIRECTORY],
        "resources": _RESOURCES,
        "securityContext": unprivileged(),
        "volumeMounts": [{"name": _TOOLS, "mountPath": _TOOLS_DIRECTORY}],
    }


def _holder(container: str, name: str, image: str, pull_policy: str) -> Manifest:
    """Keeps `image` mounted and shows it under `name`."""
    policy = {"imagePullPolicy": pull_policy} if pull_policy else {}
    return {
        "name": shortened(container),
        "image": image,
        **policy,
        "restartPolicy": "Always",
        "command": [f"{_TOOLS_DIRECTORY}/{_HOLDER}"],
        "args": [name],
        "workingDir": "/",  # the image's own may be closed to this user
        "resources": _RESOURCES,
        "securityContext": unprivileged(),
        "volumeMounts": [
            {"name": _TOOLS, "mountPath": _TOOLS_DIRECTORY, "readOnly": True},
            {"name": _IMAGES, "mountPath": IMAGES_DIRECTORY},
            {"name": "console", "mountPath": f"{RUN_DIRECTORY}/console", "readOnly": True},
        ],
    }
