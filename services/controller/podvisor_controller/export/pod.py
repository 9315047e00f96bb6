"""The objects that an export is served by, rendered from it and its claims. Pure.

Invariant: the pod has no identity in the cluster and no right that the profile `restricted` does not give; it mounts claims for reading
only. What is known of a pod later stands in its annotations, for the controller keeps none of its own record.
"""

import base64
import json
from collections.abc import Sequence
from datetime import datetime

import msgspec
from podvisor_common.api import core, meta
from podvisor_common.api.export import VirtualMachineExport, names
from podvisor_common.api.v1.names import APP_LABEL, LAUNCHER_UID
from podvisor_common.kube.resources import EXPORTS, ObjectKey
from podvisor_common.tls.authority import KeyPair

from podvisor_controller.export.identity import (
    owner_reference,
    pod_name,
    service_label,
    token_secret_name,
)
from podvisor_controller.export.sources import ExportedVolume
from podvisor_controller.exporter import settings as program
from podvisor_controller.exporter.look import Findings
from podvisor_controller.vmi.container import Manifest, unprivileged

CONTAINER, LOOK_CONTAINER = "exporter", "look"
IDENTITY_ANNOTATION = "podvisor.io/export-identity"
DEADLINE_ANNOTATION = "podvisor.io/export-deadline"
VOLUMES_ANNOTATION = "podvisor.io/export-volumes"
ANNOTATIONS = frozenset({IDENTITY_ANNOTATION, DEADLINE_ANNOTATION, VOLUMES_ANNOTATION})

_IDENTITY, _TOKEN = "identity", "token"
# The group that owns the devices of disks nearly everywhere, where the runtime does not give them to the pod's user.
_DISK_GROUP = 6
_GRACE_S = 5
_OF_KUBECTL = "kubectl.kubernetes.io/"
_RESOURCES = {
    "requests": {"cpu": "50m", "memory": "64Mi"},
    "limits": {"cpu": "1", "memory": "256Mi"},
}


class ServedVolume(msgspec.Struct, frozen=True):
    """A claim that a pod serves: the name that the machine has it by, its own, and its form."""

    name: str
    claim: str
    block: bool = False


def served(volumes: Sequence[ExportedVolume]) -> tuple[ServedVolume, ...]:
    """These claims, as a pod serves them."""
    return tuple(
        ServedVolume(volume.name, volume.claim.metadata.name, volume.claim.is_block)
        for volume in volumes
    )


def served_by(pod: core.Pod) -> tuple[ServedVolume, ...]:
    """The claims that a pod serves; none where it does not say so."""
    text = pod.metadata.annotation(VOLUMES_ANNOTATION) or "[]"
    try:
        return msgspec.json.decode(text, type=tuple[ServedVolume, ...])
    except msgspec.MsgspecError:
        return ()


def export_of_pod(pod: core.Pod) -> ObjectKey | None:
    """The key of the export that a pod says it serves. Of whatever version: a pod outlives releases of the controller."""
    owner = pod.metadata.controller_reference()
    if owner is None or owner.kind != names.EXPORT:
        return None
    if owner.api_version.partition("/")[0] != EXPORTS.group:
        return None
    return ObjectKey(pod.metadata.namespace, owner.name)


def findings_of(pod: core.Pod) -> Findings:
    """What the pod found when it looked at its volumes; nothing before it has."""
    statuses = pod.status.init_container_statuses or ()
    status = next((one for one in statuses if one.name == LOOK_CONTAINER), None)
    ended = status.state.terminated if status is not None and status.state is not None else None
    try:
        return msgspec.json.decode(ended.message, type=Findings) if ended else Findings()
    except msgspec.MsgspecError:
        return Findings()


def deadline_of(pod: core.Pod, default: datetime) -> datetime:
    """When the pod ends by itself; `default` where it does not say so."""
    try:
        return meta.parse_time(pod.metadata.annotation(DEADLINE_ANNOTATION) or "")
    except ValueError:
        return default


def render_pod(
    export: VirtualMachineExport,
    volumes: Sequence[ExportedVolume],
    *,
    image: str,
    pull_policy: str,
    deadline: datetime,
    identity: str,
) -> Manifest:
    """The pod that serves `volumes` until `deadline`, by the certificate in the Secret `identity`, which need not exist yet."""
    claims = served(volumes)
    told_deadline = meta.format_time(deadline)
    annotations = _inherited(export) | {
        IDENTITY_ANNOTATION: identity,
        DEADLINE_ANNOTATION: told_deadline,
        VOLUMES_ANNOTATION: msgspec.json.encode(claims).decode(),
    }
    environment = {
        program.VOLUMES_VARIABLE: json.dumps([_as_program(one) for one in claims]),
        program.DEADLINE_VARIABLE: told_deadline,
    }
    common: Manifest = {
        "image": image,
        "imagePullPolicy": pull_policy,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": _RESOURCES,
        "securityContext": unprivileged(),
        **_devices(claims),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(export),
            "namespace": export.metadata.namespace,
            "labels": _labels(export),
            "annotations": annotations,
            "ownerReferences": [owner_reference(export)],
        },
        "spec": _pod_spec(claims, common, identity, token_secret_name(export)),
    }


