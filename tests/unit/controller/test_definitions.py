"""NetworkAttachmentDefinitions that a machine's networks need: which, what is said where one is not there, and when it starts."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1.names import VMI_FINALIZER
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    EVENTS,
    NETWORK_ATTACHMENT_DEFINITIONS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.vmi.definition_lookup import ALL_THERE_FOR_S, DefinitionLookup
from podvisor_controller.vmi.definitions import (
    ALL_THERE,
    Absence,
    Definitions,
    definitions_needed,
)
from podvisor_controller.vmi.plan import CreatePod, plan
from podvisor_controller.vmi.status import status_of

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import NOW, Json, observed, situations, stamp, vmi, vmi_body
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.controller.test_pod_networks import POD, attached, lan
from tests.unit.controller.test_stale_caches import Scene
from tests.unit.kube.fake_apiserver import Refuse

GROUP = NETWORK_ATTACHMENT_DEFINITIONS.group
LAN = ObjectKey("shop", "lan")
ON_LAN: Json = {
    "domain": {
        "devices": {
            "interfaces": [{"name": "default", "masquerade": {}}, {"name": "blue", "bridge": {}}]
        }
    },
    "networks": [POD, lan("blue", "lan")],
}


@pytest.mark.parametrize(
    ("instance", "needed"),
    situations(
        ("no network", vmi(), {}),
        ("the pod's", attached(POD), {}),
        ("its own namespace's", attached(POD, lan("blue", "lan")), {"blue": LAN}),
        (
            "another namespace's",
            attached(lan("blue", "shared/lan")),
            {"blue": ObjectKey("shared", "lan")},
        ),
        ("unplugged", attached(lan("blue", "lan"), blue={"state": "absent"}), {}),
        (
            "in place of the pod's",
            attached(lan("red", "shared/lan", default=True)),
            {"red": ObjectKey("shared", "lan")},
        ),
        (
            "in place of the pod's, by Multus' own namespace",
            attached(lan("red", "lan", default=True)),
            {},
        ),
    ),
)
def test_what_an_instance_needs(instance: Any, needed: dict[str, ObjectKey]) -> None:
    assert definitions_needed(instance) == needed


@pytest.mark.parametrize(
    ("absent", "words"),
    situations(
        ("all are there", {}, ""),
        ("another is not there", {ObjectKey("shop", "other"): Absence.DEFINITION}, ""),
        (
            "it is not there",
            {LAN: Absence.DEFINITION},
            'NetworkAttachmentDefinition shop/lan does not exist. Network "blue" needs it; the machine starts when',
        ),
        ("nor is Multus", {LAN: Absence.KIND}, "Multus is not installed"),
    ),
)
def test_what_is_said(absent: dict[ObjectKey, Absence], words: str) -> None:
    now = observed(attached(POD, lan("blue", "lan")), definitions=Definitions(absent, NOW))
    if not words:
        assert [type(action) for action in plan(now)] == [CreatePod]
        return
    assert plan(now) == []
    status = status_of(now)
    assert status is not None
    assert status["phase"] == "Pending"
    told = next(c for c in status["conditions"] if c["type"] == "Synchronized")
    assert (told["status"], told["reason"]) == ("False", "FailedCreate")
    assert words in told["message"]


def test_it_is_looked_again_in_time() -> None:
    now = observed(
        attached(lan("blue", "lan")),
        definitions=Definitions({LAN: Absence.DEFINITION}, NOW.replace(second=17)),
    )
    assert now.look_again_in_s == 17


def apply(cluster: Cluster, spec: Json = ON_LAN) -> None:
    metadata = {"namespace": "shop", "name": "myvm", "finalizers": [VMI_FINALIZER]}
    body = {"metadata": metadata, "spec": {**spec, "terminationGracePeriodSeconds": 5}}
    cluster.server.put(VIRTUAL_MACHINE_INSTANCES, body)


def trouble(cluster: Cluster) -> str:
    return str(cluster.condition(cluster.vmi, "Synchronized").get("message", ""))


def asked(server: ApiServer) -> int:
    return sum(f"/{NETWORK_ATTACHMENT_DEFINITIONS.plural}/" in r.path for r in server.requests)


async def test_a_machine_starts_when_its_network_is_defined(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    apply(cluster)
    await server.until(lambda: "shop/lan does not exist" in trouble(cluster))
    await server.until(lambda: bool(server.list(EVENTS)))
    assert [e["reason"] for e in server.list(EVENTS)] == ["FailedCreate"]
    assert cluster.pods == []
    server.put(NETWORK_ATTACHMENT_DEFINITIONS, {"metadata": {"namespace": "shop", "name": "lan"}})
    await cluster.bound_pod()
    assert trouble(cluster) == ""


async def test_a_cluster_without_multus(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.absent.add(GROUP)
    apply(cluster)
    await server.until(lambda: "Multus is not installed" in trouble(cluster))
    assert len(server.absent_asked) == 1
    assert cluster.pods == []
    server.absent.clear()
    await server.until(lambda: "shop/lan does not exist" in trouble(cluster))
    vmi = cluster.vmi
    metadata = vmi["metadata"] | {"deletionTimestamp": stamp(1)}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, vmi, metadata=metadata)
    await server.until(lambda: cluster.vmi is None)


async def test_what_may_not_be_read_counts_as_there(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    path = NETWORK_ATTACHMENT_DEFINITIONS.path("shop", "lan")
    server.refuse("GET", path, Refuse(403, "Forbidden"))
    apply(cluster)
    await cluster.pod()
    assert server.refused == 1


async def test_a_machine_on_the_pod_network_asks_for_nothing(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    apply(cluster, {"domain": {"devices": {}}})
    await cluster.bound_pod()
    assert asked(server) == 0


async def test_what_is_there_is_not_asked_for_again_at_once(
    server: ApiServer, client: KubeClient
) -> None:
    at = NOW
    lookup = DefinitionLookup(client, lambda: at)
    on_lan, on_both = attached(lan("blue", "lan")), attached(lan("blue", "lan"), lan("red", "red"))
    server.put(NETWORK_ATTACHMENT_DEFINITIONS, {"metadata": {"namespace": "shop", "name": "lan"}})
    for _ in range(3):
        assert await lookup.of(on_lan, has_pod=False) == ALL_THERE
    assert asked(server) == 1
    at += timedelta(seconds=ALL_THERE_FOR_S)
    assert await lookup.of(on_lan, has_pod=False) == ALL_THERE
    assert asked(server) == 2
    found = await lookup.of(on_both, has_pod=False)
    assert found.absent == {ObjectKey("shop", "red"): Absence.DEFINITION}
    assert asked(server) == 4


async def test_a_definition_that_is_needed_since_is_asked_for(
    server: ApiServer, client: KubeClient
) -> None:
    """While another one is waited for."""
    lookup = DefinitionLookup(client, lambda: NOW)
    server.put(NETWORK_ATTACHMENT_DEFINITIONS, {"metadata": {"namespace": "shop", "name": "lan"}})
    found = await lookup.of(attached(lan("blue", "away")), has_pod=False)
    assert found.absent == {ObjectKey("shop", "away"): Absence.DEFINITION}
    again = await lookup.of(attached(lan("blue", "gone")), has_pod=False)
    assert again.absent == {ObjectKey("shop", "gone"): Absence.DEFINITION}


async def test_a_machine_that_waits_for_a_claim_asks_seldom(
    server: ApiServer, client: KubeClient
) -> None:
    scene = Scene(client)
    server.put(NETWORK_ATTACHMENT_DEFINITIONS, {"metadata": {"namespace": "shop", "name": "lan"}})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}}
    body = vmi_body(spec={**ON_LAN, "volumes": [volume]})
    del body["metadata"]["resourceVersion"]
    made = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(made, v1.VirtualMachineInstance)])
    for _ in range(3):
        await scene.reconciler.reconcile(MYVM)
    assert server.list(PODS) == []
    assert asked(server) == 1
