"""Evictions of launcher pods: which are refused, and what the refused ones leave behind."""

import json
from dataclasses import replace
from typing import Any

import pytest
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    KUBEVIRTS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.webhooks.eviction import evacuation_of
from podvisor_controller.webhooks.review import AdmissionRequest, Verdict, parse_admission

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import (
    ended_pod,
    lingering_pod,
    pod,
    scheduled,
    situations,
    stamp,
    vmi,
)
from tests.unit.controller.conftest import KUBEVIRT
from tests.unit.controller.scripted_cluster import MYVM, Cluster, known
from tests.unit.kube.fake_apiserver import Refuse

EXTERNAL = {"evictionStrategy": "External"}
TRIGGERED = 'Eviction triggered evacuation of VMI "shop/myvm"'


def kept(**changes: Any) -> v1.VirtualMachineInstance:
    """A running instance that somebody shall bring elsewhere."""
    status = {"phase": "Running", "nodeName": "n1", "activePods": {"pod-1": "n1"}}
    return vmi(
        spec=EXTERNAL | changes.pop("spec", {}),
        status=status | changes.pop("status", {}),
        **changes,
    )


BOUND = pod("Running", node="n1")
GOING = pod("Running", node="n1", metadata={"deletionTimestamp": stamp(1)})
FORGED = pod("Running", node="n1", metadata={"uid": "pod-2"})
OF_NOBODY = pod("Running", node="n1", metadata={"ownerReferences": []})


@pytest.mark.parametrize(
    ("launcher", "instance", "strategy", "is_refused"),
    situations(
        ("External", BOUND, kept(), "None", True),
        (
            "External, guest still starting",
            BOUND,
            kept(status={"phase": "Scheduled"}),
            "None",
            True,
        ),
        ("None", BOUND, kept(spec={"evictionStrategy": "None"}), "None", False),
        ("nobody says anything", BOUND, scheduled("Running"), "None", False),
        ("the cluster says External", BOUND, scheduled("Running"), "External", True),
        (
            "the instance says None, the cluster External",
            BOUND,
            kept(spec={"evictionStrategy": "None"}),
            "External",
            False,
        ),
        (
            "nothing can migrate",
            BOUND,
            kept(spec={"evictionStrategy": "LiveMigrateIfPossible"}),
            "None",
            False,
        ),
        ("the pod has no node", pod(), kept(status={"activePods": None}), "None", False),
        ("the pod has ended", ended_pod(0), kept(), "None", False),
        ("only its console log is left", lingering_pod(), kept(), "None", False),
        ("the pod is being deleted", GOING, kept(), "None", False),
        ("the instance has ended", BOUND, kept(status={"phase": "Succeeded"}), "None", False),
        (
            "the instance is being deleted",
            BOUND,
            kept(metadata={"deletionTimestamp": stamp(1)}),
            "None",
            False,
        ),
        ("another instance has the name now", BOUND, kept(metadata={"uid": "u2"}), "None", False),
        ("a pod that the status does not know", FORGED, kept(), "None", False),
        ("a pod without an owner", OF_NOBODY, kept(), "None", False),
    ),
)
def test_which_evictions_are_refused(
    launcher: core.Pod, instance: v1.VirtualMachineInstance, strategy: str, is_refused: bool
) -> None:
    evacuation = evacuation_of(launcher, instance, strategy)
    assert (evacuation is not None) is is_refused
    if evacuation is not None:
        assert (evacuation.node_name, evacuation.is_requested) == ("n1", False)
        assert evacuation.message == TRIGGERED


@pytest.mark.parametrize(
    ("node", "is_requested", "message"),
    situations(
        ("under way", "n1", True, f"Evacuation in progress: {TRIGGERED}"),
        ("an earlier one, of another node", "n0", False, TRIGGERED),
    ),
)
def test_an_evacuation_is_requested_once(node: str, is_requested: bool, message: str) -> None:
    evacuation = evacuation_of(BOUND, kept(status={"evacuationNodeName": node}), "None")
    assert evacuation is not None
    assert (evacuation.is_requested, evacuation.message) == (is_requested, message)


def eviction(name: str, *, dry_run: bool = False, **delete_options: Any) -> AdmissionRequest:
    """A request to evict a pod, as the API server passes it on."""
    body = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "operation": "CREATE",
            "kind": {"group": "policy", "version": "v1", "kind": "Eviction"},
            "subResource": "eviction",
            "namespace": "shop",
            "name": name,
            "dryRun": dry_run,
            "object": {"metadata": {"name": name}, "deleteOptions": delete_options or None},
        },
    }
    return parse_admission(json.dumps(body).encode())


