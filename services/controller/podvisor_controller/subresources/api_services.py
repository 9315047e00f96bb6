"""The APIService objects that make the API server send calls of this API to us. Pure.

As with the webhooks, every field is spelled out, so that what is stored can be compared with what is wanted.
"""

import base64
from collections.abc import Mapping
from typing import Any

from podvisor_common.kube.resources import Resource

from podvisor_controller.subresources.verbs import GROUP, VERSIONS
from podvisor_controller.webhooks.registration import SERVICE

API_SERVICES = Resource(
    "apiregistration.k8s.io", "v1", "apiservices", "APIService", namespaced=False
)
# Of the Service; the webhooks have 443 for themselves, with another idea of clients' certificates.
SERVICE_PORT = 8444
NAMES = {version: f"{version}.{GROUP}" for version in VERSIONS}


def api_service(
    version: str, namespace: str, ca_bundle: bytes, owner: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The APIService of a version. `owner`, an ownerReference, has it deleted along with the chart."""
    metadata: dict[str, Any] = {
        "name": NAMES[version],
        "labels": {
            "app.kubernetes.io/name": "podvisor",
            "app.kubernetes.io/component": SERVICE,
            "app.kubernetes.io/managed-by": SERVICE,
        },
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner]
    return {
        "apiVersion": API_SERVICES.api_version,
        "kind": API_SERVICES.kind,
        "metadata": metadata,
        "spec": {
            "group": GROUP,
            "version": version,
            "groupPriorityMinimum": 1000,
            "versionPriority": 15,
            "service": {"namespace": namespace, "name": SERVICE, "port": SERVICE_PORT},
            "caBundle": base64.b64encode(ca_bundle).decode(),
        },
    }
