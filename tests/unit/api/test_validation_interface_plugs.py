"""What podvisor itself may change of an instance's interfaces, and what it may not."""

import copy
from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine_instance_update

from tests.unit.api.machines import Json, instance
from tests.unit.controller.builders import situations

UPLINK = {"name": "default", "masquerade": {}}
POD = {"name": "default", "pod": {}}


def nic(name: str = "lan", **changes: Any) -> Json:
    return {"name": name, "bridge": {}} | changes


def lan(name: str = "lan", **changes: Any) -> Json:
    return {"name": name, "multus": {"networkName": "lan"} | changes}


def has(*interfaces: Json, networks: list[Json] | None = None, attached: str = "") -> Json:
    """An instance with these interfaces beside that of the pod network, of which the guest has one."""
    obj = instance()
    spec = obj["spec"]
    beside = [lan(i["name"]) for i in interfaces] if networks is None else networks
    spec["networks"] = [POD, *beside]
    spec["domain"]["devices"]["interfaces"] = [UPLINK, *interfaces]
    obj["status"] = {"interfaces": [{"name": attached, "infoSource": "domain"}]}
    return obj


def on_pod(**changes: Any) -> Json:
    """An instance with another interface to the pod network."""
    obj = has()
    obj["spec"]["domain"]["devices"]["interfaces"] = [{"name": "default"} | changes]
    return obj


PLAIN, PLUGGED, ABSENT = has(), has(nic()), has(nic(state="absent"))
GOING = has(nic(state="absent"), attached="lan")


def causes_of(old: Json, new: Json, *, may_plug: bool = True) -> list[tuple[str, str]]:
    before = copy.deepcopy((old, new))
    causes = validate_virtual_machine_instance_update(new, old, privileged=True, may_plug=may_plug)
    assert (old, new) == before
    return [(cause.field, cause.message) for cause in causes]


@pytest.mark.parametrize(
    ("old", "new"),
    situations(
        ("one comes", PLAIN, PLUGGED),
        ("it is to go", PLUGGED, ABSENT),
        ("it has gone", ABSENT, PLAIN),
        ("the carrier goes", PLUGGED, has(nic(state="down"))),
        ("the carrier comes", has(nic(state="down")), has(nic(state="up"))),
        ("the carrier of the pod network goes", PLAIN, on_pod(masquerade={}, state="down")),
        ("one goes and another comes", ABSENT, has(nic("dmz"))),
        ("its agent is heard of", PLUGGED, has(nic(), attached="lan")),
    ),
)
def test_what_may_come_and_go(old: Json, new: Json) -> None:
    assert causes_of(old, new) == []
    if old["spec"] != new["spec"]:
        [(field, message)] = causes_of(old, new, may_plug=False)
        assert (field, message) == ("spec", "update of VMI object is restricted")


NICS = "spec.domain.devices.interfaces"


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    situations(
        ("one vanishes", PLUGGED, PLAIN, NICS, "its state must be absent before it leaves"),
        ("one vanishes too early", GOING, PLAIN, NICS, "has not let go of yet"),
        ("one comes back", ABSENT, PLUGGED, f"{NICS}[1].state", "is leaving already"),
        (
            "another address",
            PLUGGED,
            has(nic(macAddress="02:00:00:00:00:01")),
            f"{NICS}[1]",
            "must leave before another interface has its name",
        ),
        (
            "another network",
            PLUGGED,
            has(nic(), networks=[{"name": "lan", "multus": {"networkName": "other"}}]),
            f"{NICS}[1]",
            "must leave before another interface has its name",
        ),
        ("another binding", PLAIN, on_pod(bridge={}), f"{NICS}[0]", "must leave before"),
        (
            "the pod network goes",
            PLAIN,
            instance() | {"spec": {**instance()["spec"], "networks": []}},
            f"{NICS}[0]",
            "must leave before",
        ),
        (
            "unplugged pod network",
            PLAIN,
            on_pod(masquerade={}, state="absent"),
            f"{NICS}[0].state",
            "supported only for binding bridge",
        ),
        (
            "a hardware address that another has",
            has(nic(macAddress="02:00:00:00:00:01")),
            has(nic(macAddress="02:00:00:00:00:01"), nic("dmz", macAddress="02:00:00:00:00:01")),
            f"{NICS}[2].macAddress",
            "is that of",
        ),
    ),
)
def test_what_may_not(old: Json, new: Json, field: str, words: str) -> None:
    by_field = dict(causes_of(old, new))
    assert field in by_field
    assert words in by_field[field]


def test_no_interface_of_the_pod_network_comes_or_goes() -> None:
    without = has()
    without["spec"] |= {"networks": []}
    without["spec"]["domain"]["devices"] |= {"interfaces": []}
    [(field, message)] = causes_of(PLAIN, without)
    assert (field, "fixed part of the instance" in message) == (NICS, True)
    [(field, message)] = causes_of(without, PLAIN)
    assert (field, "cannot come to a running guest" in message) == (f"{NICS}[0]", True)