def render_service(export: VirtualMachineExport) -> Manifest:
    """The Service in front of the pod."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": pod_name(export),
            "namespace": export.metadata.namespace,
            "labels": {APP_LABEL: names.EXPORTER_APP},
            "ownerReferences": [owner_reference(export)],
        },
        "spec": {
            "ports": [{"protocol": "TCP", "port": 443, "targetPort": program.PORT}],
            "selector": {names.SERVICE_LABEL: service_label(export)},
        },
    }


def render_token(export: VirtualMachineExport, token: str) -> Manifest:
    """The Secret with the token."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": token_secret_name(export),
            "namespace": export.metadata.namespace,
            "ownerReferences": [owner_reference(export)],
        },
        "type": "Opaque",
        "data": {names.TOKEN_KEY: base64.b64encode(token.encode()).decode()},
    }


def render_identity(pod: core.Pod, pair: KeyPair, manifests: bytes) -> Manifest:
    """The Secret with the certificate of a pod and what it makes manifests of. It goes with the pod."""
    content = {
        program.CERTIFICATE: pair.certificate,
        program.KEY: pair.key,
        program.MANIFESTS: manifests,
    }
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod.metadata.name,
        "uid": pod.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": pod.metadata.annotation(IDENTITY_ANNOTATION),
            "namespace": pod.metadata.namespace,
            "ownerReferences": [owner],
        },
        "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(value).decode() for name, value in content.items()},
    }


def _pod_spec(
    claims: Sequence[ServedVolume], common: Manifest, identity: str, token: str
) -> Manifest:
    """`common` is what both containers have; the others name Secrets."""
    mounts = _mounts(claims)
    look = {
        "name": LOOK_CONTAINER,
        "command": [*_command(), program.LOOK],
        **common,
        "volumeMounts": mounts,
    }
    serve = {
        "name": CONTAINER,
        "command": _command(),
        **common,
        "ports": [{"name": "https", "containerPort": program.PORT}],
        "readinessProbe": _readiness(),
        "volumeMounts": [*mounts, *_secret_mounts()],
    }
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": _pod_security(has_devices="volumeDevices" in common),
        "initContainers": [look],
        "containers": [serve],
        "volumes": [
            *(_claim_volume(number, one) for number, one in enumerate(claims)),
            _secret_volume(_IDENTITY, identity),
            _secret_volume(_TOKEN, token),
        ],
    }


def _inherited(export: VirtualMachineExport) -> dict[str, str]:
    """What virtctl says of an export's annotations: that its pod has them, too."""
    annotations = export.metadata.annotations or {}
    return {key: text for key, text in annotations.items() if not key.startswith(_OF_KUBECTL)}


def _labels(export: VirtualMachineExport) -> dict[str, str]:
    return {
        **(export.metadata.labels or {}),
        APP_LABEL: names.EXPORTER_APP,
        names.SERVICE_LABEL: service_label(export),
    }


def _as_program(one: ServedVolume) -> Manifest:
    return {"name": one.claim, "block": one.block}


def _command() -> list[str]:
    return ["python", "-m", program.PROGRAM]


def _pod_security(*, has_devices: bool) -> Manifest:
    return {
        "runAsUser": LAUNCHER_UID,
        "runAsGroup": LAUNCHER_UID,
        "fsGroup": LAUNCHER_UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        **({"supplementalGroups": [_DISK_GROUP]} if has_devices else {}),
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _mounts(claims: Sequence[ServedVolume]) -> list[Manifest]:
    return [
        {
            "name": _volume_name(number),
            "mountPath": f"{program.DIRECTORIES}/{number}",
            "readOnly": True,
        }
        for number, one in enumerate(claims)
        if not one.block
    ]


def _devices(claims: Sequence[ServedVolume]) -> Manifest:
    devices = [
        {"name": _volume_name(number), "devicePath": f"{program.DEVICES}/{number}"}
        for number, one in enumerate(claims)
        if one.block
    ]
    return {"volumeDevices": devices} if devices else {}


def _secret_mounts() -> list[Manifest]:
    places = ((_IDENTITY, program.IDENTITY_DIRECTORY), (_TOKEN, program.TOKEN_DIRECTORY))
    return [{"name": name, "mountPath": path, "readOnly": True} for name, path in places]


def _claim_volume(number: int, one: ServedVolume) -> Manifest:
    claim = {"claimName": one.claim, "readOnly": True}
    return {"name": _volume_name(number), "persistentVolumeClaim": claim}


def _secret_volume(name: str, secret: str) -> Manifest:
    return {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _volume_name(number: int) -> str:
    return f"volume-{number}"


def _readiness() -> Manifest:
    return {
        "httpGet": {"scheme": "HTTPS", "port": program.PORT, "path": program.READY_PATH},
        "periodSeconds": 1,
    }
