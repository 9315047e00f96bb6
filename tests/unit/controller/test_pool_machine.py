"""The machines that a pool makes: names, revisions, and that an update leaves the guest who it is."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_controller.pool import machine

from tests.unit.controller.builders import Json, spec_body
from tests.unit.controller.pools import LABELS, POOL_UID, machine_of, pool, template_body
from tests.unit.kube.fake_objects import json_patch

REVISION = names.POOL_REVISION_LABEL


def test_a_machine_is_the_pools() -> None:
    manifest = machine.manifest_of(pool(), 7)
    [owner] = manifest["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "pool.kubevirt.io/v1beta1",
        "kind": "VirtualMachinePool",
        "name": "web",
        "uid": POOL_UID,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    assert manifest["metadata"]["name"] == "web-7"
    assert manifest["metadata"]["labels"] == LABELS | {REVISION: machine.revision_of(pool())}
    template = manifest["spec"]["template"]
    wanted = {"app": "demo", REVISION: machine.instance_revision_of(pool())}
    assert template["metadata"]["labels"] == wanted
    assert template["spec"]["domain"]["resources"] == {"requests": {"memory": "64M"}}


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("web-0", 0),
        ("web-12", 12),
        ("web-01", None),
        ("web-", None),
        ("web", None),
        ("web-1-2", None),
        ("other-1", None),
        ("web--1", None),
        ("web-1x", None),
    ],
)
def test_index_of(name: str, index: int | None) -> None:
    assert machine.index_of(pool(), name) == index


@pytest.mark.parametrize(
    ("changes", "another_machine", "another_guest"),
    [
        ({"replicas": 9}, False, False),
        ({"paused": True, "maxUnavailable": 1}, False, False),
        ({"virtualMachineTemplate": template_body(runStrategy="Manual")}, True, False),
        ({"virtualMachineTemplate": template_body("32M")}, True, True),
        ({"nameGeneration": {"appendIndexToSecretRefs": True}}, True, True),
    ],
)
def test_revisions(changes: Json, another_machine: bool, another_guest: bool) -> None:
    other = pool(**changes)
    assert (machine.revision_of(other) != machine.revision_of(pool())) is another_machine
    is_another = machine.instance_revision_of(other) != machine.instance_revision_of(pool())
    assert is_another is another_guest


def test_a_newer_podvisor_finds_the_revisions_of_an_older_one() -> None:
    """These never change: else every guest of every pool would be restarted."""
    assert machine.revision_of(pool()) == "web-975ade1c90"
    assert machine.instance_revision_of(pool()) == "web-7454a08c9a"


def test_a_revision_fits_a_label_however_long_the_name_of_the_pool() -> None:
    long = pool(metadata={"name": "x" * 63})
    assert len(machine.revision_of(long)) == 63


@pytest.mark.parametrize(
    ("generation", "user_data", "network_data"),
    [
        (None, "seed", "net"),
        ({"appendIndexToConfigMapRefs": True}, "seed", "net"),
        ({"appendIndexToSecretRefs": True}, "seed-4", "net-4"),
    ],
)
def test_secrets_get_the_index_where_that_is_asked_for(
    generation: Json | None, user_data: str, network_data: str
) -> None:
    references = {"secretRef": {"name": "seed"}, "networkDataSecretRef": {"name": "net"}}
    disk = {
        "name": "root",
        "containerDisk": {"image": "demo/disk:devel", "imagePullSecret": "pull"},
    }
    volumes = [disk, {"name": "seed", "cloudInitNoCloud": references}]
    template = template_body(template={"spec": spec_body(volumes=volumes)})
    owner = pool(virtualMachineTemplate=template, nameGeneration=generation)
    made = machine.manifest_of(owner, 4)["spec"]["template"]["spec"]["volumes"]
    assert made[0]["containerDisk"]["imagePullSecret"] == "pull"
    assert made[1]["cloudInitNoCloud"]["secretRef"] == {"name": user_data}
    assert made[1]["cloudInitNoCloud"]["networkDataSecretRef"] == {"name": network_data}


def updated(vm: v1.VirtualMachine, **changes: Any) -> Json:
    owner = pool(virtualMachineTemplate=template_body("32M"), **changes)
    raw: Json = msgspec.to_builtins(vm)
    return json_patch(raw, machine.update_of(owner, vm, 0))


def test_an_update_changes_the_machine_and_not_who_its_guest_is() -> None:
    spec: Json = msgspec.to_builtins(machine_of(pool(), 0).spec)
    spec["template"]["spec"] |= {"architecture": "amd64"}
    spec["template"]["spec"]["domain"] |= {
        "machine": {"type": "q35"},
        "firmware": {"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223", "serial": "abc"},
    }
    vm = msgspec.structs.replace(
        machine_of(pool(), 0, metadata={"annotations": {"kept": "yes"}}),
        spec=msgspec.convert(spec, v1.VirtualMachineSpec),
    )
    after = updated(vm)
    assert after["spec"]["template"]["spec"]["domain"] == spec["template"]["spec"]["domain"] | {
        "resources": {"requests": {"memory": "32M"}}
    }
    assert after["spec"]["template"]["spec"]["architecture"] == "amd64"
    assert after["metadata"]["annotations"] == {"kept": "yes"}
    assert after["metadata"]["labels"][REVISION] != vm.metadata.label(REVISION)
    assert after["metadata"]["ownerReferences"] == msgspec.to_builtins(vm.metadata.owner_references)


def test_an_updated_machine_is_the_present_one() -> None:
    owner = pool(virtualMachineTemplate=template_body("32M"))
    after = msgspec.convert(updated(machine_of(pool(), 0)), v1.VirtualMachine)
    fresh = machine_of(owner, 0)
    assert after.metadata.labels == fresh.metadata.labels
    assert after.spec == fresh.spec


def test_what_the_template_says_wins_over_what_the_machine_was() -> None:
    was = template_body(
        template={"spec": spec_body(architecture="amd64", terminationGracePeriodSeconds=60)}
    )
    now = template_body(template={"spec": spec_body(architecture="arm64")})
    vm = machine_of(pool(virtualMachineTemplate=was), 0)
    raw: Json = msgspec.to_builtins(vm)
    after = json_patch(raw, machine.update_of(pool(virtualMachineTemplate=now), vm, 0))
    assert after["spec"]["template"]["spec"]["architecture"] == "arm64"
    assert after["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 5
