"""Exports against an API server on a real socket, with a kubelet that does its part."""

import json
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from aiohttp import web
from podvisor_common.api import core, v1
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    EXPORTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    VIRTUAL_MACHINE_INSTANCES,
    VOLUME_SNAPSHOTS,
    ObjectKey,
)
from podvisor_common.tls.authority import is_signed_by, parse_certificate
from podvisor_controller.controllers import Controllers
from podvisor_controller.export.holders import EXPORTED_INDEX, ExportedClaims, claims_exported
from podvisor_controller.export.makers import TOKEN_LENGTH
from podvisor_controller.export.pod import VOLUMES_ANNOTATION
from podvisor_controller.export.pod_users import PAGE_SIZE, find_pod_in_the_way
from podvisor_controller.settings import Settings

from tests.unit.controller.api_server import ApiServer, Fate, Json
from tests.unit.controller.builders import spec_body, vmi_body
from tests.unit.controller.exports import (
    KEY,
    MACHINE,
    POD,
    SNAPSHOT,
    TOKEN,
    ExportUser,
    export,
    leader,
)
from tests.unit.controller.snapshots import snapshot_body
from tests.unit.kube.fake_apiserver import Refuse

INDEXERS = {EXPORTED_INDEX: claims_exported}
CONTENT = ObjectKey("shop", "vmsnapshot-content-1")
BASE = "https://virt-export-copy.shop.svc"


@pytest.fixture
async def exports(server: ApiServer) -> AsyncIterator[ExportUser]:
    async with KubeClient.for_url(server.url, user_agent="exports") as client:
        yield ExportUser(server, client)


