"""The webhook configurations and the conversion entry that make the API server ask us.

Pure: every field is spelled out, defaults too, so that what the API server stores can be compared
with what is wanted. No webhook covers kind KubeVirt, DELETE, status or an object that is being
deleted: no webhook holds up the deletion of a machine (ADR 12: what does, of a namespace). Of evictions
only those of pods with the name of a launcher, or of what holds a volume for one, are asked about (ADR 6).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from podvisor_controller.vmi.attachment_pod import ATTACHMENT_POD_PREFIX
from podvisor_controller.vmi.pod import LAUNCHER_POD_PREFIX

SERVICE = "virt-controller"
MUTATING = "podvisor-mutating"
VALIDATING = "podvisor-validating"
CONVERTED_CRD = "virtualmachines.kubevirt.io"

TIMEOUT_S = 10
# Who drains a node waits for each pod in turn.
EVICTION_TIMEOUT_S = 5

VM_MUTATE = "/virtualmachines-mutate"
VMI_MUTATE = "/virtualmachineinstances-mutate"
VM_VALIDATE = "/virtualmachines-validate"
VMI_VALIDATE_CREATE = "/virtualmachineinstances-validate-create"
VMI_VALIDATE_UPDATE = "/virtualmachineinstances-validate-update"
POD_EVICTION = "/pod-eviction-validate"
REPLICA_SET_VALIDATE = "/virtualmachinereplicaset-validate"
POOL_VALIDATE = "/virtualmachinepool-validate"
SNAPSHOT_VALIDATE = "/virtualmachinesnapshots-validate"
EXPORT_VALIDATE = "/virtualmachineexports-validate"
RESTORE_VALIDATE = "/virtualmachinerestores-validate"
CLONE_VALIDATE = "/virtualmachineclones-validate"
CONVERT = "/convert"

Manifest = Mapping[str, Any]

_EACH_WRITE = ("CREATE", "UPDATE")
# By the API group and the version in which they get objects: name, path, resource and operations of each.
_VALIDATORS: dict[tuple[str, str], list[tuple[str, str, str, Sequence[str]]]] = {
    ("kubevirt.io", "v1"): [
        (
            "virtualmachine-validator.kubevirt.io",
            VM_VALIDATE,
            "virtualmachines",
            _EACH_WRITE,
        ),
        (
            "virtualmachineinstances-create-validator.kubevirt.io",
            VMI_VALIDATE_CREATE,
            "virtualmachineinstances",
            ("CREATE",),
        ),
        (
            "virtualmachineinstances-update-validator.kubevirt.io",
            VMI_VALIDATE_UPDATE,
            "virtualmachineinstances",
            ("UPDATE",),
        ),
        (
            "virtualmachinereplicaset-validator.kubevirt.io",
            REPLICA_SET_VALIDATE,
            "virtualmachineinstancereplicasets",
            _EACH_WRITE,
        ),
    ],
    ("pool.kubevirt.io", "v1beta1"): [
        (
            "virtualmachinepool-validator.kubevirt.io",
            POOL_VALIDATE,
            "virtualmachinepools",
            _EACH_WRITE,
        )
    ],
    ("snapshot.kubevirt.io", "v1beta1"): [
        (
            "virtualmachinesnapshot-validator.snapshot.kubevirt.io",
            SNAPSHOT_VALIDATE,
            "virtualmachinesnapshots",
            _EACH_WRITE,
        ),
        (
            "virtualmachinerestore-validator.snapshot.kubevirt.io",
            RESTORE_VALIDATE,
            "virtualmachinerestores",
            _EACH_WRITE,
        ),
    ],
    ("clone.kubevirt.io", "v1beta1"): [
        (
            "virtualmachineclone-validator.clone.kubevirt.io",
            CLONE_VALIDATE,
            "virtualmachineclones",
            _EACH_WRITE,
        )
    ],
    ("export.kubevirt.io", "v1"): [
        (
            "virtualmachineexport-validator.export.kubevirt.io",
            EXPORT_VALIDATE,
            "virtualmachineexports",
            _EACH_WRITE,
        )
    ],
}

_NOT_BEING_DELETED = {
    "name": "not-being-deleted",
    "expression": "!has(object.metadata.deletionTimestamp)",
}
# The object of an eviction is the Eviction: of the pod itself no more is known than its name.
_IS_OURS = {
    "name": "launcher-pod",
    "expression": " || ".join(
        f'request.name.startsWith("{prefix}")'
        for prefix in (LAUNCHER_POD_PREFIX, ATTACHMENT_POD_PREFIX)
    ),
}


def mutating_configuration(
    namespace: str, ca_bundle: bytes, owner: Manifest | None = None
) -> dict[str, Any]:
    """The MutatingWebhookConfiguration. `owner`, an ownerReference, has it deleted along with the
    chart.
    """
    vm = ("virtualmachines-mutator.kubevirt.io", VM_MUTATE, "virtualmachines", ["CREATE", "UPDATE"])
    vmi = (
        "virtualmachineinstances-mutator.kubevirt.io",
        VMI_MUTATE,
        "virtualmachineinstances",
        ["CREATE", "UPDATE"],
    )
    webhooks = [
        {**_webhook(*one, namespace=namespace, ca_bundle=ca_bundle), "reinvocationPolicy": "Never"}
        for one in (vm, vmi)
    ]
    return _configuration("MutatingWebhookConfiguration", MUTATING, webhooks, owner)


def validating_configuration(
    namespace: str, ca_bundle: bytes, owner: Manifest | None = None
) -> dict[str, Any]:
    """The ValidatingWebhookConfiguration."""
    webhooks = [
        _webhook(*one, api=api, namespace=namespace, ca_bundle=ca_bundle)
        for api, rows in _VALIDATORS.items()
        for one in rows
    ]
    webhooks.append(_eviction_webhook(namespace, ca_bundle))
    return _configuration("ValidatingWebhookConfiguration", VALIDATING, webhooks, owner)


def conversion(namespace: str, ca_bundle: bytes) -> dict[str, Any]:
    """`spec.conversion` of the VirtualMachine definition."""
    return {
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": _client_config(namespace, CONVERT, ca_bundle),
            "conversionReviewVersions": ["v1"],
        },
    }


def server_names(namespace: str) -> list[str]:
    """The names a leaf must carry; the API server asks for the first."""
    return [
        f"{SERVICE}.{namespace}.svc",
        f"{SERVICE}.{namespace}",
        f"{SERVICE}.{namespace}.svc.cluster.local",
    ]


def is_covered(desired: Any, live: Any) -> bool:
    """Whether `live` says all that `desired` does; what the API server added does not matter."""
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            key in live and is_covered(value, live[key]) for key, value in desired.items()
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return (
            isinstance(live, Sequence)
            and len(desired) == len(live)
            and all(is_covered(*pair) for pair in zip(desired, live, strict=True))
        )
    return bool(desired == live)


def trusts(configurations: Sequence[Any], definition: Any, ca_bundle: bytes) -> bool:
    """Whether every webhook and the conversion, as the API server has them (None: not at all), name `ca_bundle`."""
    if definition is None or None in configurations:
        return False
    clients = [
        webhook["clientConfig"]
        for configuration in configurations
        for webhook in configuration["webhooks"]
    ]
    conversion = definition["spec"].get("conversion", {}).get("webhook", {})
    clients.append(conversion.get("clientConfig", {}))
    wanted = base64.b64encode(ca_bundle).decode()
    return all(client.get("caBundle") == wanted for client in clients)


def _webhook(
    name: str,
    path: str,
    resource: str,
    operations: Sequence[str],
    *,
    namespace: str,
    ca_bundle: bytes,
    api: tuple[str, str] = ("kubevirt.io", "v1"),
) -> dict[str, Any]:
    group, version = api
    return {
        "name": name,
        "clientConfig": _client_config(namespace, path, ca_bundle),
        # Other versions arrive converted to this one.
        "rules": [
            {
                "apiGroups": [group],
                "apiVersions": [version],
                "resources": [resource],
                "operations": list(operations),
                "scope": "Namespaced",
            }
        ],
        "matchPolicy": "Equivalent",
        "matchConditions": [_NOT_BEING_DELETED],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_S,
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {},
        "objectSelector": {},
    }


def _eviction_webhook(namespace: str, ca_bundle: bytes) -> dict[str, Any]:
    webhook = _webhook(
        "virt-launcher-eviction-interceptor.kubevirt.io",
        POD_EVICTION,
        "pods/eviction",
        ["CREATE"],
        namespace=namespace,
        ca_bundle=ca_bundle,
    )
    [rule] = webhook["rules"]
    return {
        **webhook,
        "rules": [{**rule, "apiGroups": [""]}],
        "matchConditions": [_IS_OURS],
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": EVICTION_TIMEOUT_S,
    }


def _client_config(namespace: str, path: str, ca_bundle: bytes) -> dict[str, Any]:
    return {
        "service": {"namespace": namespace, "name": SERVICE, "path": path, "port": 443},
        "caBundle": base64.b64encode(ca_bundle).decode(),
    }


def _configuration(
    kind: str, name: str, webhooks: Sequence[Manifest], owner: Manifest | None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "labels": {
            "app.kubernetes.io/name": "podvisor",
            "app.kubernetes.io/component": SERVICE,
            "app.kubernetes.io/managed-by": SERVICE,
        },
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "webhooks": list(webhooks),
    }
