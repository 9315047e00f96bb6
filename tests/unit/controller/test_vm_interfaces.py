"""Edits of a running machine's interfaces: what reaches the guest, what waits for what, and what waits for the next start."""

from datetime import timedelta
from typing import Any

import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_controller.vm.interfaces import fixed_part, has, wired
from podvisor_controller.vm.observed import Observed
from podvisor_controller.vm.plan import FollowGeneration, PlugInterfaces, plan
from podvisor_controller.vm.status import status_of

from tests.unit.controller.builders import (
    NOW,
    Json,
    instance,
    situations,
    spec_body,
    vm,
    vm_observed,
)

POD: Json = {"name": "default", "pod": {}}
UPLINK: Json = {"name": "default", "masquerade": {}}


def lan(name: str = "lan", definition: str = "lan", **changes: Any) -> Json:
    return {"name": name, "multus": {"networkName": definition} | changes}


def nic(name: str = "lan", **changes: Any) -> Json:
    return {"name": name, "bridge": {}} | changes


def attached(networks: list[Json], interfaces: list[Json]) -> Json:
    """The introduction's machine on these networks."""
    spec = spec_body(networks=networks)
    return spec | {
        "domain": {
            **spec["domain"],
            "devices": {**spec["domain"]["devices"], "interfaces": interfaces},
        }
    }


def beside(*interfaces: Json) -> Json:
    """The machine on the pod network, and on one for each of these interfaces beside it."""
    return attached([POD, *(lan(i["name"]) for i in interfaces)], [UPLINK, *interfaces])


def machine(spec: Json) -> v1.VirtualMachine:
    return vm(spec={"runStrategy": "Always", "template": {"spec": spec}})


def guest(
    spec: Json, *names_attached: str, generation: str = "2", phase: str = "Running"
) -> v1.VirtualMachineInstance:
    """The instance of machine(), made at that generation of it, whose guest has the interfaces of those names."""
    entries = [{"name": name, "infoSource": "domain, guest-agent"} for name in names_attached]
    metadata = {"annotations": {names.VM_GENERATION_ANNOTATION: generation}}
    return instance(phase, spec=spec, status={"interfaces": entries}, metadata=metadata)


NOTHING = spec_body()
PLAIN, PLUGGED = beside(), beside(nic())
ABSENT = beside(nic(state="absent"))
DOWN = beside(nic(state="down"))
OTHER_MAC = beside(nic(macAddress="02:00:00:00:00:01"))
OTHER_NETWORK = attached([POD, lan(definition="other")], [UPLINK, nic()])
OTHERWISE = attached([lan("default", default=True)], [nic("default")])
# Networks need not stand in the order of interfaces.
TURNED = attached([lan(), POD], [UPLINK, nic()])
UP = (True, False)  # whole, and needs no restart
WAITS = (False, False)
RESTART = (False, True)


