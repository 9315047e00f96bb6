"""JSON Patch as people write it."""

import json
from typing import Any

import pytest
from podvisor_controller.json_patch import PatchError, applied, confine, parse, text_of

TREE: dict[str, Any] = {"a": {"b": 1, "x/y": 2, "~": 3}, "list": [1, 2, 3]}


def op(name: str, path: str, **more: Any) -> str:
    return json.dumps({"op": name, "path": path, **more})


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (op("add", "/a/c", value={"d": 1}), {"a": TREE["a"] | {"c": {"d": 1}}}),
        (op("add", "/list/1", value=9), {"list": [1, 9, 2, 3]}),
        (op("add", "/list/-", value=9), {"list": [1, 2, 3, 9]}),
        (op("replace", "/list/0", value=9), {"list": [9, 2, 3]}),
        (op("replace", "/a/new", value=None), {"a": TREE["a"] | {"new": None}}),
        (op("remove", "/a/x~1y"), {"a": {"b": 1, "~": 3}}),
        (op("remove", "/a/~0"), {"a": {"b": 1, "x/y": 2}}),
        (op("remove", "/list/2"), {"list": [1, 2]}),
        (op("copy", "/c", **{"from": "/list"}), {"c": [1, 2, 3]}),
        (op("move", "/list/0", **{"from": "/list/2"}), {"list": [3, 1, 2]}),
        (op("test", "/a/b", value=1), {}),
    ],
)
def test_an_operation_is_applied(operation: str, expected: dict[str, Any]) -> None:
    assert applied(TREE, parse([operation])) == TREE | expected
    assert TREE == {"a": {"b": 1, "x/y": 2, "~": 3}, "list": [1, 2, 3]}


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ("{", "is no operation of JSON Patch"),
        ("[]", "is no operation of JSON Patch"),
        (op("merge", "/a"), "op must be one of"),
        (op("remove", "a"), "path must begin with a slash"),
        (op("add", "/a"), "add needs a value"),
        (op("copy", "/a"), "copy needs from"),
        (op("add", "/a", value=json.loads("[" * 70 + "]" * 70)), "nested deeper than 64 levels"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_position(operation: str, why: str) -> None:
    with pytest.raises(PatchError, match=f"operation 1: .*{why}"):
        parse([op("remove", "/a"), operation])


@pytest.mark.parametrize(
    "operation",
    [
        op("remove", "/nothing"),
        op("remove", "/nothing/below"),
        op("add", "/a/b/c", value=1),
        op("add", "/list/4", value=1),
        op("replace", "/list/3", value=1),
        op("replace", "/list/01", value=1),
        op("remove", "/list/-"),
        op("remove", "/list/" + "9" * 5000),
        op("test", "/a/b", value=2),
        op("move", "/c", **{"from": "/nothing"}),
    ],
)
def test_what_cannot_be_applied_is_refused(operation: str) -> None:
    with pytest.raises(PatchError):
        applied(TREE, parse([operation]))


def test_copies_of_copies_end_somewhere() -> None:
    doubling = [op("copy", f"/a/{i}", **{"from": "/a"}) for i in range(64)]
    with pytest.raises(PatchError, match="copies more than"):
        applied(TREE, parse(doubling))


def test_an_operation_is_written_so_that_it_can_be_read() -> None:
    path = ("a", "x/y")
    assert applied(TREE, parse([text_of("remove", path)])) == TREE | {"a": {"b": 1, "~": 3}}
    assert json.loads(text_of("add", ("list", 0), "v")) == {
        "op": "add",
        "path": "/list/0",
        "value": "v",
    }


@pytest.mark.parametrize(
    ("operation", "is_inside"),
    [
        (op("remove", "/a/b"), True),
        (op("remove", "/list"), False),
        (op("copy", "/a/c", **{"from": "/list"}), True),
        (op("move", "/a/c", **{"from": "/list"}), False),
    ],
)
def test_places_can_be_confined(operation: str, is_inside: bool) -> None:
    operations = parse([operation])
    if is_inside:
        confine(operations, ["/a/", "/b/"])
        return
    with pytest.raises(PatchError, match="only for elements under /a/ or /b/"):
        confine(operations, ["/a/", "/b/"])
