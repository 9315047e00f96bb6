"""What controllers of sets share: selectors, names, memory and batches."""

import asyncio
import itertools
import re

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.kube.errors import ApiForbidden
from podvisor_controller.sets.batches import PARALLEL_WRITES, in_batches
from podvisor_controller.sets.claims import adoption, release
from podvisor_controller.sets.member_names import choose_names, names_of
from podvisor_controller.sets.selectors import matches, text_of
from podvisor_controller.sets.unseen import Unseen

from tests.unit.controller.builders import Json, member, situations


def selector(**fields: object) -> v1.LabelSelector:
    return msgspec.convert(fields, v1.LabelSelector)


def expression(operator: str, *values: str) -> Json:
    return {"key": "tier", "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("wanted", "labels", "expected"),
    situations(
        ("equal", selector(matchLabels={"a": "1"}), {"a": "1", "b": "2"}, True),
        ("another value", selector(matchLabels={"a": "1"}), {"a": "2"}, False),
        ("no labels", selector(matchLabels={"a": "1"}), None, False),
        ("in", selector(matchExpressions=[expression("In", "x", "y")]), {"tier": "y"}, True),
        ("in, absent", selector(matchExpressions=[expression("In", "x")]), {}, False),
        ("not in", selector(matchExpressions=[expression("NotIn", "x")]), {"tier": "y"}, True),
        ("not in, absent", selector(matchExpressions=[expression("NotIn", "x")]), {}, True),
        ("not in, there", selector(matchExpressions=[expression("NotIn", "x")]), {"tier": "x"}, False),
        ("exists", selector(matchExpressions=[expression("Exists")]), {"tier": ""}, True),
        ("exists not", selector(matchExpressions=[expression("DoesNotExist")]), {"tier": ""}, False),
        ("unknown operator", selector(matchExpressions=[expression("Like", "x")]), {"tier": "x"}, False),
        (
            "both must hold",
            selector(matchLabels={"a": "1"}, matchExpressions=[expression("Exists")]),
            {"a": "1"},
            False,
        ),
        ("an empty one selects nothing", selector(), {"a": "1"}, False),
    ),
)  # fmt: skip
def test_matches(wanted: v1.LabelSelector, labels: Json | None, expected: bool) -> None:
    assert matches(wanted, labels) is expected


def test_text_of_a_selector() -> None:
    wanted = selector(
        matchLabels={"z": "1", "a": ""},
        matchExpressions=[
            expression("In", "y", "x"),
            {"key": "m", "operator": "NotIn", "values": ["q"]},
            {"key": "b", "operator": "Exists"},
            {"key": "c", "operator": "DoesNotExist"},
        ],
    )
    assert text_of(wanted) == "a=,b,!c,m notin (q),tier in (x,y),z=1"


def first(count: int, base: str = "web", uid: str = "u") -> list[str]:
    return list(itertools.islice(names_of(base, uid), count))


def test_names_are_the_same_for_whoever_asks() -> None:
    assert first(500) == first(500)
    assert len(set(first(500))) == 500
    assert not set(first(100)) & set(first(100, uid="v"))
    assert all(re.fullmatch(r"web[bcdfghjklmnpqrstvwxz2456789]{5}", name) for name in first(20))


def test_names_fit_a_label() -> None:
    [name] = first(1, base="x" * 200)
    assert len(name) == 63


def test_names_that_may_exist_are_tried_again_before_new_ones() -> None:
    a, b, c, d = first(4)
    chosen = choose_names(names_of("web", "u"), 2, unanswered=[c], is_taken={a}.__contains__)
    assert chosen == [c, b]
    chosen = choose_names(names_of("web", "u"), 1, unanswered=[d, c], is_taken={a}.__contains__)
    assert chosen == sorted([c, d])[:1]


def test_owners_are_added_and_taken_away_without_touching_others() -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}
    owned = member("a").metadata
    ours = msgspec.to_builtins(owned.owner_references)[0]
    two = member("a", metadata={"ownerReferences": [other, ours]}).metadata
    left = release(two, ours["uid"])["metadata"]
    assert left["ownerReferences"] == [other]
    assert (left["uid"], left["resourceVersion"]) == (two.uid, two.resource_version)
    orphan = member("a", metadata={"ownerReferences": [other]}).metadata
    assert adoption(orphan, ours)["metadata"]["ownerReferences"] == [other, ours]


def nothing_is_cached(_: str) -> None:
    return None


def test_what_was_made_is_remembered_until_the_cache_shows_it() -> None:
    cache: dict[str, v1.VirtualMachineInstance | None] = {}
    unseen: Unseen[v1.VirtualMachineInstance] = Unseen()
    unseen.made |= {"a": member("a"), "b": None}
    unseen.settle(cache.get, [])
    assert [vmi.metadata.name for vmi in unseen.answered] == ["a"]
    assert unseen.unanswered == ["b"]
    cache |= {"a": member("a"), "b": member("b")}
    unseen.settle(cache.get, [])
    assert unseen.made == {}


def test_what_is_known_to_be_gone_is_forgotten_and_what_may_come_is_not() -> None:
    unseen: Unseen[v1.VirtualMachineInstance] = Unseen()
    unseen.made |= {"a": member("a"), "b": None, "c": None}
    unseen.confirm([member("c"), member("d")], {"d": member("d")}.get)
    assert [vmi.metadata.name for vmi in unseen.answered] == ["c"]
    assert unseen.unanswered == ["b"]


def test_deletions_are_remembered_until_the_cache_shows_them() -> None:
    unseen: Unseen[v1.VirtualMachineInstance] = Unseen()
    unseen.deleted, unseen.doubtful = {"uid-a", "uid-b"}, {"uid-c"}
    unseen.settle(nothing_is_cached, [member("a"), member("c")])
    assert (unseen.deleted, unseen.doubtful) == ({"uid-a"}, {"uid-c"})
    going = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    unseen.settle(nothing_is_cached, [member("a", metadata=going)])
    assert (unseen.deleted, unseen.doubtful) == (set(), set())


async def sizes(
    count: int, *, refused: int | None = None, begin: int = 1, goes_on: bool = False
) -> list[int]:
    """The sizes of the batches in which `count` items are done, when item `refused` is."""
    seen: list[int] = []
    running = 0

    async def act(item: int) -> None:
        nonlocal running
        if not running:
            seen.append(0)
        running += 1
        seen[-1] += 1
        await asyncio.sleep(0)
        running -= 1
        if item == refused:
            raise ApiForbidden(403, "Forbidden", "exceeded quota")

    errors = await in_batches(range(count), act, first=begin, goes_on=goes_on)
    assert [error.message for error in errors] == ["exceeded quota"] * (refused is not None)
    return seen


async def test_batches_grow_to_a_bound() -> None:
    assert await sizes(50) == [1, 2, 4, 8, PARALLEL_WRITES, PARALLEL_WRITES, 3]
    assert await sizes(20, begin=PARALLEL_WRITES) == [PARALLEL_WRITES, 4]
    assert await sizes(0) == []


async def test_a_refusal_ends_with_its_batch() -> None:
    assert await sizes(50, refused=0) == [1]
    assert await sizes(50, refused=1) == [1, 2]


async def test_a_refusal_of_one_write_is_none_of_the_others() -> None:
    begin = PARALLEL_WRITES
    assert await sizes(20, refused=0, begin=begin, goes_on=True) == [begin, 4]
