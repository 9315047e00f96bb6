"""The pod that holds a volume for a running guest, rendered from the instance, its launcher pod and the claim.

Invariant: render_attachment_pod() is a pure function of its arguments, name included. The pod holds one volume at the place
where a launcher pod would have it, belongs to the launcher pod, and is bound to that one's node whatever the node repels.
"""

import hashlib

from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import DEVICES_DIRECTORY, RUN_DIRECTORY, VOLUMES_DIRECTORY

from podvisor_controller.config import ClusterConfig
from podvisor_controller.vmi.claims import is_only_read
from podvisor_controller.vmi.container import PROGRAMS_DIRECTORY, Manifest, unprivileged
from podvisor_controller.vmi.pod import pod_grace_period_s

ATTACHMENT_POD_PREFIX = "hp-volume-"
HOLDER = "hotplug-disk"
# The program ends only when it is killed: this soon once the guest has let go of the volume. Where the pod is being deleted
# already, the kubelet does not cut the time it has begun to wait, and virt-handler kills the program.
RELEASE_GRACE_S = 1
# After the launcher pod, where both are told to end at once: what is mounted here goes with this pod.
_OUTLASTS_GUEST_S = 30

_VOLUME = "volume"
_SOCKETS = "sockets"
_DIGEST_LENGTH = 10


def attachment_pod_name(vmi_uid: str, volume: str, attempt: int = 0) -> str:
    """The name of the pod that holds a volume. Deterministic, so that creating it is the lock."""
    digest = hashlib.sha256(f"{vmi_uid}/{volume}/{attempt}".encode()).hexdigest()
    return ATTACHMENT_POD_PREFIX + digest[:_DIGEST_LENGTH]


def render_attachment_pod(
    name: str,
    vmi: v1.VirtualMachineInstance,
    volume: v1.Volume,
    claim: core.PersistentVolumeClaim,
    launcher: core.Pod,
    config: ClusterConfig,
) -> Manifest:
    """The manifest of the pod of that name that holds `volume` where `launcher` runs."""
    meta = vmi.metadata
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": launcher.metadata.name,
        "uid": launcher.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": {
                names.APP_LABEL: names.HOTPLUG_DISK_APP,
                names.CREATED_BY_LABEL: meta.uid,
                names.HELD_VOLUME_LABEL: volume.name,
            },
            "annotations": {
                names.OWNER_VMI_NAME_ANNOTATION: meta.name,
                names.OWNER_VMI_UID_ANNOTATION: meta.uid,
                names.HELD_CLAIM_ANNOTATION: volume.claim_name,
                names.PVC_TOLERATED_SHORTFALL_ANNOTATION: str(config.pvc_shortfall_percent),
                names.PVC_RESERVE_ANNOTATION: str(config.pvc_reserve_bytes),
            },
            "ownerReferences": [owner],
        },
        "spec": _spec(vmi, volume, claim, launcher.spec.node_name, config),
    }


def _spec(
    vmi: v1.VirtualMachineInstance,
    volume: v1.Volume,
    claim: core.PersistentVolumeClaim,
    node: str,
    config: ClusterConfig,
) -> Manifest:
    flag = {"readOnly": True} if is_only_read(vmi, volume) else {}
    priority = vmi.spec.priority_class_name
    return {
        "restartPolicy": "OnFailure",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pod_grace_period_s(vmi) + _OUTLASTS_GUEST_S,
        **({"priorityClassName": priority} if priority else {}),
        # By the scheduler, unlike `nodeName`: it has a claim bound that waits for its first pod.
        "affinity": _only_on(node),
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "runAsUser": names.LAUNCHER_UID,
            "runAsGroup": names.LAUNCHER_UID,
            "fsGroup": names.LAUNCHER_UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_holder(volume, claim, config, read_only=bool(flag))],
        "volumes": [
            {"name": _SOCKETS, "emptyDir": {"sizeLimit": "1Mi"}},
            {
                "name": _VOLUME,
                "persistentVolumeClaim": {"claimName": volume.claim_name, **flag},
            },
        ],
    }


def _holder(
    volume: v1.Volume,
    claim: core.PersistentVolumeClaim,
    config: ClusterConfig,
    *,
    read_only: bool,
) -> Manifest:
    mounts: list[Manifest] = [{"name": _SOCKETS, "mountPath": f"{RUN_DIRECTORY}/{_SOCKETS}"}]
    devices: list[Manifest] = []
    if claim.is_block:
        devices.append({"name": _VOLUME, "devicePath": f"{DEVICES_DIRECTORY}/{volume.name}"})
    else:
        flag = {"readOnly": True} if read_only else {}
        path = f"{VOLUMES_DIRECTORY}/{volume.name}"
        mounts.append({"name": _VOLUME, "mountPath": path, **flag})
    return {
        "name": HOLDER,
        "image": config.launcher_image,
        "imagePullPolicy": config.image_pull_policy,
        "command": [f"{PROGRAMS_DIRECTORY}/volume-holder"],
        "resources": {
            "requests": {"cpu": "1m", "memory": "4Mi"},
            "limits": {"cpu": "100m", "memory": "16Mi"},
        },
        "securityContext": unprivileged(),
        "volumeMounts": mounts,
        **({"volumeDevices": devices} if devices else {}),
    }


def _only_on(node: str) -> Manifest:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = [{"matchFields": [field]}]
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
        }
    }