async def test_a_disk_in_a_claim(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    await exports.ask()
    pod = await exports.until_pod()
    waiting = await exports.until_reason("PodPending")
    assert waiting["status"] == "False"
    assert "links" not in exports.status
    exports.run_pod(0)
    links = await exports.until_ready()
    assert links["volumes"] == [
        {
            "name": "data",
            "formats": [
                {"format": "raw", "url": f"{BASE}/volumes/data/disk.img"},
                {"format": "gzip", "url": f"{BASE}/volumes/data/disk.img.gz"},
            ],
        }
    ]
    assert links["manifests"] == [
        {"type": "auth-header-secret", "url": f"{BASE}/internal/manifests/secret"}
    ]
    assert links["cert"] == exports.authority.strip()
    status = exports.status
    assert status["serviceName"] == "virt-export-copy"
    assert status["tokenSecretRef"] == "export-token-copy"
    assert exports.condition("Ready")["reason"] == "PodReady"
    assert exports.condition("PVCReady")["reason"] == "PVCBound"
    assert len(exports.token) == TOKEN_LENGTH
    assert exports.service is not None
    selector = exports.service["spec"]["selector"]
    assert selector.items() <= pod["metadata"]["labels"].items()
    await exports.server.until(lambda: "ExporterPodCreated" in exports.events())


async def test_an_export_costs_eight_writes_and_four_events(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    exports.run_pod(0)
    await exports.until_ready()
    await exports.server.until(lambda: len(exports.events()) == 4)
    writes = [
        request.path
        for request in exports.server.requests
        if request.method != "GET" and request.headers["User-Agent"] == "test"
    ]
    assert len([path for path in writes if "/shop/" in path and "/events" not in path]) <= 8


async def test_files_in_a_claim(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    exports.run_pod()
    [volume] = (await exports.until_ready())["volumes"]
    assert volume["formats"] == [
        {"format": "dir", "url": f"{BASE}/volumes/data/dir"},
        {"format": "tar.gz", "url": f"{BASE}/volumes/data/disk.tar.gz"},
    ]


async def test_the_certificate_is_a_servers_of_that_name(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    identity = exports.identity
    assert identity is not None
    assert is_signed_by(identity["tls.crt"], exports.authority.encode())
    certificate = parse_certificate(identity["tls.crt"])
    text = str(certificate.extensions)
    assert "virt-export-copy.shop.svc" in text
    assert "serverAuth" in text
    assert "clientAuth" not in text
    secrets = [one["metadata"] for one in exports.server.list(SECRETS)]
    [owner] = [
        one["ownerReferences"][0]["kind"]
        for one in secrets
        if one["name"].startswith("virt-export-")
    ]
    assert owner == "Pod"


async def test_a_token_of_the_users(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    await exports.ask(tokenSecretRef="secret-copy")
    pod = await exports.until_pod()
    assert "secret-copy" in json.dumps(pod["spec"]["volumes"])
    assert exports.server.get(SECRETS, TOKEN) is None
    waiting = await exports.until_reason("PodPending")
    assert "secret-copy" in waiting["message"]
    assert exports.status["tokenSecretRef"] == "secret-copy"


async def test_a_claim_that_is_not_there_is_waited_for(
    exports: ExportUser, leading: Controllers
) -> None:
    await exports.ask()
    told = await exports.until_reason("PVCNotFound", "PVCReady")
    assert told["message"] == "PersistentVolumeClaim shop/data not found"
    assert exports.condition("Ready")["reason"] == "Initializing"
    exports.provide()
    await exports.until_pod()


def user_pod(**volume: object) -> Json:
    return {
        "metadata": {"namespace": "shop", "name": "writer"},
        "spec": {
            "volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "data"} | volume}]
        },
        "status": {"phase": "Running"},
    }


async def test_a_claim_in_use_is_not_exported(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    exports.server.put(PODS, user_pod())
    await exports.ask()
    told = await exports.until_reason("InUse")
    assert told["message"] == "PersistentVolumeClaim shop/data is in use by Pod writer"
    assert exports.status["phase"] == "Pending"
    assert exports.pod is None


async def test_who_has_a_claim_is_looked_for_page_by_page(
    server: ApiServer, client: KubeClient
) -> None:
    for number in range(2 * PAGE_SIZE + 1):
        ended = user_pod() | {"status": {"phase": "Succeeded"}}
        server.put(PODS, ended | {"metadata": {"namespace": "shop", "name": f"ended-{number}"}})
        idle = {"metadata": {"namespace": "shop", "name": f"idle-{number}"}}
        server.put(PODS, idle | {"status": {"phase": "Running"}})
    server.requests.clear()
    assert await find_pod_in_the_way(client, ["data"], export()) == ""
    asked = [request.query for request in server.requests if request.path.endswith("/shop/pods")]
    # Not one for those that have ended.
    assert [one["limit"] for one in asked] == [str(PAGE_SIZE)] * 3
    server.put(PODS, user_pod())
    told = await find_pod_in_the_way(client, ["data"], export())
    assert told == "PersistentVolumeClaim shop/data is in use by Pod writer"


async def test_a_list_that_takes_too_long_is_taken_in_one_piece(
    server: ApiServer, client: KubeClient
) -> None:
    server.put(PODS, user_pod())
    server.refusals.append(Refuse(410, "Expired"))
    assert await find_pod_in_the_way(client, ["data"], export())


async def test_who_only_reads_is_not_in_the_way(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    exports.server.put(PODS, user_pod(readOnly=True))
    await exports.ask()
    await exports.until_pod()


async def test_an_export_ends_when_somebody_takes_its_claim(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    exports.run_pod(0)
    await exports.until_ready()
    exports.server.put(PODS, user_pod())
    # Nobody tells of pods that are not ours: some other change has it looked at.
    exports.provide(labels={"a": "b"})
    await exports.until_reason("InUse")
    await exports.server.until(lambda: exports.pod is None)
    assert "links" not in exports.status
    await exports.server.until(lambda: "ExportPaused" in exports.events())


def start(server: ApiServer, name: str = "myvm", **volume: object) -> None:
    """Make an instance with the claim."""
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}, **volume}]
    disks = [{"name": "data", "disk": {"bus": "virtio"}}]
    domain = spec_body()["domain"] | {"devices": {"disks": disks}}
    body = vmi_body(spec=spec_body(volumes=volumes, domain=domain))
    del body["metadata"]["resourceVersion"]
    body["metadata"] |= {"name": name, "uid": f"uid-{name}"}
    server.put(VIRTUAL_MACHINE_INSTANCES, body)


def synchronized(server: ApiServer, name: str = "myvm") -> Json:
    vmi = server.get(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", name)) or {}
    conditions = vmi.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == "Synchronized"), {})


def launchers(server: ApiServer) -> list[str]:
    names = [pod["metadata"]["name"] for pod in server.list(PODS)]
    return [name for name in names if name.startswith("virt-launcher-")]


async def test_a_machine_that_starts_waits_for_the_end_of_the_export(
    exports: ExportUser, leading: Controllers
) -> None:
    server = exports.server
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    exports.run_pod(0)
    await exports.until_ready()
    start(server)
    await server.until(lambda: synchronized(server).get("reason") == "VolumeInUse")
    message = synchronized(server)["message"]
    assert "VirtualMachineExport shop/copy" in message
    assert "kubectl delete vmexport copy --namespace shop" in message
    assert launchers(server) == []
    assert exports.status["phase"] == "Ready"
    server.remove(EXPORTS, KEY)
    server.remove(PODS, POD)
    await server.until(lambda: len(launchers(server)) == 1)


def with_claim() -> v1.VirtualMachineInstance:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    body = vmi_body(spec=spec_body(volumes=[volume]))
    return msgspec.convert(body, v1.VirtualMachineInstance)


def test_a_claim_counts_as_exported_while_its_pod_is_being_asked_for(client: KubeClient) -> None:
    """However long the answer takes: a machine that is looked at meanwhile does not get the claim as well."""
    freed: list[str] = []
    claims = ExportedClaims(
        Informer(client, PODS, core.Pod, indexers=INDEXERS),
        Informer(client, EXPORTS, VirtualMachineExport),
        freed.append,
    )
    vmi = with_claim()
    with claims.asking_for(KEY, ["data"]):
        assert claims.of(vmi) == {"data": KEY}
        assert freed == []
    assert claims.of(vmi) == {}
    assert freed == ["shop/data"]


def exporter_pod(owner: Json, name: str = POD.name) -> core.Pod:
    """A pod that says of itself that it serves the claim `data`."""
    whole = {"apiVersion": EXPORTS.api_version, "kind": EXPORTS.kind, "name": KEY.name}
    metadata = {
        "namespace": KEY.namespace,
        "name": name,
        "uid": "pod-uid",
        "annotations": {VOLUMES_ANNOTATION: '[{"name":"data","claim":"data"}]'},
        "ownerReferences": [whole | {"controller": True} | owner],
    }
    return msgspec.convert({"metadata": metadata}, core.Pod)


UID = export().metadata.uid


@pytest.mark.parametrize(
    ("situation", "pod", "is_held"),
    [
        ("the export's own", exporter_pod({"uid": UID}), True),
        (
            "of an older version of the kind",
            exporter_pod({"uid": UID, "apiVersion": "export.kubevirt.io/v0"}),
            True,
        ),
        ("of no export that there is", exporter_pod({"uid": UID, "name": "other"}), False),
        ("of an export of that name before", exporter_pod({"uid": "before"}), False),
        (
            "of another kind of that name",
            exporter_pod({"uid": UID, "apiVersion": "x.test/v1"}),
            False,
        ),
        ("not the export's by its name", exporter_pod({"uid": UID}, name="mine"), False),
    ],
)
def test_only_an_exports_own_pod_holds_claims(
    client: KubeClient, situation: str, pod: core.Pod, is_held: bool
) -> None:
    pods = Informer(client, PODS, core.Pod, indexers=INDEXERS)
    known = Informer(client, EXPORTS, VirtualMachineExport)
    known.apply(export())
    pods.apply(pod)
    claims = ExportedClaims(pods, known, lambda _: None)
    assert claims.of(with_claim()) == ({"data": KEY} if is_held else {}), situation


def test_a_pod_holds_its_claims_for_longer_than_there_is_its_export(client: KubeClient) -> None:
    pods = Informer(client, PODS, core.Pod, indexers=INDEXERS)
    known = Informer(client, EXPORTS, VirtualMachineExport)
    claims = ExportedClaims(pods, known, lambda _: None)
    pod = exporter_pod({"uid": UID})
    pods.apply(pod)
    claims.export_gone(export())
    assert claims.of(with_claim()) == {"data": KEY}
    claims.pod_gone(pod)
    assert claims.of(with_claim()) == {}


async def test_a_pod_that_poses_as_an_exporter_keeps_no_machine_from_starting(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    pod = msgspec.to_builtins(exporter_pod({"uid": "made-up", "name": "none"}))
    pod["metadata"]["labels"] = {"kubevirt.io": "virt-exporter"}
    exports.server.put(PODS, pod)
    start(exports.server)
    await exports.server.until(lambda: len(launchers(exports.server)) == 1)


async def test_an_export_waits_for_a_machine_that_has_the_claim(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    start(exports.server)
    await exports.server.until(lambda: len(launchers(exports.server)) == 1)
    await exports.ask()
    told = await exports.until_reason("InUse")
    assert "in use by Pod virt-launcher-myvm" in told["message"]
    assert exports.pod is None


async def test_all_claims_of_a_machine(exports: ExportUser, leading: Controllers) -> None:
    exports.provide("data")
    exports.provide("logs", mode="Block")
    exports.put_machine("data", "logs")
    await exports.ask(MACHINE)
    await exports.until_pod()
    exports.run_pod(0, 1)
    links = await exports.until_ready()
    assert [volume["name"] for volume in links["volumes"]] == ["data", "logs"]
    assert links["manifests"][0] == {"type": "all", "url": f"{BASE}/internal/manifests/all"}
    assert exports.status["virtualMachineName"] == "myvm"
    identity = exports.identity
    assert identity is not None
    told = json.loads(identity["manifests.json"])
    assert told["host"] == "virt-export-copy.shop.svc"
    assert told["machine"]["spec"]["runStrategy"] == "Halted"
    assert set(told["machine"]["metadata"]) == {"name", "namespace"}
    assert [claim["name"] for claim in told["claims"]] == ["data", "logs"]
    assert told["claims"][1]["spec"]["volumeMode"] == "Block"


@pytest.mark.parametrize("run_strategy", ["Always", "Halted"])
async def test_a_machine_that_runs_is_not_exported(
    exports: ExportUser,
    leading: Controllers,
    run_strategy: str,
) -> None:
    exports.provide()
    start(exports.server)
    exports.put_machine("data", run_strategy=run_strategy)
    await exports.ask(MACHINE)
    told = await exports.until_reason("InUse")
    assert told["message"] == "Virtual Machine shop/myvm is running"
    assert exports.pod is None


async def test_a_machine_without_claims_is_skipped(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.put_machine()
    await exports.ask(MACHINE)
    await exports.until_reason("VMNoVolumes")
    assert exports.status["phase"] == "Skipped"
    assert exports.pod is None


async def test_a_machine_that_is_not_there_is_waited_for(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask(MACHINE)
    await exports.until_reason("VMNotFound")
    exports.put_machine("data")
    await exports.until_pod()


def put_snapshot(server: ApiServer, *, is_ready: bool = True) -> None:
    name = CONTENT.name
    status = {
        "phase": "Succeeded",
        "readyToUse": is_ready,
        "virtualMachineSnapshotContentName": name,
    }
    body = snapshot_body(status=status)
    del body["metadata"]["resourceVersion"]
    server.put(SNAPSHOTS, body)
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "storageClassName": "fast",
            "volumeName": "pv-1",
            "selector": {"matchLabels": {"disk": "1"}},
            "volumeAttributesClassName": "gold",
            "dataSourceRef": {"kind": "VolumeSnapshot", "name": "of-another"},
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    content = {
        "metadata": {"namespace": "shop", "name": name},
        "spec": {
            "virtualMachineSnapshotName": "before",
            "source": {"virtualMachine": {"metadata": {"name": "myvm"}, "spec": {"kept": True}}},
            "volumeBackups": [
                {
                    "volumeName": "data",
                    "persistentVolumeClaim": claim,
                    "volumeSnapshotName": "vs-data",
                }
            ],
        },
        "status": {"readyToUse": is_ready},
    }
    server.put(SNAPSHOT_CONTENTS, content)
    labels = {"snapshot.kubevirt.io/source-vm-name": "myvm"}
    taken = {
        "metadata": {"namespace": "shop", "name": "vs-data", "labels": labels},
        "status": {"readyToUse": is_ready, "restoreSize": "2Gi"},
    }
    server.put(VOLUME_SNAPSHOTS, taken)


async def test_what_a_snapshot_has_kept(exports: ExportUser, leading: Controllers) -> None:
    server, restored = exports.server, ObjectKey("shop", "copy-data")
    put_snapshot(server)
    await exports.ask(SNAPSHOT)
    await server.until(lambda: server.get(PERSISTENT_VOLUME_CLAIMS, restored) is not None)
    claim = server.get(PERSISTENT_VOLUME_CLAIMS, restored) or {}
    assert claim["spec"] == {
        "storageClassName": "fast",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}},
        "dataSource": {
            "apiGroup": "snapshot.storage.k8s.io",
            "kind": "VolumeSnapshot",
            "name": "vs-data",
        },
    }
    assert claim["metadata"]["ownerReferences"][0]["kind"] == "VirtualMachineExport"
    await exports.until_pod()
    await exports.until_reason("NotAllPVCsReady", "VolumesCreated")
    server.put(PERSISTENT_VOLUME_CLAIMS, claim | {"status": {"phase": "Bound"}})
    exports.run_pod(0)
    [volume] = (await exports.until_ready())["volumes"]
    assert volume["name"] == "data"
    assert volume["formats"][0]["url"] == f"{BASE}/volumes/copy-data/disk.img"
    assert exports.status["virtualMachineName"] == "myvm"
    await exports.until_reason("AllPVCsReady", "VolumesCreated")
    identity = exports.identity
    assert identity is not None
    told = json.loads(identity["manifests.json"])
    assert told["machine"]["spec"] == {"kept": True}
    assert [(one["name"], one["volume"]) for one in told["claims"]] == [("data", "copy-data")]


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ({}, "data: metadata is no object."),
        ({"metadata": {}, "spec": {}}, "data: metadata.name is no name."),
        ({"metadata": {"name": "data"}, "spec": "x"}, "data: spec is no object."),
        (
            {"metadata": {"name": "data"}, "spec": {"resources": []}},
            "data: spec: resources is no object.",
        ),
    ],
)
async def test_a_damaged_content_is_told_of(
    exports: ExportUser, leading: Controllers, claim: Json, told: str
) -> None:
    put_snapshot(exports.server)
    content = exports.server.get(SNAPSHOT_CONTENTS, CONTENT) or {}
    content["spec"]["volumeBackups"][0]["persistentVolumeClaim"] = claim
    exports.server.put(SNAPSHOT_CONTENTS, content)
    await exports.ask(SNAPSHOT)
    message = f"VirtualMachineSnapshotContent {CONTENT.name} is damaged: {told}"
    await exports.server.until(lambda: exports.condition("Ready").get("message") == message)
    assert exports.pod is None


async def test_a_machine_that_is_kept_damaged_is_told_of_until_it_is_mended(
    exports: ExportUser, leading: Controllers
) -> None:
    put_snapshot(exports.server)
    content = exports.server.get(SNAPSHOT_CONTENTS, CONTENT) or {}
    machine = content["spec"]["source"]["virtualMachine"]
    content["spec"]["source"]["virtualMachine"] = {"metadata": machine["metadata"]}
    exports.server.put(SNAPSHOT_CONTENTS, content)
    await exports.ask(SNAPSHOT)
    title = f"VirtualMachineSnapshotContent {CONTENT.name}"
    message = f"{title} is damaged: virtualMachine: spec is no object."
    await exports.server.until(lambda: exports.condition("Ready").get("message") == message)
    assert exports.condition("Ready")["reason"] == "PodPending"
    put_snapshot(exports.server)
    await exports.until_pod()
    await exports.server.until(lambda: not exports.condition("Ready").get("message"))


async def test_a_snapshot_that_is_not_ready_is_waited_for(
    exports: ExportUser, leading: Controllers
) -> None:
    put_snapshot(exports.server, is_ready=False)
    await exports.ask(SNAPSHOT)
    told = await exports.until_reason("NotAllPVCsCreated", "VolumesCreated")
    assert told["message"] == "VirtualMachineSnapshot shop/before is not ready to use"
    put_snapshot(exports.server)
    await exports.until_pod()


async def test_a_claim_of_somebody_elses_is_never_taken_for_a_restored_one(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide("copy-data")
    put_snapshot(exports.server)
    await exports.ask(SNAPSHOT)
    why = "PersistentVolumeClaim copy-data is in the way"
    await exports.server.until(lambda: why in exports.condition("Ready").get("message", ""))
    assert exports.pod is None


async def test_an_export_is_deleted_when_its_time_is_over(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask(ttlDuration="1500ms")
    await exports.server.until(lambda: "ttlExpirationTime" in exports.status)
    await exports.server.until(lambda: exports.body is None)


async def test_what_has_failed_is_said_and_tried_again_later(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    trouble = 'PersistentVolumeClaim "data" cannot be read: Permission denied.'
    message = json.dumps({"trouble": trouble})
    looked = {"terminated": {"exitCode": 1, "message": message}}
    exports.run_pod(
        phase="Failed", conditions=[], initContainerStatuses=[{"name": "look", "state": looked}]
    )
    await exports.server.until(lambda: exports.pod is None)
    told = {"reason": "PodPending", "message": trouble}
    await exports.server.until(lambda: told.items() <= exports.condition("Ready").items())
    await exports.server.until(lambda: "ExporterPodFailedOrCompleted" in exports.events())


async def test_a_pod_that_has_come_to_its_deadline_is_followed_by_another(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.ask()
    first = await exports.until_pod()
    exports.run_pod(0, phase="Succeeded", conditions=[])
    await exports.server.until(
        lambda: (
            exports.pod is not None and exports.pod["metadata"]["uid"] != first["metadata"]["uid"]
        )
    )
    await exports.until_pod()


async def test_something_in_the_way_is_named_and_left_alone(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    theirs = {"metadata": {"namespace": "shop", "name": POD.name}, "spec": {"theirs": True}}
    exports.server.put(SERVICES, theirs)
    await exports.ask()
    told = await exports.until_reason("PodPending")
    assert "Service named virt-export-copy" in told["message"]
    assert exports.service is not None
    assert exports.service["spec"] == {"theirs": True}
    assert exports.pod is None


async def test_a_pod_that_may_not_be_made_is_told_of(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    exports.server.refuse("POST", "/shop/pods", Refuse(403, "Forbidden", "exceeded quota"))
    await exports.ask()
    told = await exports.until_reason("PodPending")
    assert "exceeded quota" in told["message"]
    await exports.until_pod()


def lose(number: int, fate: Fate) -> Callable[[web.Request], Fate]:
    """Has the write of that number meet its fate."""
    seen = 0

    def fate_of(request: web.Request) -> Fate:
        nonlocal seen
        is_ours = request.headers["User-Agent"] == "test" and request.method != "GET"
        if not is_ours or "/shop/" not in request.path:
            return Fate.ANSWERED
        seen += 1
        return fate if seen == number else Fate.ANSWERED

    return fate_of


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.ANSWER_LOST])
@pytest.mark.parametrize("number", range(1, 7))
async def test_no_write_that_fails_or_whose_answer_is_lost_stands_in_the_way(
    exports: ExportUser, leading: Controllers, number: int, fate: Fate
) -> None:
    exports.server.fate_of = lose(number, fate)
    exports.provide()
    await exports.ask()
    await exports.until_pod()
    exports.run_pod(0)
    await exports.until_ready()
    assert len(exports.token) == TOKEN_LENGTH
    assert len([one for one in exports.server.created if one["kind"] == "Pod"]) == 1


@pytest.mark.parametrize("is_ready", [False, True])
async def test_another_leader_goes_on_where_one_has_ended(
    exports: ExportUser, server: ApiServer, settings: Settings, is_ready: bool
) -> None:
    """Nothing is made twice, whatever there is already."""
    exports.provide()
    async with leader(server, settings):
        await exports.ask()
        await exports.until_pod()
        exports.run_pod(0)
        await exports.until_ready()
        created = len(server.created)
    if not is_ready:
        body = exports.body
        assert body is not None
        server.put(EXPORTS, body | {"status": {}})
    async with leader(server, settings):
        exports.provide(labels={"a": "b"})
        await exports.until_ready()
    kinds = [one["kind"] for one in server.created[created:]]
    assert [kind for kind in kinds if kind not in ("Event", "Lease")] == []
