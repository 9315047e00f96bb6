"""Volumes that come to running guests and go, against an API server on a real socket: who does what, and when."""

from collections.abc import Callable
from typing import Any

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    EVENTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import UID, claim_body, on_claim, stamp, vmi_body
from tests.unit.controller.plugged import volume, with_volumes
from tests.unit.controller.scripted_cluster import MYVM, Cluster, known
from tests.unit.controller.test_volume_claims import pods_of, put_vmi, reason_of
from tests.unit.kube.fake_apiserver import Refuse


class Guest:
    """One running guest, its handler, and the pods that hold volumes for it."""

    def __init__(self, cluster: Cluster, server: ApiServer) -> None:
        self.cluster = cluster
        self.server = server

    async def runs(self, spec: Json) -> None:
        body = vmi_body(spec=spec)
        del body["metadata"]["resourceVersion"]
        self.server.put(VIRTUAL_MACHINE_INSTANCES, body)
        await self.cluster.bound_pod()
        self.cluster.report("Running")
        await self.cluster.gate("True")

    @property
    def holders(self) -> list[Json]:
        """The pods that hold volumes, by volume and name."""
        return [
            pod
            for pod in self.server.list(PODS)
            if pod["metadata"]["labels"].get("kubevirt.io") == "hotplug-disk"
        ]

    def held(self) -> dict[str, str]:
        """What the controller tells the handler: uids of pods by volume."""
        entries = self.cluster.status(self.cluster.vmi).get("volumeStatus", [])
        return {
            e["name"]: e["hotplugVolume"]["attachPodUID"] for e in entries if "hotplugVolume" in e
        }

    def uids(self) -> list[str]:
        return sorted(pod["metadata"]["uid"] for pod in self.holders)

    def edit(self, **spec: Any) -> None:
        """Another specification, as the machine's controller writes it."""
        vmi = self.cluster.vmi
        metadata = vmi["metadata"] | {"generation": vmi["metadata"]["generation"] + 1}
        changed = vmi["spec"] | spec
        self.cluster.change(VIRTUAL_MACHINE_INSTANCES, vmi, metadata=metadata, spec=changed)

    def says(self, name: str, phase: str) -> None:
        """The handler's word on a volume."""
        status = self.cluster.vmi["status"]
        entries = [
            e | (_word(phase, e) if e["name"] == name else {}) for e in status["volumeStatus"]
        ]
        changed = status | {"volumeStatus": entries}
        self.cluster.change(VIRTUAL_MACHINE_INSTANCES, self.cluster.vmi, status=changed)

    async def is_told(self, holds: Callable[[dict[str, str]], bool]) -> None:
        await self.server.until(lambda: holds(self.held()))


def objects(cluster: Cluster) -> list[str]:
    """The writes of ours, but for events."""
    return [write for write in cluster.writes() if "events" not in write]


def reasons(server: ApiServer, about: str = "myvm") -> list[str]:
    return sorted(e["reason"] for e in server.list(EVENTS) if e["regarding"]["name"] == about)


def _word(phase: str, entry: dict[str, Any]) -> dict[str, Any]:
    is_let_go = phase == "UnMountedFromPod"
    about = {"unmountedPodUID": entry["hotplugVolume"]["attachPodUID"]} if is_let_go else {}
    return {"phase": phase, **about}


