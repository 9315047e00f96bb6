"""Edits of a running machine's interfaces, against an API server: what becomes of the instance and of its pod."""

import json

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.controller import Requeue
from podvisor_common.kube.resources import (
    EVENTS,
    NETWORK_ATTACHMENT_DEFINITIONS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
)
from podvisor_common.network_selections import read_networks
from podvisor_controller.controllers import Controllers

from tests.unit.controller.api_server import ApiServer
from tests.unit.controller.builders import Json, vmi_body
from tests.unit.controller.scripted_cluster import MYVM, Cluster
from tests.unit.controller.test_stale_caches import Scene
from tests.unit.controller.test_vm_interfaces import (
    ABSENT,
    OTHER_MAC,
    PLAIN,
    PLUGGED,
    beside,
    nic,
)
from tests.unit.controller.test_vm_lifecycle import edit, runs
from tests.unit.kube.fake_apiserver import Refuse

NETWORKS = "k8s.v1.cni.cncf.io/networks"


def states_of(cluster: Cluster) -> dict[str, str]:
    """The states of the instance's interfaces, by their names."""
    interfaces = (cluster.vmi or {})["spec"]["domain"]["devices"]["interfaces"]
    return {interface["name"]: interface.get("state", "") for interface in interfaces}


def entries_of(cluster: Cluster) -> list[Json]:
    """What the launcher pod asks of Multus."""
    [pod] = cluster.pods
    return read_networks(pod["metadata"].get("annotations", {}).get(NETWORKS, ""))


def asked_for(cluster: Cluster) -> list[str]:
    """The definitions that the launcher pod asks Multus for."""
    return [entry["name"] for entry in entries_of(cluster)]


def annotate(cluster: Cluster, entries: list[Json]) -> None:
    """Others' word on what the launcher pod asks of Multus."""
    pod = cluster.pods[0]
    annotations = pod["metadata"].get("annotations", {}) | {NETWORKS: json.dumps(entries)}
    cluster.change(PODS, pod, metadata=pod["metadata"] | {"annotations": annotations})


def edit_template(cluster: Cluster, spec: Json) -> None:
    edit(cluster, template={**cluster.vm["spec"]["template"], "spec": spec})


def attach(cluster: Cluster, *names: str) -> None:
    """The handler's word on the interfaces that the guest has."""
    entries = [{"name": name, "infoSource": "domain"} for name in names]
    status = {**(cluster.vmi or {})["status"], "interfaces": entries}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, cluster.vmi, status=status)


def follows(cluster: Cluster) -> bool:
    """The instance is what the machine's present generation makes."""
    generation = cluster.vm["metadata"]["generation"]
    return bool(cluster.status(cluster.vm).get("observedGeneration") == generation)


async def starts(
    cluster: Cluster, server: ApiServer, spec: Json, *, annotations: dict[str, str] | None = None
) -> None:
    """A machine of that specification runs, and its networks are defined."""
    metadata = {"namespace": "shop", "name": "lan"}
    cluster.server.put(NETWORK_ATTACHMENT_DEFINITIONS, {"metadata": metadata})
    vm = cluster.apply_vm()
    template = {**vm["spec"]["template"], "spec": spec}
    if annotations is not None:
        template["metadata"] = {**template.get("metadata", {}), "annotations": annotations}
    edit(cluster, template=template)
    await runs(cluster, server)


async def test_an_interface_comes_and_goes(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server, PLAIN)
    attach(cluster, "default")
    edit_template(cluster, PLUGGED)
    await server.until(lambda: follows(cluster) and asked_for(cluster) == ["lan"])
    assert states_of(cluster) == {"default": "", "lan": ""}
    attach(cluster, "default", "lan")
    edit_template(cluster, ABSENT)
    await server.until(lambda: states_of(cluster) == {"default": "", "lan": "absent"})
    assert asked_for(cluster) == ["lan"]
    attach(cluster, "default")
    await server.until(lambda: states_of(cluster) == {"default": ""} and not asked_for(cluster))
    await server.until(lambda: follows(cluster))
    assert [n["name"] for n in cluster.vmi["spec"]["networks"]] == ["default"]
    assert NETWORKS not in cluster.pods[0]["metadata"]["annotations"]
    edit_template(cluster, PLUGGED)
    await server.until(lambda: follows(cluster) and asked_for(cluster) == ["lan"])
    assert cluster.condition(cluster.vm, "RestartRequired") == {}


async def test_a_carrier_goes_and_comes(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server, PLUGGED)
    assert asked_for(cluster) == ["lan"]
    edit_template(cluster, beside(nic(state="down")))
    await server.until(lambda: states_of(cluster)["lan"] == "down" and follows(cluster))
    edit_template(cluster, PLUGGED)
    await server.until(lambda: states_of(cluster)["lan"] == "" and follows(cluster))
    assert asked_for(cluster) == ["lan"]


async def test_another_interface_of_the_name_comes_with_the_next_start(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server, PLUGGED)
    edit_template(cluster, OTHER_MAC)
    await server.until(lambda: bool(cluster.condition(cluster.vm, "RestartRequired")))
    assert cluster.vmi["spec"]["domain"]["devices"]["interfaces"][1] == nic()
    edit_template(cluster, PLUGGED)
    await server.until(lambda: not cluster.condition(cluster.vm, "RestartRequired"))