@pytest.fixture
async def launcher(leading: Controllers, cluster: Cluster) -> str:
    """The name of the pod of a running instance whose strategy is External."""
    made = cluster.apply_vmi()
    cluster.change(VIRTUAL_MACHINE_INSTANCES, made, spec=made["spec"] | EXTERNAL)
    name: str = (await cluster.bound_pod())["metadata"]["name"]
    cluster.report("Running")
    await cluster.gate("True")
    await known(leading.caches.vmis, lambda: phase_known(leading) == "Running")
    return name


def phase_known(leading: Controllers) -> str:
    instance = leading.caches.vmis.get(MYVM)
    return instance.status.phase if instance is not None else ""


def evacuation_node(cluster: Cluster) -> str:
    return str(cluster.status(cluster.vmi).get("evacuationNodeName", ""))


async def test_a_refused_eviction_shows_in_the_status(
    leading: Controllers, cluster: Cluster, launcher: str
) -> None:
    assert await leading.evictions.review(eviction(launcher)) == Verdict(not_yet=TRIGGERED)
    assert evacuation_node(cluster) == "n1"
    await cluster.server.until(
        lambda: cluster.condition(cluster.vmi, "EvictionRequested").get("status") == "True"
    )
    condition = cluster.condition(cluster.vmi, "EvictionRequested")
    assert condition["message"] == "VMI is marked for eviction"


async def test_asking_again_writes_nothing(
    leading: Controllers, cluster: Cluster, launcher: str
) -> None:
    await leading.evictions.review(eviction(launcher))
    await cluster.server.until(lambda: bool(cluster.condition(cluster.vmi, "EvictionRequested")))
    before = cluster.writes()
    again = await leading.evictions.review(eviction(launcher))
    assert again.not_yet == f"Evacuation in progress: {TRIGGERED}"
    assert cluster.writes() == before


async def test_a_cancelled_evacuation_takes_its_condition_along(
    leading: Controllers, cluster: Cluster, launcher: str
) -> None:
    await leading.evictions.review(eviction(launcher))
    await cluster.server.until(lambda: bool(cluster.condition(cluster.vmi, "EvictionRequested")))
    status = {k: v for k, v in cluster.vmi["status"].items() if k != "evacuationNodeName"}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, status=status)
    await cluster.server.until(lambda: not cluster.condition(cluster.vmi, "EvictionRequested"))


@pytest.mark.parametrize(
    ("query", "options"),
    situations(("of the request", True, {}), ("of the eviction", False, {"dryRun": ["All"]})),
)
async def test_a_dry_run_is_refused_and_leaves_no_trace(
    leading: Controllers, cluster: Cluster, launcher: str, query: bool, options: Json
) -> None:
    before = cluster.writes()
    verdict = await leading.evictions.review(eviction(launcher, dry_run=query, **options))
    assert verdict.not_yet == TRIGGERED
    assert cluster.writes() == before
    assert evacuation_node(cluster) == ""


async def test_the_setting_of_the_cluster_counts_at_once(
    leading: Controllers, cluster: Cluster, launcher: str
) -> None:
    spec = {k: v for k, v in cluster.vmi["spec"].items() if k != "evictionStrategy"}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, spec=spec)
    await known(leading.caches.vmis, lambda: strategy_known(leading) == "")
    assert await leading.evictions.review(eviction(launcher)) == Verdict()
    settings = cluster.server.get(KUBEVIRTS, KUBEVIRT)
    assert settings is not None
    configuration = {"evictionStrategy": "External"}
    cluster.change(KUBEVIRTS, settings, spec={"configuration": configuration})
    await known(leading.caches.kubevirts, lambda: leading.config().eviction_strategy == "External")
    assert (await leading.evictions.review(eviction(launcher))).not_yet == TRIGGERED


def strategy_known(leading: Controllers) -> str:
    instance = leading.caches.vmis.get(MYVM)
    return instance.spec.eviction_strategy if instance is not None else "not there"