async def test_a_volume_comes_and_goes(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    guest = Guest(cluster, server)
    await guest.runs(with_volumes())
    before = len(objects(cluster))
    guest.edit(**with_volumes(volume()))
    await guest.is_told(lambda held: list(held) == ["data"])
    [holder] = guest.holders
    assert guest.held() == {"data": holder["metadata"]["uid"]}
    assert objects(cluster)[before:] == ["POST pods", "PATCH virtualmachineinstances/status"]
    assert cluster.status(cluster.vmi)["phase"] == "Running"
    [entry] = cluster.status(cluster.vmi)["volumeStatus"]
    assert entry["persistentVolumeClaimInfo"]["capacity"] == {"storage": "10Gi"}

    guest.says("data", "Ready")
    guest.edit(**with_volumes())
    guest.says("data", "Detaching")
    await server.until(lambda: reasons(server) == ["SuccessfulCreate"] * 2)
    assert guest.holders == [holder]
    guest.says("data", "UnMountedFromPod")
    await server.until(lambda: not guest.holders)
    [deleted] = [r for r in server.requests if r.method == "DELETE"]
    assert deleted.body["gracePeriodSeconds"] == 1
    assert deleted.body["preconditions"] == {"uid": holder["metadata"]["uid"]}
    await server.until(lambda: reasons(server)[2:] == ["SuccessfulDelete"])


async def test_a_volume_is_there_from_the_start(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    guest = Guest(cluster, server)
    await guest.runs(with_volumes(volume()))
    await guest.is_told(bool)
    [launcher] = [
        p for p in cluster.pods if p["metadata"]["labels"]["kubevirt.io"] == "virt-launcher"
    ]
    assert not any("persistentVolumeClaim" in v for v in launcher["spec"]["volumes"])
    assert guest.holders[0]["metadata"]["ownerReferences"][0]["uid"] == launcher["metadata"]["uid"]


async def test_a_pod_that_vanished_or_failed_has_a_successor(
    cluster: Cluster, server: ApiServer, client: KubeClient, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    guest = Guest(cluster, server)
    await guest.runs(with_volumes(volume()))
    await guest.is_told(bool)
    first = guest.uids()
    server.remove(PODS, ObjectKey("shop", guest.holders[0]["metadata"]["name"]))
    await guest.is_told(lambda held: [*held.values()] == guest.uids() != first)
    [second] = guest.holders
    cluster.change(PODS, second, status={"phase": "Failed", "reason": "Evicted"})
    await guest.is_told(lambda held: bool(held) and second["metadata"]["uid"] not in held.values())
    await server.until(lambda: [*guest.held().values()] == guest.uids())
    assert cluster.status(cluster.vmi)["phase"] == "Running"


async def test_a_claim_that_is_missing_troubles_no_guest(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    guest = Guest(cluster, server)
    await guest.runs(with_volumes(volume()))
    await server.until(lambda: reason_of(server, MYVM) == "FailedPvcNotFound")
    assert cluster.status(cluster.vmi)["phase"] == "Running"
    assert not guest.holders
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    await guest.is_told(bool)
    await server.until(lambda: reason_of(server, MYVM) is None)
    assert reasons(server).count("FailedPvcNotFound") == 1


async def test_what_could_not_be_written_is_not_told(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    guest = Guest(cluster, server)
    await guest.runs(with_volumes())
    theirs = ('.status.conditions[type="Synchronized"].reason',)
    for _ in range(2):
        server.refuse("PATCH", "/myvm/status", Refuse(409, "Conflict", "", fields=theirs))
    guest.edit(**with_volumes(volume()))
    await server.until(lambda: server.refused == 1)
    guest.edit()
    await server.until(lambda: server.refused == 2)
    assert "FailedPvcNotFound" not in reasons(server)
    guest.edit()
    await server.until(lambda: "FailedPvcNotFound" in reasons(server))
    assert reason_of(server, MYVM) == "FailedPvcNotFound"


async def test_a_claim_that_another_has_is_waited_for(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    other = put_vmi(server, "other", on_claim())
    await server.until(lambda: bool(pods_of(server, other)))
    [its] = pods_of(server, other)
    cluster.change(PODS, its, spec=its["spec"] | {"nodeName": "n1"}, status={"phase": "Running"})
    body = vmi_body(spec=with_volumes(volume()))
    del body["metadata"]["resourceVersion"]
    server.put(VIRTUAL_MACHINE_INSTANCES, body)
    await server.until(lambda: bool(pods_of(server, MYVM)))
    [mine] = pods_of(server, MYVM)
    cluster.change(PODS, mine, spec=mine["spec"] | {"nodeName": "n1"}, status={"phase": "Running"})
    await server.until(lambda: reason_of(server, MYVM) == "VolumeInUse")
    guest = Guest(cluster, server)
    assert not guest.holders
    ended: Any = server.get(VIRTUAL_MACHINE_INSTANCES, other)
    status = ended["status"] | {"phase": "Succeeded"}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, ended, status=status)
    await guest.is_told(bool)
    await server.until(lambda: reason_of(server, MYVM) is None)


async def test_a_guest_whose_pods_were_deleted_by_force_has_its_claim_still(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    guest = Guest(cluster, server)
    await guest.runs(with_volumes(volume()))
    await guest.is_told(bool)
    held = guest.held()
    for pod in (*pods_of(server, MYVM), *guest.holders):
        server.remove(PODS, ObjectKey("shop", pod["metadata"]["name"]))
    other = put_vmi(server, "other", with_volumes(volume()))
    made: Any = server.get(VIRTUAL_MACHINE_INSTANCES, other)
    older = made["metadata"] | {"creationTimestamp": stamp(3600)}
    cluster.change(VIRTUAL_MACHINE_INSTANCES, made, metadata=older)
    await server.until(lambda: bool(pods_of(server, other)))
    [its] = pods_of(server, other)
    cluster.change(PODS, its, spec=its["spec"] | {"nodeName": "n1"}, status={"phase": "Running"})
    await server.until(lambda: reason_of(server, other) == "VolumeInUse")
    assert (guest.holders, guest.held()) == ([], held)


async def test_what_held_volumes_goes_with_the_guest_when_its_launcher_has_gone(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    guest = Guest(cluster, server)
    await guest.runs(with_volumes(volume()))
    await guest.is_told(bool)
    [launcher] = pods_of(server, MYVM)
    server.remove(PODS, ObjectKey("shop", launcher["metadata"]["name"]))
    await known(leading.caches.pods, lambda: len(leading.caches.pods.list()) == 1)
    assert guest.holders
    cluster.report("Succeeded", ready="False")
    await server.until(lambda: not guest.holders)


async def test_what_a_quota_does_not_let_be_made_is_said_and_tried_again(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    guest = Guest(cluster, server)
    await guest.runs(with_volumes())
    server.is_forbidden = lambda request: (
        request.method == "POST" and request.path.endswith("/pods")
    )
    guest.edit(**with_volumes(volume()))
    await server.until(lambda: reason_of(server, MYVM) == "FailedHotplugSync")
    message = cluster.condition(cluster.vmi, "Synchronized")["message"]
    assert 'The pod for volume "data" cannot be created' in message
    server.is_forbidden = lambda _: False
    await guest.is_told(bool)
    await server.until(lambda: reason_of(server, MYVM) is None)


async def test_what_holds_volumes_goes_with_the_guest(
    cluster: Cluster, server: ApiServer, leading: Controllers
) -> None:
    server.put(PERSISTENT_VOLUME_CLAIMS, claim_body())
    guest = Guest(cluster, server)
    await guest.runs(with_volumes(volume()))
    await guest.is_told(bool)
    cluster.report("Succeeded", ready="False")
    await server.until(lambda: not guest.holders)
    assert cluster.vmi["metadata"]["uid"] == UID
