"""What an export needs next, what is said of it, and what is made for it: data in, data out."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.export.names import Phase
from podvisor_common.api.meta import format_time
from podvisor_controller.export import identity, plan
from podvisor_controller.export.observed import LOOK_AGAIN, Observed
from podvisor_controller.export.pod import (
    findings_of,
    render_pod,
    render_service,
    served_by,
)
from podvisor_controller.export.sources import (
    UNKNOWN,
    ExportedVolume,
    Finding,
    Source,
)
from podvisor_controller.export.status import status_of
from podvisor_controller.exporter.settings import Settings
from podvisor_controller.vmi.outline import claim_outline, outline

from tests.unit.controller.builders import (
    NOW,
    claim,
    claim_body,
    situations,
    stamp,
)
from tests.unit.controller.exports import export

DATA = Source((ExportedVolume("data", claim()),), finding=Finding(True, "PVCBound"))
IMAGE = "registry.example/virt-controller:1"


def rendered(
    volumes: tuple[ExportedVolume, ...] = DATA.volumes, of: VirtualMachineExport | None = None
) -> dict[str, Any]:
    return render_pod(
        of or export(),
        volumes,
        image=IMAGE,
        pull_policy="IfNotPresent",
        deadline=NOW + timedelta(hours=1),
        identity="virt-export-1",
    )


def pod(phase: str = "Pending", **changes: Any) -> core.Pod:
    """The export's pod, as the controller keeps it."""
    body = rendered()
    body["metadata"] |= {"uid": "pod-uid"} | changes.pop("metadata", {})
    conditions = [{"type": "Ready", "status": "True"}] if changes.pop("ready", False) else []
    body["status"] = {"phase": phase, "conditions": conditions} | changes
    return outline(msgspec.convert(body, core.Pod))


def observed(carrier: core.Pod | None = None, source: Source = DATA, **changes: Any) -> Observed:
    defaults: dict[str, Any] = {"export": export(), "at": NOW, "authority": b"CA"}
    return Observed(source=source, pod=carrier, **(defaults | changes))


READY = pod("Running", ready=True)
THEIRS = pod(metadata={"ownerReferences": []})
GOING = pod(metadata={"deletionTimestamp": stamp()})
OTHERS = Source((ExportedVolume("logs", claim("logs")),))
RUNNING = Source((ExportedVolume("data", claim("data")),), Finding(False, "InUse"))
IN_USE = "PersistentVolumeClaim shop/data is in use by Pod x"


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        (
            "first sight",
            observed(),
            [plan.EnsureService, plan.EnsureToken, plan.CreatePod],
        ),
        ("no source yet", observed(source=UNKNOWN), [plan.EnsureService]),
        ("in use", observed(users=IN_USE), [plan.EnsureService]),
        (
            "a pause after a failure",
            observed(retry_at=NOW + timedelta(seconds=2)),
            [plan.EnsureService],
        ),
        (
            "claims of a snapshot to be made",
            observed(source=Source(hindrance=Finding(False, "x"), lacking=("data",))),
            [plan.EnsureService, plan.RestoreClaims],
        ),
        ("a predecessor's pod is there still", observed(THEIRS), [plan.EnsureService]),
        (
            "the pod waits",
            observed(pod()),
            [plan.EnsureService, plan.EnsureToken, plan.FurnishPod],
        ),
        (
            "the pod has what it needs",
            observed(pod(), is_furnished=True),
            [plan.EnsureService, plan.EnsureToken],
        ),
        ("served", observed(READY), [plan.EnsureService, plan.EnsureToken]),
        ("the pod goes", observed(GOING), [plan.EnsureService]),
        ("the pod has failed", observed(pod("Failed")), [plan.EnsureService, plan.DeletePod]),
        ("somebody takes it", observed(READY, users=IN_USE), [plan.EnsureService, plan.DeletePod]),
        ("other volumes", observed(READY, OTHERS), [plan.EnsureService, plan.DeletePod]),
        ("over", observed(READY, at=NOW + timedelta(hours=2)), [plan.DeleteExport]),
        (
            "being deleted",
            observed(READY, export=export(metadata={"deletionTimestamp": stamp()})),
            [],
        ),
    ),
)
def test_plan(now: Observed, expected: list[type]) -> None:
    assert [type(action) for action in plan.plan(now)] == expected


