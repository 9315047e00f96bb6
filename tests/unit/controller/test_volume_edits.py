"""Patches of single volumes and disks: what they write, what they test, and what they leave alone."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_controller.vm.volume_edits import INSTANCE, TEMPLATE, edits_of

from tests.unit.controller.builders import Json, situations, vm_body, vmi_body
from tests.unit.controller.plugged import volume, with_volumes
from tests.unit.kube.fake_objects import json_patch

PLAIN = with_volumes()
ONE = with_volumes(volume())
TWO = with_volumes(volume("first", "first"), volume())
EXACT = {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}


def edits(had: Json, wanted: Json, *, exactly: bool = False) -> list[Json]:
    """The patch that makes an instance of `had` one of `wanted`."""
    return edits_of(_obj(had), INSTANCE, *_lists(wanted), exactly=exactly)


def _obj(spec: Json) -> Json:
    return vmi_body(metadata={"uid": "u", "resourceVersion": "7"}) | {"spec": spec}


def _lists(spec: Json) -> tuple[list[v1.Volume], list[v1.Disk]]:
    decoded = msgspec.convert(spec, v1.VirtualMachineInstanceSpec)
    return decoded.volumes or [], decoded.domain.devices.disks or []


def _without(spec: Json, *path: str) -> Json:
    copy: Any = msgspec.json.decode(msgspec.json.encode(spec))
    node = copy
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    result: Json = copy
    return result


@pytest.mark.parametrize("exactly", [False, True], ids=["as far as it matters", "exactly"])
@pytest.mark.parametrize(
    ("had", "wanted"),
    situations(
        ("one comes", PLAIN, ONE),
        ("one goes", ONE, PLAIN),
        ("two go", TWO, PLAIN),
        ("the first goes", TWO, ONE),
        ("one gives way to another", ONE, with_volumes(volume(claim_name="other"))),
        ("no volumes yet", _without(PLAIN, "volumes"), ONE),
        ("no disks yet", _without(PLAIN, "domain", "devices", "disks"), ONE),
        ("no devices yet", _without(PLAIN, "domain", "devices"), ONE),
    ),
)
def test_the_patch_makes_what_is_wanted(had: Json, wanted: Json, exactly: bool) -> None:
    made = json_patch(_obj(had), edits(had, wanted, exactly=exactly))["spec"]
    assert _lists(made) == _lists(wanted)


def test_what_is_there_needs_no_patch() -> None:
    assert edits(ONE, ONE) == []


def test_only_what_comes_or_goes_is_written_and_only_what_goes_is_tested() -> None:
    claim = {"claimName": "data", "hotpluggable": True}
    gone = {"name": "data", "persistentVolumeClaim": claim}
    found = edits(ONE, with_volumes(volume("new", "new")))
    assert found[:4] == [
        {"op": "test", "path": "/metadata/uid", "value": "u"},
        {"op": "test", "path": "/spec/volumes/2", "value": gone},
        {"op": "remove", "path": "/spec/volumes/2"},
        {
            "op": "add",
            "path": "/spec/volumes/-",
            "value": {
                "name": "new",
                "persistentVolumeClaim": {"claimName": "new", "hotpluggable": True},
            },
        },
    ]
    assert {one["path"].rpartition("/")[0] for one in found[4:]} == {"/spec/domain/devices/disks"}


def test_exactly_is_as_the_object_was_seen() -> None:
    first, *rest = edits(PLAIN, ONE, exactly=True)
    assert first == EXACT
    assert rest == edits(PLAIN, ONE)[1:]


def test_a_list_is_made_only_where_nobody_wrote_in_between() -> None:
    assert edits(_without(PLAIN, "volumes"), ONE)[0] == EXACT


def test_a_template_is_further_down() -> None:
    vm = vm_body(spec={"template": {"spec": PLAIN}})
    paths = [one["path"] for one in edits_of(vm, TEMPLATE, *_lists(ONE), exactly=False)[1:]]
    assert all(path.startswith("/spec/template/spec/") for path in paths)
