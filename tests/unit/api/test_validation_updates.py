"""Edits of objects that were admitted under other rules: what was so before is let be, and what is new is not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine
from podvisor_controller.webhooks.validation_fields import Cause
from podvisor_controller.webhooks.validation_pools import validate_virtual_machine_pool
from podvisor_controller.webhooks.validation_sets import validate_replica_set

from tests.unit.api.machines import Json, machine
from tests.unit.api.test_validation_pools import pool
from tests.unit.api.test_validation_sets import replica_set

Edit = Callable[[Json], None]


def spec_of(obj: Json) -> Json:
    spec: Json = obj["spec"]["template"]["spec"]
    return spec


def disks_of(obj: Json) -> list[Json]:
    disks: list[Json] = spec_of(obj)["domain"]["devices"]["disks"]
    return disks


def edited(obj: Json, *edits: Edit) -> Json:
    obj = copy.deepcopy(obj)
    for edit in edits:
        edit(obj)
    return obj


def with_serial(serial: str) -> Edit:
    return lambda obj: disks_of(obj)[0].update(serial=serial)


def with_hostname(obj: Json) -> None:
    spec_of(obj)["hostname"] = "other"


def with_another_disk_first(obj: Json) -> None:
    volume = {"name": "new", "persistentVolumeClaim": {"claimName": "new"}}
    spec_of(obj)["volumes"].insert(0, volume)
    disks_of(obj).insert(0, {"name": "new", "disk": {"bus": "virtio"}})


def with_a_label(obj: Json) -> None:
    metadata = obj["spec"]["template"].setdefault("metadata", {})
    metadata.setdefault("labels", {})["good"] = "good"


def with_a_bad_label(obj: Json) -> None:
    with_a_label(obj)
    obj["spec"]["template"]["metadata"]["labels"]["bad"] = "not good"


def deleted(obj: Json) -> None:
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


BAD = edited(machine(), with_serial("not good"), with_a_bad_label)
CLASH = edited(machine(), lambda obj: disks_of(obj)[0].update(cache="writethrough", io="native"))


def fields(causes: list[Cause]) -> list[str]:
    return [cause.field for cause in causes]


@pytest.mark.parametrize(
    ("old", "edit"),
    [
        pytest.param(BAD, with_hostname, id="another field"),
        pytest.param(BAD, with_another_disk_first, id="its place in the list"),
        pytest.param(BAD, with_a_label, id="beside it"),
        pytest.param(BAD, with_serial("good"), id="one of two is mended"),
        pytest.param(CLASH, with_hostname, id="two fields that do not fit"),
    ],
)
def test_what_was_so_before_is_let_be(old: Json, edit: Edit) -> None:
    assert validate_virtual_machine(old) != []
    assert validate_virtual_machine(edited(old, edit), old) == []


SERIAL = "spec.template.spec.domain.devices.disks[0].serial"


@pytest.mark.parametrize(
    ("old", "edit", "field"),
    [
        pytest.param(machine(), with_serial("not good"), SERIAL, id="it was good"),
        pytest.param(BAD, with_serial("not good either"), SERIAL, id="it was bad otherwise"),
        pytest.param(
            edited(BAD, with_another_disk_first),
            with_serial("not good"),
            SERIAL,
            id="another one was bad",
        ),
        pytest.param(
            edited(CLASH, lambda obj: disks_of(obj)[0].update(cache="none")),
            lambda obj: disks_of(obj)[0].update(cache="writethrough"),
            SERIAL.replace("serial", "io"),
            id="it was good beside what has changed",
        ),
        pytest.param(
            BAD,
            lambda obj: obj["spec"]["template"]["metadata"]["labels"].update(other="no good"),
            "spec.template.metadata.labels",
            id="one more in the same place",
        ),
    ],
)
def test_what_is_new_is_refused(old: Json, edit: Edit, field: str) -> None:
    assert fields(validate_virtual_machine(edited(old, edit), old)) == [field]


def test_what_does_not_decode_is_refused_however_it_was() -> None:
    old = edited(machine(), lambda obj: spec_of(obj).update(hostname=1))
    new = edited(old, with_serial("good"))
    assert fields(validate_virtual_machine(new, old)) == ["spec.template.spec.hostname"]


def test_what_is_being_deleted_is_let_go() -> None:
    old = edited(machine(), deleted)
    assert validate_virtual_machine(edited(old, with_serial("not good")), old) == []


@pytest.mark.parametrize(
    ("validate", "old", "spec"),
    [
        pytest.param(
            validate_virtual_machine_pool,
            pool(maxUnavailable=0),
            lambda obj: obj["spec"],
            id="a pool",
        ),
        pytest.param(
            validate_replica_set,
            edited(replica_set(), with_serial("not good")),
            lambda obj: obj["spec"],
            id="a replica set",
        ),
    ],
)
def test_sets_are_scaled_whatever_was_so_before(
    validate: Any, old: Json, spec: Callable[[Json], Json]
) -> None:
    new = copy.deepcopy(old)
    spec(new)["replicas"] = 7
    assert validate(old) != []
    assert validate(new, old) == []
    spec(new)["replicas"] = -1
    assert "spec.replicas" in fields(validate(new, old))