async def test_an_interface_that_admission_refuses_is_tried_again(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server, PLAIN)
    server.refuse("PATCH", "/virtualmachineinstances/myvm", Refuse(422, "Invalid", "not here"))
    edit_template(cluster, PLUGGED)
    await server.until(lambda: bool(cluster.condition(cluster.vm, "Failure")))
    failure = cluster.condition(cluster.vm, "Failure")
    assert failure["reason"] == "HotPlugNetworkInterfaceError"
    assert "cannot be given other interfaces: not here" in failure["message"]
    await server.until(lambda: "lan" in states_of(cluster) and follows(cluster))
    await server.until(lambda: not cluster.condition(cluster.vm, "Failure"))


async def test_a_pod_that_may_not_be_changed_is_told_of(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server, PLAIN)
    name = cluster.pods[0]["metadata"]["name"]
    server.refuse("PATCH", f"/pods/{name}", Refuse(403, "Forbidden", "a policy"))
    edit_template(cluster, PLUGGED)
    await server.until(lambda: any(e["reason"] == "FailedPodPatch" for e in server.list(EVENTS)))
    attach(cluster, "default")
    await server.until(lambda: asked_for(cluster) == ["lan"])


async def test_what_others_asked_for_is_theirs(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    """As meshes do, whose webhooks write to every pod that is made."""
    await starts(cluster, server, PLAIN)
    annotate(cluster, [{"name": "mesh", "namespace": "mesh-system"}])
    edit_template(cluster, PLUGGED)
    await server.until(lambda: asked_for(cluster) == ["mesh", "lan"])


async def test_what_others_asked_for_keeps_its_place(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    """Multus calls what names no interface by its place: another place would be another interface."""
    await starts(cluster, server, PLUGGED)
    mesh = {"name": "mesh", "namespace": "mesh-system"}
    ours = entries_of(cluster)
    annotate(cluster, [*ours, mesh])
    edit_template(cluster, beside(nic(), nic(name="more")))
    await server.until(lambda: len(entries_of(cluster)) == 3)
    assert entries_of(cluster)[:2] == [*ours, mesh]
    attach(cluster, "default", "more")
    edit_template(cluster, beside(nic(state="absent"), nic(name="more")))
    await server.until(lambda: len(entries_of(cluster)) == 2)
    assert entries_of(cluster)[0] == mesh | {"interface": "net2"}


async def test_what_webhooks_add_to_an_entry_of_ours_stays(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    """As a pool of hardware addresses does."""
    await starts(cluster, server, PLUGGED)
    given = entries_of(cluster)[0] | {"mac": "02:00:00:00:0a:01"}
    annotate(cluster, [given])
    edit_template(cluster, beside(nic(), nic(name="more")))
    await server.until(lambda: len(entries_of(cluster)) == 2)
    assert entries_of(cluster)[0] == given


async def test_what_people_ask_for_stays_beside_an_interface_that_comes(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    """By the short form of the annotation, in the template."""
    await starts(cluster, server, PLAIN, annotations={NETWORKS: "mesh-system/mesh,a@net7"})
    assert cluster.pods[0]["metadata"]["annotations"][NETWORKS] == "mesh-system/mesh,a@net7"
    edit_template(cluster, PLUGGED)
    await server.until(lambda: asked_for(cluster) == ["mesh", "a", "lan"])


async def test_a_pod_whose_networks_cannot_be_read_is_told_of(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    await starts(cluster, server, PLAIN, annotations={NETWORKS: "a/b/c"})
    edit_template(cluster, PLUGGED)
    await server.until(lambda: any(e["reason"] == "FailedPodPatch" for e in server.list(EVENTS)))
    [note] = [e["note"] for e in server.list(EVENTS) if e["reason"] == "FailedPodPatch"]
    assert f'of its annotation {NETWORKS}, "a/b/c" is no network' in note


async def test_a_pod_that_may_not_be_changed_is_tried_again(
    server: ApiServer, client: KubeClient
) -> None:
    """Without any news: whoever refused does not tell when it would not any more."""
    scene = Scene(client)
    body = vmi_body()
    del body["metadata"]["resourceVersion"]
    made = server.put(VIRTUAL_MACHINE_INSTANCES, body)
    scene.vmis.replace([msgspec.convert(made, v1.VirtualMachineInstance)])
    await scene.reconciler.reconcile(MYVM)
    [pod] = server.list(PODS)
    scene.pods.apply(msgspec.convert(pod, core.Pod))
    plugged = server.put(VIRTUAL_MACHINE_INSTANCES, {**made, "spec": PLUGGED})
    scene.vmis.apply(msgspec.convert(plugged, v1.VirtualMachineInstance))
    server.refuse("PATCH", f"/pods/{pod['metadata']['name']}", Refuse(403, "Forbidden", "a policy"))
    assert await scene.reconciler.reconcile(MYVM) == Requeue(30.0)
    assert await scene.reconciler.reconcile(MYVM) is None
    [pod] = server.list(PODS)
    assert [n["name"] for n in json.loads(pod["metadata"]["annotations"][NETWORKS])] == ["lan"]
