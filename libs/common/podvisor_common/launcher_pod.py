"""Where things are in a launcher pod, as controller, handler and launcher agree on it.

Invariant: names, and what a pod was given memory for. A launcher outlives releases, so a path may be added here and never changed.
"""

import hashlib

RUN_DIRECTORY = "/run/podvisor"
# Each holds one directory for every volume, by the volume's name in the manifest.
IMAGES_DIRECTORY = f"{RUN_DIRECTORY}/images"  # container images
# Among the container images, the one with a kernel: no volume can be called that.
KERNEL_IMAGE = "_kernel"
# The largest kernel that is started from there: QEMU keeps all of it in memory, for which the pod is made.
KERNEL_LIMIT_BYTES = 64 << 20
SECRETS_DIRECTORY = f"{RUN_DIRECTORY}/secrets"  # data of cloud-init: `user-data` and `network-data`
VOLUMES_DIRECTORY = (
    f"{RUN_DIRECTORY}/volumes"  # file systems of claims, and directories of the node
)
FILES_DIRECTORY = f"{RUN_DIRECTORY}/files"  # ConfigMaps, Secrets and their like
# One directory for every Secret with public keys or passwords, by the Secret's name.
CREDENTIALS_DIRECTORY = f"{RUN_DIRECTORY}/credentials"
# One device for every block volume, by the volume's name in the manifest.
DEVICES_DIRECTORY = "/dev/podvisor"
# The image in the file system of a claim.
DISK_IMAGE = "disk.img"
# The paths of QEMU's sets of open files. Made by the handler when the first device is handed over.
FD_SETS_DIRECTORY = "/dev/fdset"
# What the kubelet sets in the network of a launcher pod of whose guest's interfaces passt carries one, so that it may listen on the
# guest's ports and send its pings. Kubernetes calls these safe: every node allows them.
PASST_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


def secondary_interface_name(network: str) -> str:
    """The name of the pod's interface on a network beside its own, by the network's name in the manifest. As KubeVirt has it."""
    return f"pod{hashlib.sha256(network.encode()).hexdigest()[:11]}"
