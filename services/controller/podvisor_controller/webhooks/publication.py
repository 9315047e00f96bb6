"""Tells of our authority: the API server, by both webhook configurations, the conversion entry and the aggregated API's services, and
the handlers, by a ConfigMap.

Services and ConfigMap are published apart: whoever may not write them has working webhooks all the same.
Idempotent; reads before it writes, so a pass over a published state writes nothing. Publishing is for
the leader alone, for replicas of two releases would undo each other's; anybody may ask whether it is done.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiForbidden, ApiNotFound
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    CRDS,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    ObjectKey,
    Resource,
)
from podvisor_common.tls.identities import TRUST_CONFIG_MAP, TRUST_FIELD

from podvisor_controller.subresources import api_services
from podvisor_controller.subresources.api_services import API_SERVICES
from podvisor_controller.webhooks import registration

FIELD_MANAGER = "virt-controller"
# The chart's ClusterRole owns the configurations: uninstalling the chart takes them along.
OWNER = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
OWNER_NAME = "virt-controller"


async def publish(client: KubeClient, namespace: str, ca_bundle: bytes) -> None:
    """Make webhooks and conversion say what they should, with `ca_bundle`, and return when they were
    read back so.

    Raises ApiError; calling it again continues where it stopped.
    """
    owner = await _owner(client)
    mutating = registration.mutating_configuration(namespace, ca_bundle, owner)
    await _bring(client, MUTATING_WEBHOOKS, ObjectKey("", registration.MUTATING), mutating)
    validating = registration.validating_configuration(namespace, ca_bundle, owner)
    await _bring(client, VALIDATING_WEBHOOKS, ObjectKey("", registration.VALIDATING), validating)
    await _bring_conversion(client, registration.conversion(namespace, ca_bundle))


async def publish_api_services(client: KubeClient, namespace: str, ca_bundle: bytes) -> None:
    """Have the API server ask us for the aggregated API, trusting `ca_bundle`. Raises ApiError; may be repeated."""
    owner = await _owner(client)
    for version, name in api_services.NAMES.items():
        service = api_services.api_service(version, namespace, ca_bundle, owner)
        await _bring(client, API_SERVICES, ObjectKey("", name), service)


async def publish_trust(client: KubeClient, namespace: str, ca_bundle: bytes) -> None:
    """Have handlers trust `ca_bundle`. Raises ApiError; may be repeated."""
    manifest = {
        "apiVersion": CONFIGMAPS.api_version,
        "kind": CONFIGMAPS.kind,
        "metadata": {
            "name": TRUST_CONFIG_MAP,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/name": "podvisor",
                "app.kubernetes.io/component": registration.SERVICE,
            },
        },
        "data": {TRUST_FIELD: ca_bundle.decode()},
    }
    await _bring(client, CONFIGMAPS, ObjectKey(namespace, TRUST_CONFIG_MAP), manifest)


async def is_published(client: KubeClient, ca_bundle: bytes) -> bool:
    """Whether the API server trusts `ca_bundle` where it asks our webhooks, as whichever release put it."""
    configurations = [
        await _read(client, MUTATING_WEBHOOKS, ObjectKey("", registration.MUTATING)),
        await _read(client, VALIDATING_WEBHOOKS, ObjectKey("", registration.VALIDATING)),
    ]
    definition = await _read(client, CRDS, ObjectKey("", registration.CONVERTED_CRD))
    return registration.trusts(configurations, definition, ca_bundle)


async def _bring(
    client: KubeClient, resource: Resource, key: ObjectKey, desired: Mapping[str, Any]
) -> None:
    live = await _read(client, resource, key)
    if live is None or not registration.is_covered(desired, live):
        await client.apply(resource, key, desired, field_manager=FIELD_MANAGER, force=True)


async def _bring_conversion(client: KubeClient, desired: Mapping[str, Any]) -> None:
    key = ObjectKey("", registration.CONVERTED_CRD)
    live = msgspec.json.decode(await client.get(CRDS, key))
    if not registration.is_covered(desired, live["spec"].get("conversion", {})):
        await client.merge_patch(CRDS, key, {"spec": {"conversion": desired}})


async def _owner(client: KubeClient) -> dict[str, Any] | None:
    """An ownerReference to the chart's ClusterRole; None for an installation that was not made by
    the chart.
    """
    try:
        found = await client.get(OWNER, ObjectKey("", OWNER_NAME))
    except (ApiNotFound, ApiForbidden):
        return None
    return {
        "apiVersion": OWNER.api_version,
        "kind": OWNER.kind,
        "name": OWNER_NAME,
        "uid": msgspec.json.decode(found)["metadata"]["uid"],
    }


async def _read(client: KubeClient, resource: Resource, key: ObjectKey) -> Any:
    try:
        return msgspec.json.decode(await client.get(resource, key))
    except ApiNotFound:
        return None
