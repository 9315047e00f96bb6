"""Errors and warnings name fields as the client wrote them, in v1alpha1 as well."""

from collections.abc import Callable
from typing import Any

import pytest
from podvisor_controller.webhooks.conversion import convert
from podvisor_controller.webhooks.validation import Cause, validate_virtual_machine, warnings_of
from podvisor_controller.webhooks.validation_paths import causes_as_written, warnings_as_written

from tests.unit.api.machines import Json, machine

V1ALPHA1 = "kubevirt.io/v1alpha1"


def first_machine(change: Callable[[Json], object]) -> Json:
    """A v1alpha1 machine after a change, in the v1 form that webhooks see."""
    obj: Json = {
        "apiVersion": V1ALPHA1,
        "kind": "VirtualMachine",
        "metadata": {"name": "myvm"},
        "spec": {
            "domain": {
                "resources": {"requests": {"memory": "64M"}},
                "devices": {
                    "disks": [
                        {"name": "rootdisk", "volumeName": "rootvolume"},
                        {"name": "seeddisk", "volumeName": "seedvolume"},
                    ]
                },
            },
            "volumes": [
                {"name": "rootvolume", "registryDisk": {"image": "x"}},
                {"name": "seedvolume", "cloudInitNoCloud": {"userData": "x"}},
            ],
        },
    }
    change(obj["spec"])
    return convert(obj, "kubevirt.io/v1")


def set_disk(index: int, **values: Any) -> Callable[[Json], object]:
    return lambda spec: spec["domain"]["devices"]["disks"][index].update(values)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (
            set_disk(1, volumeName="nowhere"),
            "spec.domain.devices.disks[1].volumeName",
            "spec.domain.devices.disks[1].volumeName 'nowhere' not found: there is no volume of that name.",
        ),
        (
            set_disk(1, volumeName="nowhere", cdrom={}),
            "spec.domain.devices.disks[1].volumeName",
            "spec.domain.devices.disks[1].volumeName 'nowhere' not found: there is no volume of that name.",
        ),
        (
            set_disk(1, name="rootdisk"),
            "spec.domain.devices.disks[1].name",
            "spec.domain.devices.disks[0] and spec.domain.devices.disks[1] must not have the same Name",
        ),
        (
            lambda spec: spec["volumes"][0]["registryDisk"].update(image=""),
            "spec.volumes[0].registryDisk.image",
            "spec.volumes[0].registryDisk.image is empty",
        ),
        (
            lambda spec: spec["volumes"].__setitem__(0, {"name": "rootvolume", "ephemeral": {}}),
            "spec.volumes[0].ephemeral.persistentVolumeClaim",
            "spec.volumes[0].ephemeral.persistentVolumeClaim is missing",
        ),
        (
            lambda spec: spec["volumes"].append(spec["volumes"][1]),
            "spec.volumes[2].name",
            "spec.volumes[1] and spec.volumes[2] must not have the same Name",
        ),
        (lambda spec: spec.update(domain=7), "spec.domain", "Expected `object`, got `int`"),
        (
            lambda spec: spec["domain"]["devices"].update(disks=[7]),
            "spec.domain.devices.disks[0]",
            "Expected `object`, got `int`",
        ),
        (
            lambda spec: spec["volumes"].append({"name": 7}),
            "spec.volumes[2].name",
            "Expected `str`, got `int`",
        ),
        (
            lambda spec: spec["domain"]["resources"]["requests"].update(memory="64Q"),
            "spec.domain.resources.requests.memory",
            "spec.domain.resources.requests.memory '64Q' is not a quantity",
        ),
        (
            lambda spec: spec["domain"]["resources"]["requests"].clear(),
            "spec.domain.memory",
            "spec.domain.resources.requests.memory",
        ),
    ],
)
def test_paths_are_those_the_client_wrote(
    change: Callable[[Json], object], field: str, message: str
) -> None:
    obj = first_machine(change)
    causes = causes_as_written(validate_virtual_machine(obj), V1ALPHA1, obj)
    by_field = {cause.field: cause.message for cause in causes}
    assert field in by_field, causes
    assert message in by_field[field]
    assert all("template" not in cause.message for cause in causes)


def test_disks_of_one_name_are_not_blamed_on_their_volumes() -> None:
    obj = first_machine(set_disk(1, name="rootdisk"))
    causes = causes_as_written(validate_virtual_machine(obj), V1ALPHA1, obj)
    assert [cause.field for cause in causes] == ["spec.domain.devices.disks[1].name"]


def test_second_disk_of_a_volume_points_at_that_volume() -> None:
    def change(spec: Json) -> None:
        set_disk(1, volumeName="rootvolume")(spec)
        spec["volumes"][0]["registryDisk"]["image"] = ""

    obj = first_machine(change)
    causes = causes_as_written(validate_virtual_machine(obj), V1ALPHA1, obj)
    assert {cause.field for cause in causes} == {"spec.volumes[0].registryDisk.image"}


def test_a_claim_behind_two_disks_points_at_its_volume() -> None:
    def change(spec: Json) -> None:
        set_disk(1, volumeName="rootvolume")(spec)
        claim = {"persistentVolumeClaim": {"claimName": "data"}}
        spec["volumes"][:] = [{"name": "rootvolume", **claim}]

    obj = first_machine(change)
    [cause] = causes_as_written(validate_virtual_machine(obj), V1ALPHA1, obj)
    assert cause.field == "spec.volumes[0].persistentVolumeClaim.claimName"
    assert "can be behind one disk only" in cause.message


def test_warnings_are_in_the_words_of_the_client() -> None:
    obj = first_machine(lambda spec: None)
    [warning] = warnings_as_written(warnings_of(obj), V1ALPHA1, obj)
    assert warning.startswith("spec.volumes[1].cloudInitNoCloud.userData can be read")
    assert warnings_as_written(["x"], "kubevirt.io/v1", obj) == ["x"]


def test_causes_of_v1_stay_as_they_are() -> None:
    causes = [Cause("spec.template.spec.hostname", "spec.template.spec.hostname x")]
    assert causes_as_written(causes, "kubevirt.io/v1", machine()) == causes
