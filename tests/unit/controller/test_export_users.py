"""Who else has the claims of an export: it waits for them, or they wait for it."""

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    EXPORTS,
    PODS,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.export.holders import EXPORTED_INDEX, ExportedClaims, claims_exported
from podvisor_controller.export.pod import VOLUMES_ANNOTATION

from tests.unit.controller.api_server import Json
from tests.unit.controller.builders import spec_body, vmi_body
from tests.unit.controller.exports import (
    KEY,
    POD,
    ExportUser,
    export,
    launchers,
    start,
    synchronized,
)

INDEXERS = {EXPORTED_INDEX: claims_exported}


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


async def test_who_only_reads_is_not_in_the_way(exports: ExportUser, leading: Controllers) -> None:
    exports.provide()
    exports.server.put(PODS, user_pod(readOnly=True))
    await exports.ask()
    await exports.until_pod()


async def test_an_export_ends_when_somebody_takes_its_claim(
    exports: ExportUser, leading: Controllers
) -> None:
    exports.provide()
    await exports.serve()
    exports.server.put(PODS, user_pod())
    # Nobody tells of pods that are not ours: some other change has it looked at.
    exports.provide(labels={"a": "b"})
    await exports.until_reason("InUse")
    await exports.server.until(lambda: exports.pod is None)
    assert "links" not in exports.status
    await exports.server.until(lambda: "ExportPaused" in exports.events())


async def test_a_machine_that_starts_waits_for_the_end_of_the_export(
    exports: ExportUser, leading: Controllers
) -> None:
    server = exports.server
    exports.provide()
    await exports.serve()
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