async def test_what_the_caches_do_not_have_is_asked_for(
    server: ApiServer, client: KubeClient, cluster: Cluster, settings: Any
) -> None:
    """A replica whose watches have told it nothing yet protects guests as well."""
    unsynced = Controllers(client, replace(settings, pod_name="late"))
    made = cluster.apply_vmi()
    cluster.change(VIRTUAL_MACHINE_INSTANCES, made, spec=made["spec"] | EXTERNAL)
    owner = {"kind": "VirtualMachineInstance", "name": "myvm", "controller": True}
    metadata = {
        "namespace": "shop",
        "name": "virt-launcher-myvm-abcde",
        "labels": {"kubevirt.io": "virt-launcher"},
        "ownerReferences": [
            {"apiVersion": "kubevirt.io/v1", "uid": made["metadata"]["uid"], **owner}
        ],
    }
    server.put(PODS, {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {}})
    verdict = await unsynced.evictions.review(eviction("virt-launcher-myvm-abcde"))
    assert verdict.not_yet == TRIGGERED
    assert evacuation_node(cluster) == "n1"


async def test_pods_that_carry_no_guest_may_go(server: ApiServer, leading: Controllers) -> None:
    server.put(PODS, {"metadata": {"namespace": "shop", "name": "virt-launcher-tool"}})
    for name in ("virt-launcher-tool", "virt-launcher-absent"):
        assert await leading.evictions.review(eviction(name)) == Verdict()


def holder_of(launcher: Json) -> Json:
    """A pod that holds a volume for the guest in that one."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": launcher["metadata"]["name"]}
    metadata = {
        "namespace": "shop",
        "name": "hp-volume-0123456789",
        "labels": {"kubevirt.io": "hotplug-disk", "podvisor.io/volume": "data"},
        "annotations": {"podvisor.io/claim": "data"},
        "ownerReferences": [owner | {"uid": launcher["metadata"]["uid"], "controller": True}],
    }
    return {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}


@pytest.mark.parametrize(
    ("change", "may_go"),
    situations(
        ("the guest runs", {}, False),
        ("it is told to end", {"metadata": {"deletionTimestamp": stamp(1)}}, True),
        ("it has ended", {"status": {"phase": "Succeeded"}}, True),
        ("it is another one's", {"metadata": {"uid": "another"}}, True),
    ),
)
async def test_what_holds_a_volume_goes_after_the_guest(
    server: ApiServer, client: KubeClient, settings: Any, change: Json, may_go: bool
) -> None:
    unsynced = Controllers(client, replace(settings, pod_name="late"))
    labels = {"kubevirt.io": "virt-launcher"}
    metadata = {"namespace": "shop", "name": "virt-launcher-x", "uid": "l-1", "labels": labels}
    launcher: Json = {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {}}
    server.put(PODS, holder_of(launcher))
    server.put(PODS, {k: v | change.get(k, {}) for k, v in launcher.items()})
    verdict = await unsynced.evictions.review(eviction("hp-volume-0123456789"))
    assert bool(verdict.not_yet) is not may_go
    assert may_go or "for the guest in pod virt-launcher-x" in verdict.not_yet


async def test_what_holds_a_volume_of_a_guest_that_is_gone_may_go(
    server: ApiServer, leading: Controllers
) -> None:
    launcher = {"metadata": {"name": "virt-launcher-gone", "uid": "l-1"}}
    server.put(PODS, holder_of(launcher))
    assert await leading.evictions.review(eviction("hp-volume-0123456789")) == Verdict()


async def test_a_pod_whose_instance_is_gone_may_go(
    leading: Controllers, cluster: Cluster, launcher: str
) -> None:
    cluster.server.remove(VIRTUAL_MACHINE_INSTANCES, MYVM)
    await known(leading.caches.vmis, lambda: leading.caches.vmis.get(MYVM) is None)
    assert await leading.evictions.review(eviction(launcher)) == Verdict()


@pytest.mark.parametrize("refusal", [Refuse(503), Refuse(404), Refuse(409)])
async def test_an_evacuation_that_cannot_be_requested_is_tried_again(
    leading: Controllers, cluster: Cluster, launcher: str, refusal: Refuse
) -> None:
    cluster.server.refuse("PATCH", "/myvm/status", refusal)
    verdict = await leading.evictions.review(eviction(launcher))
    assert "cannot tell yet" in verdict.not_yet
    assert evacuation_node(cluster) == ""
    assert (await leading.evictions.review(eviction(launcher))).not_yet == TRIGGERED
