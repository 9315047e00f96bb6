"""The launcher pod of an instance, rendered from the instance and the cluster's settings.

Invariant: render_pod() is a pure function of its arguments: the same instance, settings and attempt give the same
manifest, name included. It carries no user-data, only the names of Secrets. Handler and launcher rely on the names here.
"""

import hashlib
import re
from collections.abc import Sequence

import msgspec
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.launcher_pod import PASST_SYSCTLS, RUN_DIRECTORY

from podvisor_controller.config import ClusterConfig
from podvisor_controller.vmi.claims import Claims
from podvisor_controller.vmi.container import (
    COMPUTE,
    NAME_MAX,
    PROGRAMS_DIRECTORY,
    Manifest,
    shortened,
    unprivileged,
)
from podvisor_controller.vmi.kernel import kernel_container
from podvisor_controller.vmi.pod_networks import network_annotations
from podvisor_controller.vmi.pod_volumes import (
    PodVolumes,
    has_claimed_file_system,
    pod_volumes,
    service_account,
)
from podvisor_controller.vmi.probes import container_probes
from podvisor_controller.vmi.resources import compute_resources, memory_overhead_bytes
from podvisor_controller.vmi.sidecars import with_image_holders

CONSOLE_LOG = "guest-console-log"
# The kubelet waits this much longer than the guest may take, so that it never kills while we destroy.
EXTRA_GRACE_S = 30

LAUNCHER_POD_PREFIX = "virt-launcher-"

_OUTLASTED_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_SUFFIX_LENGTH = 5
# What tells of the object rather than of the guest.
_ANNOTATIONS_NOT_INHERITED = (
    "kubectl.kubernetes.io/",
    "kubevirt.io/latest-observed-api-version",
    "kubevirt.io/storage-observed-api-version",
    names.SMBIOS_ANNOTATION,
    names.BALLOON_PERIOD_ANNOTATION,
)


def launcher_pod_name(vmi_name: str, vmi_uid: str, attempt: int = 0) -> str:
    """The name of the pod that carries an instance. Deterministic, so that creating it is the lock."""
    digest = hashlib.sha256(f"{vmi_uid}/{attempt}".encode()).hexdigest()
    return f"{LAUNCHER_POD_PREFIX}{vmi_name}-{digest[:_SUFFIX_LENGTH]}"


def pod_grace_period_s(vmi: v1.VirtualMachineInstance) -> int:
    """How long the kubelet lets the pod end, in seconds."""
    return vmi.grace_period_s + EXTRA_GRACE_S


