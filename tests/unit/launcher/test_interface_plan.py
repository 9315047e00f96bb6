"""What is next for the network devices of a guest that runs, and what is said of them."""

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle.hotplug_plan import Attachment, Requests
from podvisor_launcher.lifecycle.interface_plan import (
    AttachedInterface,
    InterfaceChange,
    Interfaces,
    InterfaceStep,
    Wish,
    interfaces_said,
    next_interface_change,
)
from podvisor_launcher.lifecycle.spec_changes import adopt_live_fields, restart_required

from tests.unit.launcher.specs import interface, spec

PLUGGABLE, FIXED = Wish(is_pluggable=True), Wish()
AWAITED, ATTACHED, DETACHING = Attachment.AWAITED, Attachment.ATTACHED, Attachment.DETACHING
ASKED = {"a": Requests(1, 700)}


def step(what: InterfaceStep, due_ms: int = 0) -> InterfaceChange:
    return InterfaceChange("a", what, due_ms)


@pytest.mark.parametrize(
    ("situation", "now", "change", "said"),
    [
        ("nothing", Interfaces(), None, []),
        ("fixed and there", Interfaces({"a": FIXED}, {"a": True}), None, [None]),
        ("fixed and missing", Interfaces({"a": FIXED}), None, [None]),
        ("wanted", Interfaces({"a": PLUGGABLE}), step(InterfaceStep.PLUG), [AWAITED]),
        (
            "tried in vain",
            Interfaces({"a": PLUGGABLE}, attempts=ASKED),
            step(InterfaceStep.PLUG, 700),
            [AWAITED],
        ),
        ("there", Interfaces({"a": PLUGGABLE}, {"a": True}), None, [ATTACHED]),
        ("not wanted", Interfaces({}, {"a": True}), step(InterfaceStep.UNPLUG), [DETACHING]),
        (
            "asked to go",
            Interfaces({}, {"a": True}, requests=ASKED),
            step(InterfaceStep.UNPLUG, 700),
            [DETACHING],
        ),
        (
            "asked to go and wanted anew",
            Interfaces({"a": PLUGGABLE}, {"a": False}, requests=ASKED),
            step(InterfaceStep.UNPLUG, 700),
            [DETACHING],
        ),
        (
            "no carrier, and shall have one",
            Interfaces({"a": FIXED}, {"a": False}),
            step(InterfaceStep.LINK_UP),
            [None],
        ),
        (
            "a carrier, and shall have none",
            Interfaces({"a": Wish(link_up=False, is_pluggable=True)}, {"a": True}),
            step(InterfaceStep.LINK_DOWN),
            [ATTACHED],
        ),
        (
            "a carrier that did not go",
            Interfaces({"a": Wish(link_up=False)}, {"a": True}, attempts=ASKED),
            step(InterfaceStep.LINK_DOWN, 700),
            [None],
        ),
        (
            "no carrier, as asked",
            Interfaces({"a": Wish(link_up=False)}, {"a": False}),
            None,
            [None],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_interface(
    situation: str,
    now: Interfaces,
    change: InterfaceChange | None,
    said: list[Attachment | None],
) -> None:
    assert next_interface_change(now) == change
    assert [each.attachment for each in interfaces_said(now)] == said


def test_what_is_due_first_comes_first() -> None:
    now = Interfaces({"a": PLUGGABLE, "b": PLUGGABLE}, attempts=ASKED)
    assert next_interface_change(now) == InterfaceChange("b", InterfaceStep.PLUG)


def test_a_guest_that_does_not_let_go_is_told_of() -> None:
    now = Interfaces({}, {"a": True}, requests={"a": Requests(4, 700)})
    message = 'Interface "a": the guest does not let go of the device; it is asked again.'
    assert interfaces_said(now) == (AttachedInterface("a", DETACHING, message),)


def test_a_problem_is_told() -> None:
    now = Interfaces({"a": PLUGGABLE}, problems={"a": "no slot"})
    assert interfaces_said(now) == (AttachedInterface("a", AWAITED, "no slot"),)


def pluggable(name: str, **changes: object) -> pb.InterfaceSpec:
    return interface(name, is_pluggable=True, **changes)


RUNNING = spec(interfaces=[interface("fixed"), pluggable("goes"), pluggable("stays")])


@pytest.mark.parametrize(
    ("situation", "interfaces", "paths", "adopted"),
    [
        (
            "come and go",
            [interface("fixed"), pluggable("stays"), pluggable("comes")],
            [],
            ["fixed", "stays", "comes"],
        ),
        ("all that may go", [interface("fixed")], [], ["fixed"]),
        (
            "a fixed one goes",
            [pluggable("goes"), pluggable("stays")],
            ["interfaces[fixed]"],
            ["fixed", "goes", "stays"],
        ),
        (
            "a fixed one comes",
            [*RUNNING.interfaces, interface("more")],
            ["interfaces[more]"],
            ["fixed", "goes", "stays"],
        ),
        (
            "one is another",
            [interface("fixed"), pluggable("goes"), pluggable("stays", model="e1000")],
            ["interfaces[stays]"],
            ["fixed", "goes", "stays"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_takes_effect_at_once(
    situation: str, interfaces: list[pb.InterfaceSpec], paths: list[str], adopted: list[str]
) -> None:
    wanted = spec(generation=2, interfaces=interfaces)
    assert restart_required(RUNNING, wanted) == paths
    now = adopt_live_fields(RUNNING, wanted)
    assert [each.name for each in now.interfaces] == adopted
    assert all(each.model == "virtio" for each in now.interfaces)


def test_a_carrier_takes_effect_at_once() -> None:
    wanted = spec(
        generation=2,
        interfaces=[interface("fixed", link_down=True), pluggable("goes"), pluggable("stays")],
    )
    assert restart_required(RUNNING, wanted) == []
    assert [each.link_down for each in adopt_live_fields(RUNNING, wanted).interfaces] == [
        True,
        False,
        False,
    ]