@pytest.mark.parametrize(
    ("template", "had", "attached_to", "expected", "outcome"),
    situations(
        ("nothing to do", PLAIN, PLAIN, ["default"], PLAIN, UP),
        ("nothing said", NOTHING, PLAIN, ["default"], PLAIN, UP),
        ("one comes", PLUGGED, PLAIN, ["default"], PLUGGED, UP),
        ("one stays", PLUGGED, PLUGGED, ["default", "lan"], PLUGGED, UP),
        ("one stays in its order", TURNED, TURNED, ["default", "lan"], TURNED, UP),
        ("one is to go", ABSENT, PLUGGED, ["default", "lan"], ABSENT, WAITS),
        ("it is going", ABSENT, ABSENT, ["default", "lan"], ABSENT, WAITS),
        ("it has gone", ABSENT, ABSENT, ["default"], PLAIN, UP),
        ("it is gone", ABSENT, PLAIN, ["default"], PLAIN, UP),
        ("forgotten when it had gone", PLAIN, ABSENT, ["default"], PLAIN, UP),
        ("wanted again while it goes", PLUGGED, ABSENT, ["default", "lan"], ABSENT, WAITS),
        ("wanted again when it has gone", PLUGGED, ABSENT, ["default"], PLAIN, WAITS),
        ("the carrier goes", DOWN, PLUGGED, ["default", "lan"], DOWN, UP),
        ("the carrier comes", PLUGGED, DOWN, ["default", "lan"], PLUGGED, UP),
        ("up is what nothing is", beside(nic(state="up")), PLUGGED, ["lan"], PLUGGED, UP),
        (
            "the carrier of the pod network goes",
            attached([POD], [UPLINK | {"state": "down"}]),
            PLAIN,
            ["default"],
            attached([POD], [UPLINK | {"state": "down"}]),
            UP,
        ),
        (
            "one goes and another comes",
            beside(nic(state="absent"), nic("dmz")),
            PLUGGED,
            ["default", "lan"],
            beside(nic(state="absent"), nic("dmz")),
            WAITS,
        ),
        ("one is taken away", PLAIN, PLUGGED, ["default", "lan"], PLUGGED, RESTART),
        ("all are taken away", NOTHING, PLUGGED, ["default", "lan"], PLUGGED, RESTART),
        ("another address", OTHER_MAC, PLUGGED, ["default", "lan"], PLUGGED, RESTART),
        ("another network", OTHER_NETWORK, PLUGGED, ["default", "lan"], PLUGGED, RESTART),
        ("another default", OTHERWISE, PLAIN, ["default"], PLAIN, RESTART),
        (
            "the default that nobody asked for goes",
            attached([lan()], [nic()]),
            PLAIN,
            ["default"],
            PLUGGED,
            RESTART,
        ),
    ),
)
def test_what_reaches_the_guest(
    template: Json,
    had: Json,
    attached_to: list[str],
    expected: Json,
    outcome: tuple[bool, bool],
) -> None:
    found = wired(machine(template), guest(had, *attached_to))
    assert has(guest(expected), found)
    assert (found.is_whole, found.needs_restart) == outcome


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    situations(
        ("one that may go", PLAIN, PLUGGED, True),
        ("its address", PLUGGED, OTHER_MAC, True),
        ("a carrier", PLAIN, attached([POD], [UPLINK | {"state": "down"}]), True),
        ("another binding", PLAIN, attached([POD], [nic("default")]), False),
        ("the pod network", NOTHING, PLAIN, False),
        ("what takes its place", PLAIN, OTHERWISE, False),
        ("a model", PLAIN, attached([POD], [UPLINK | {"model": "e1000"}]), False),
    ),
)
def test_what_is_fixed(one: Json, other: Json, is_same: bool) -> None:
    first, second = (fixed_part(machine(spec).spec.template.spec) for spec in (one, other))
    assert (first == second) == is_same


def seen(template: Json, had: v1.VirtualMachineInstance, made: Json, **changes: Any) -> Observed:
    return vm_observed(machine(template), had, made_from=machine(made).spec.template, **changes)


IN_STEP = guest(PLUGGED, "default", "lan", generation="3")


@pytest.mark.parametrize(
    ("now", "actions", "needs_restart"),
    situations(
        ("in step", seen(PLUGGED, IN_STEP, PLUGGED), [], False),
        ("one comes", seen(PLUGGED, guest(PLAIN), PLAIN), [PlugInterfaces], False),
        ("it has come", seen(PLUGGED, guest(PLUGGED), PLAIN), [FollowGeneration], False),
        ("it is going", seen(ABSENT, guest(ABSENT, "lan"), PLUGGED), [], False),
        ("it has gone", seen(ABSENT, guest(ABSENT), PLUGGED), [PlugInterfaces], False),
        ("it is gone", seen(ABSENT, guest(PLAIN), PLUGGED), [FollowGeneration], False),
        ("one is taken away", seen(PLAIN, guest(PLUGGED, "lan"), PLUGGED), [], True),
        (
            "another binding",
            seen(attached([POD], [nic("default")]), guest(PLAIN), PLAIN),
            [],
            True,
        ),
        (
            "refused a moment ago",
            seen(
                PLUGGED,
                guest(PLAIN),
                PLAIN,
                unwired="no",
                wire_retry_at=NOW + timedelta(seconds=9),
            ),
            [],
            False,
        ),
        (
            "the guest has ended",
            seen(PLUGGED, guest(PLAIN, phase="Succeeded"), PLAIN),
            [],
            False,
        ),
    ),
)
def test_plan(now: Observed, actions: list[Any], needs_restart: bool) -> None:
    found = [a for a in plan(now) if isinstance(a, PlugInterfaces | FollowGeneration)]
    assert [type(action) for action in found] == actions
    assert now.needs_restart == needs_restart


def test_why_a_guest_does_not_get_its_interfaces_is_a_condition() -> None:
    retry_at = NOW + timedelta(seconds=9)
    now = seen(PLUGGED, guest(PLAIN), PLAIN, unwired="no", wire_retry_at=retry_at)
    status = status_of(now)
    assert status is not None
    [failure] = [c for c in status.conditions or () if c.type == "Failure"]
    assert (failure.reason, failure.message) == ("HotPlugNetworkInterfaceError", "no")
    assert now.look_again_in_s == 9