@pytest.mark.parametrize(
    ("now", "is_needed"),
    situations(
        ("a pod is about to be made", observed(), True),
        ("the claims are handed out", observed(READY), True),
        ("the pod goes", observed(GOING), True),
        ("the pod waits", observed(pod()), False),
        ("the pod runs and does not answer", observed(pod("Running")), False),
        ("the pod has ended", observed(pod("Failed")), False),
        ("a predecessor's pod is there still", observed(THEIRS), False),
        ("a pause after a failure", observed(retry_at=NOW + timedelta(seconds=2)), False),
        ("no source yet", observed(source=UNKNOWN), False),
        ("a machine that runs", observed(source=RUNNING), False),
    ),
)
def test_others_are_looked_for_only_where_it_matters(now: Observed, is_needed: bool) -> None:
    """It takes a list of all pods of a namespace, every few seconds."""
    assert now.needs_users == is_needed


@pytest.mark.parametrize(
    ("now", "phase", "status", "reason"),
    situations(
        ("first sight", observed(), Phase.PENDING, "False", "Initializing"),
        ("somebody else's pod", observed(THEIRS), Phase.PENDING, "False", "PodPending"),
        ("in use", observed(users=IN_USE), Phase.PENDING, "False", "InUse"),
        ("refused", observed(trouble="quota"), Phase.PENDING, "False", "PodPending"),
        ("pod waits", observed(pod()), Phase.PENDING, "False", "PodPending"),
        ("pod runs", observed(pod("Running")), Phase.PENDING, "False", "Unknown"),
        ("served", observed(READY), Phase.READY, "True", "PodReady"),
        ("completed", observed(pod("Succeeded")), Phase.TERMINATED, "False", "PodCompleted"),
        ("pod goes", observed(GOING, users=IN_USE), Phase.PENDING, "False", "InUse"),
    ),
)
def test_status(now: Observed, phase: str, status: str, reason: str) -> None:
    told = status_of(now)
    assert told.phase == phase
    assert (told.links is not None) == (phase == Phase.READY)
    [ready, of_claims] = told.conditions or []
    assert (ready.type, ready.status, ready.reason) == ("Ready", status, reason)
    assert (of_claims.type, of_claims.status) == ("PVCReady", "True")
    assert told.ttl_expiration_time == format_time(NOW - timedelta(seconds=30) + timedelta(hours=2))


def test_an_export_without_anything_to_export_is_not_looked_at_before_its_end() -> None:
    empty = observed(source=Source(hindrance=Finding(False, "VMNoVolumes"), is_empty=True))
    assert empty.look_again_in > timedelta(hours=1)
    assert observed().look_again_in == LOOK_AGAIN


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("copy", "virt-export-copy"),
        ("a" * 51, "virt-export-" + "a" * 51),
        ("a" * 52, "v-db0d3b7b-" + "a" * 52),
        ("a" * 53, None),
        ("a" * 253, None),
    ],
)
def test_long_names_become_short(name: str, expected: str | None) -> None:
    one = export(metadata={"name": name})
    made = identity.pod_name(one)
    assert len(made) <= 63
    if expected is not None:
        assert made.split("-")[0] == expected.split("-")[0]
        assert made.endswith(name)
    else:
        assert made.startswith("virt-export-")
        assert made != identity.pod_name(export(metadata={"name": name[:-1] + "b"}))
    assert len(identity.service_label(one)) <= 63


def test_the_hash_in_a_name_is_kubevirts() -> None:
    """Test vectors of FNV-1a."""
    assert identity.joined("a", "b" * 62, 63).endswith(identity._fnv("a-" + "b" * 62))
    assert identity._fnv("") == "811c9dc5"
    assert identity._fnv("foobar") == "bf9cf968"