def render_pod(
    vmi: v1.VirtualMachineInstance, config: ClusterConfig, claims: Claims, attempt: int = 0
) -> Manifest:
    """The manifest of the launcher pod. `attempt` counts the pods that the kubelet refused before.

    `claims` holds every claim that the instance names; KeyError when one is missing, for its form would be a guess.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(vmi, config, claims, attempt),
        "spec": _spec(vmi, config, claims),
    }


def _metadata(
    vmi: v1.VirtualMachineInstance, config: ClusterConfig, claims: Claims, attempt: int
) -> Manifest:
    meta = vmi.metadata
    return {
        "name": launcher_pod_name(meta.name, meta.uid, attempt),
        "namespace": meta.namespace,
        "labels": {
            **(meta.labels or {}),
            names.APP_LABEL: names.LAUNCHER_APP,
            names.CREATED_BY_LABEL: meta.uid,
            names.VMI_NAME_LABEL: shortened(meta.name),
            names.VM_NAME_LABEL: _hostname(vmi),
        },
        "annotations": {
            **{
                key: value
                for key, value in (meta.annotations or {}).items()
                if not key.startswith(_ANNOTATIONS_NOT_INHERITED)
            },
            names.DOMAIN_ANNOTATION: meta.name,
            names.MEMORY_OVERHEAD_ANNOTATION: str(memory_overhead_bytes(vmi, config)),
            **_image_rules(vmi, config, claims),
            **_hardware_rules(vmi, config),
            **network_annotations(vmi),
            "kubectl.kubernetes.io/default-container": COMPUTE,
        },
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.VIRTUAL_MACHINE_INSTANCE,
                "name": meta.name,
                "uid": meta.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _image_rules(
    vmi: v1.VirtualMachineInstance, config: ClusterConfig, claims: Claims
) -> dict[str, str]:
    """What the handler, which reads no settings, needs to know of images that are made in claims."""
    if not has_claimed_file_system(vmi, claims):
        return {}
    return {
        names.PVC_TOLERATED_SHORTFALL_ANNOTATION: str(config.pvc_shortfall_percent),
        names.PVC_RESERVE_ANNOTATION: str(config.pvc_reserve_bytes),
    }


def _hardware_rules(vmi: v1.VirtualMachineInstance, config: ClusterConfig) -> dict[str, str]:
    """What it needs to know of the hardware of all guests."""
    rules = {}
    if config.smbios is not None:
        rules[names.SMBIOS_ANNOTATION] = msgspec.json.encode(config.smbios).decode()
    if vmi.spec.domain.devices.autoattach_mem_balloon and config.balloon_period_s is not None:
        rules[names.BALLOON_PERIOD_ANNOTATION] = str(config.balloon_period_s)
    return rules


def _spec(vmi: v1.VirtualMachineInstance, config: ClusterConfig, claims: Claims) -> Manifest:
    held = pod_volumes(vmi, claims, with_images=config.mounts_images)
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pod_grace_period_s(vmi),
        "hostname": _hostname(vmi),
        "readinessGates": [{"conditionType": names.UNPAUSED_CONDITION}],
        "nodeSelector": {
            **(vmi.spec.node_selector or {}),
            names.SCHEDULABLE_LABEL: "true",
            "kubernetes.io/arch": vmi.spec.architecture or config.architecture,
        },
        "securityContext": {
            "runAsUser": names.LAUNCHER_UID,
            "runAsGroup": names.LAUNCHER_UID,
            "fsGroup": names.LAUNCHER_UID,
            # A claim with many files is gone through once, not at every start.
            "fsGroupChangePolicy": "OnRootMismatch",
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            **_settings(vmi),
        },
        "containers": [_compute(vmi, config, held)],
        "volumes": held.volumes,
    }
    if _copies_console(vmi, config):
        spec["containers"].append(_console_log(config))
    spec.update(_placement(vmi))
    return spec if config.mounts_images else with_image_holders(spec, vmi, config)


def _settings(vmi: v1.VirtualMachineInstance) -> Manifest:
    """Of the pod's network. What the kubelet sets, nobody needs to enter the pod's namespace for."""
    interfaces = vmi.spec.domain.devices.interfaces or ()
    if all(interface.passt_binding is None for interface in interfaces):
        return {}
    sysctls = [{"name": name, "value": value} for name, value in PASST_SYSCTLS.items()]
    return {"sysctls": sysctls}


def _placement(vmi: v1.VirtualMachineInstance) -> Manifest:
    """What a pod's specification takes over from the instance's."""
    wanted = vmi.spec
    kernel = kernel_container(vmi)
    secrets = {v.container_disk.image_pull_secret for v in wanted.volumes or () if v.container_disk}
    if kernel is not None:
        secrets.add(kernel.image_pull_secret)
    fields: Manifest = {
        "affinity": msgspec.to_builtins(wanted.affinity),
        "tolerations": _tolerations(wanted.tolerations or ()),
        "topologySpreadConstraints": msgspec.to_builtins(wanted.topology_spread_constraints),
        "schedulerName": wanted.scheduler_name,
        "priorityClassName": wanted.priority_class_name,
        "serviceAccountName": service_account(vmi),
        "subdomain": wanted.subdomain,
        "dnsPolicy": wanted.dns_policy,
        "dnsConfig": msgspec.to_builtins(wanted.dns_config),
        "imagePullSecrets": [{"name": name} for name in sorted(secrets - {""})],
    }
    return {key: value for key, value in fields.items() if value}


def _tolerations(wanted: Sequence[v1.Toleration]) -> list[Manifest]:
    """The manifest's, and for a node that does not answer one without an end.

    The five minutes that Kubernetes grants otherwise move nothing: such a pod is deleted when its node is back, and a guest
    that had outlasted the outage would be ended then.
    """
    return [_toleration(toleration) for toleration in wanted] + [
        {"key": key, "operator": "Exists", "effect": "NoExecute"}
        for key in _OUTLASTED_TAINTS
        if not any(t.key in (key, "") and t.effect in ("NoExecute", "") for t in wanted)
    ]


def _toleration(toleration: v1.Toleration) -> Manifest:
    fields = {
        "key": toleration.key,
        "operator": toleration.operator,
        "value": toleration.value,
        "effect": toleration.effect,
        "tolerationSeconds": toleration.toleration_seconds,
    }
    return {key: value for key, value in fields.items() if value not in ("", None)}


def _compute(vmi: v1.VirtualMachineInstance, config: ClusterConfig, held: PodVolumes) -> Manifest:
    debug = {"env": [{"name": "LOG_LEVEL", "value": "DEBUG"}]} if config.debug_launcher else {}
    return {
        "name": COMPUTE,
        **debug,
        "image": config.launcher_image,
        "imagePullPolicy": config.image_pull_policy,
        "command": [f"{PROGRAMS_DIRECTORY}/supervisor"],
        "args": [f"--grace-period-s={vmi.grace_period_s}"],
        "resources": compute_resources(vmi, config),
        "securityContext": unprivileged(),
        "volumeMounts": held.mounts,
        **container_probes(vmi),
        **({"volumeDevices": held.devices} if held.devices else {}),
    }


def _console_log(config: ClusterConfig) -> Manifest:
    return {
        "name": CONSOLE_LOG,
        "image": config.launcher_image,
        "imagePullPolicy": config.image_pull_policy,
        "command": [f"{PROGRAMS_DIRECTORY}/console-log"],
        "resources": {
            "requests": {"cpu": "1m", "memory": "1Mi"},
            "limits": {"cpu": "15m", "memory": "16Mi"},
        },
        "securityContext": unprivileged(),
        "volumeMounts": [{"name": "console", "mountPath": f"{RUN_DIRECTORY}/console"}],
    }


def _copies_console(vmi: v1.VirtualMachineInstance, config: ClusterConfig) -> bool:
    devices = vmi.spec.domain.devices
    if devices.autoattach_serial_console is False:
        return False
    wanted = devices.log_serial_console
    return config.log_serial_console if wanted is None else wanted


def _hostname(vmi: v1.VirtualMachineInstance) -> str:
    """The pod's host name, which is the guest's: of the name up to the first dot, within 63 characters."""
    name = vmi.spec.hostname or vmi.metadata.name
    label = re.sub("[^a-z0-9-]", "-", name.split(".", 1)[0].lower())
    return label[:NAME_MAX].strip("-")