def test_the_pod_passes_the_profile_restricted() -> None:
    volumes = (*DATA.volumes, ExportedVolume("raw", claim("raw", mode="Block")))
    spec = rendered(volumes)["spec"]
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 107
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert {"hostNetwork", "hostPID", "hostIPC"} & spec.keys() == set()
    for container in (*spec["containers"], *spec["initContainers"]):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert all(mount["readOnly"] for mount in container["volumeMounts"])
    kinds = {key for volume in spec["volumes"] for key in volume if key != "name"}
    assert kinds == {"persistentVolumeClaim", "secret"}
    found = [v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert found == [
        {"claimName": "data", "readOnly": True},
        {"claimName": "raw", "readOnly": True},
    ]


def test_the_program_is_told_where_everything_is() -> None:
    volumes = (*DATA.volumes, ExportedVolume("raw", claim("raw", mode="Block")))
    spec = rendered(volumes)["spec"]
    [container] = spec["containers"]
    settings = Settings.from_environment({e["name"]: e["value"] for e in container["env"]})
    places = {m["mountPath"] for m in container["volumeMounts"]}
    devices = {d["devicePath"] for d in container["volumeDevices"]}
    assert settings.path_of(0) in places
    assert settings.path_of(1) in devices
    assert {settings.token_directory, settings.identity_directory} <= places
    assert [one.name for one in settings.volumes] == ["data", "raw"]
    assert spec["initContainers"][0]["command"] == [*container["command"], "look"]
    assert "supplementalGroups" not in rendered()["spec"]["securityContext"]


def test_the_service_finds_the_pod_whatever_labels_the_export_has() -> None:
    labels = {"kubevirt.io": "virt-launcher", "team": "blue"}
    one = export(metadata={"labels": labels, "annotations": {"a": "b"}})
    made = rendered(of=one)["metadata"]
    selector = render_service(one)["spec"]["selector"]
    assert selector.items() <= made["labels"].items()
    assert made["labels"]["kubevirt.io"] == "virt-exporter"
    assert made["labels"]["team"] == "blue"
    assert made["annotations"]["a"] == "b"


def test_what_is_kept_of_a_pod_tells_what_it_serves() -> None:
    looked = {"terminated": {"exitCode": 0, "message": '{"disks":[0]}'}}
    kept = pod("Running", ready=True, initContainerStatuses=[{"name": "look", "state": looked}])
    [served] = served_by(kept)
    assert (served.name, served.claim, served.block) == ("data", "data", False)
    assert findings_of(kept).disks == (0,)
    assert kept.metadata.labels is None


@pytest.mark.parametrize("message", ["", "no JSON", '{"disks": "all"}'])
def test_a_message_that_makes_no_sense_says_nothing(message: str) -> None:
    looked = {"terminated": {"exitCode": 1, "message": message}}
    kept = pod("Failed", initContainerStatuses=[{"name": "look", "state": looked}])
    assert findings_of(kept).disks == ()


def test_of_a_claims_owners_an_export_is_kept() -> None:
    owner = {"kind": "VirtualMachineExport", "name": "copy", "uid": "1", "controller": True}
    other = {"kind": "StatefulSet", "name": "db", "uid": "2", "controller": True}
    for one, kept in ((owner, "1"), (other, None)):
        body = claim_body(ownerReferences=[one])
        found = claim_outline(msgspec.convert(body, core.PersistentVolumeClaim))
        reference = found.metadata.controller_reference()
        assert (reference.uid if reference else None) == kept


@pytest.mark.parametrize(
    ("duration", "expected"),
    [(None, timedelta(hours=2)), ("90s", timedelta(seconds=90)), ("soon", timedelta(hours=2))],
)
def test_when_an_export_is_over(duration: str | None, expected: timedelta) -> None:
    one = export(ttlDuration=duration)
    assert identity.expires_at(one) == NOW - timedelta(seconds=30) + expected


def test_what_a_pod_is_told_is_no_longer_than_what_it_has() -> None:
    text = json.dumps(rendered())
    assert "hunter2" not in text
