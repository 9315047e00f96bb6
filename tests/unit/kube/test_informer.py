"""Informers against a fake API server that misbehaves in every way a watch can."""

import asyncio
import itertools
from typing import Any

import msgspec
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.reflector import Timing
from podvisor_common.kube.resources import PODS, ObjectKey
from structlog.testing import capture_logs

from tests.unit.kube.fake_apiserver import (
    Cut,
    Delay,
    Duplicate,
    End,
    FakeApiServer,
    Gone,
    Refuse,
    Repeat,
    Stall,
)
from tests.unit.kube.informer_world import Pod, Spec, key, pod, world
from tests.unit.kube.virtual_time import virtual_time


@virtual_time
async def test_list_then_watch() -> None:
    async with world(pod("a"), pod("b", "n2")) as it:
        assert it.informer.synced
        assert it.nodes() == {"a": "n1", "b": "n2"}
        it.server.put(PODS, pod("c"))
        it.server.put(PODS, pod("a", "n2"))
        it.server.remove(PODS, key("b"))
        await it.until(lambda: len(it.told) == 5)
        assert it.told == [
            ("a", None, "n1"),
            ("b", None, "n2"),
            ("c", None, "n1"),
            ("a", "n1", "n2"),
            ("b", "n2", None),
        ]
        assert [obj.metadata.name for obj in it.informer.by_index("node", "n2")] == ["a"]
        assert it.informer.by_index("node", "n3") == []
        assert it.informer.get(key("b")) is None
        assert it.lists == 1


@virtual_time
async def test_what_is_not_worth_its_place_is_not_cached() -> None:
    def nameless(obj: Pod) -> Pod:
        return msgspec.structs.replace(obj, spec=Spec())

    async with world(pod("a"), keep=nameless) as it:
        it.server.put(PODS, pod("b"))
        await it.until(lambda: len(it.told) == 2)
        it.informer.learn(msgspec.convert(pod("a") | {"metadata": {"namespace": "shop", "name": "a", "resourceVersion": "999"}}, Pod))  # fmt: skip
        assert it.nodes() == {"a": "", "b": ""}


@virtual_time
async def test_long_lists_come_in_pages_and_are_swapped_in_at_once() -> None:
    pods = [pod(f"p{number:02}") for number in range(23)]
    async with world(*pods, timing=Timing(page_size=5)) as it:
        assert len(it.informer.list()) == 23
        assert it.lists == 5
        assert len(it.told) == 23


@virtual_time
async def test_watches_are_bounded_in_time_and_ask_for_bookmarks() -> None:
    async with world(pod("a"), label_selector="x=y", field_selector="spec.nodeName=n1") as it:
        await it.server.until(lambda: bool(it.watches))
        watch = it.watches[0]
        assert 300 <= int(watch["timeoutSeconds"]) <= 600
        assert watch["allowWatchBookmarks"] == "true"
        assert (watch["labelSelector"], watch["fieldSelector"]) == ("x=y", "spec.nodeName=n1")


@virtual_time
async def test_only_what_is_selected_is_known() -> None:
    async with world(
        pod("a", "n1"), pod("b", "n2"), field_selector="spec.nodeName=n1", namespace="shop"
    ) as it:
        it.server.put(PODS, pod("c", "n2"))
        it.server.put(PODS, pod("d", "n1", namespace="other"))
        it.server.put(PODS, pod("e", "n1"))
        await it.until(lambda: len(it.told) == 2)
        assert sorted(it.nodes()) == ["a", "e"]


@virtual_time
async def test_expired_watch_lists_again_and_tells_only_the_difference() -> None:
    async with world(pod("a"), pod("b"), pod("c"), faults=(Gone(),)) as it:
        it.server.remove(PODS, key("a"))
        it.server.put(PODS, pod("b", "n2"))
        it.server.put(PODS, pod("d"))
        await it.until(lambda: len(it.told) == 6)
        assert it.told[3:] == [("a", "n1", None), ("b", "n1", "n2"), ("d", None, "n1")]
        assert it.lists == 2
        assert [obj.metadata.name for obj in it.informer.by_index("node", "n1")] == ["c", "d"]


@virtual_time
async def test_watch_refused_with_410_lists_again() -> None:
    async with world(pod("a"), faults=(Refuse(410, "Expired"),)) as it:
        await it.server.until(lambda: it.lists == 2)
        it.server.put(PODS, pod("b"))
        await it.until(lambda: "b" in it.nodes())


@virtual_time
async def test_version_lost_to_compaction_during_a_cut_lists_again() -> None:
    async with world(pod("a"), faults=(Cut(after_events=1),)) as it:
        it.server.put(PODS, pod("b"))
        await it.until(lambda: "b" in it.nodes())
        it.server.remove(PODS, key("a"))
        it.server.compact()
        await it.until(lambda: "a" not in it.nodes())
        assert it.lists == 2


@virtual_time
async def test_cut_watch_resumes_from_the_last_event() -> None:
    async with world(pod("a"), faults=(Cut(after_events=2), Cut(after_events=1))) as it:
        for name in "bcdef":
            it.server.put(PODS, pod(name))
        await it.until(lambda: len(it.told) == 6)
        assert [name for name, *_ in it.told] == list("abcdef")
        assert it.lists == 1
        assert [watch["resourceVersion"] for watch in it.watches] == ["101", "103", "104"]


@virtual_time
async def test_ended_watch_resumes_from_the_bookmark() -> None:
    async with world(pod("a"), faults=(End(after_events=1),)) as it:
        await it.server.until(lambda: len(it.watches) == 1)
        it.server.version += 50
        it.server.bookmark(PODS)
        await it.server.until(lambda: len(it.watches) == 2)
        assert it.watches[1]["resourceVersion"] == "151"
        assert it.lists == 1


@virtual_time
async def test_stalled_watch_is_given_up_and_resumed() -> None:
    async with world(pod("a"), faults=(Stall(after_events=1),)) as it:
        started_s = asyncio.get_running_loop().time()
        it.server.put(PODS, pod("b"))
        it.server.put(PODS, pod("c"))
        await it.until(lambda: "c" in it.nodes())
        assert 90 <= asyncio.get_running_loop().time() - started_s < 100
        assert it.lists == 1


@virtual_time
async def test_repeated_and_stale_events_change_nothing() -> None:
    async with world(pod("a"), faults=(Duplicate(after_events=3),)) as it:
        it.server.put(PODS, pod("a", "n2"))
        it.server.remove(PODS, key("a"))
        it.server.put(PODS, pod("a", "n3"))
        it.server.put(PODS, pod("end"))
        await it.until(lambda: "end" in it.nodes())
        assert it.told == [
            ("a", None, "n1"),
            ("a", "n1", "n2"),
            ("a", "n2", None),
            ("a", None, "n3"),
            ("end", None, "n1"),
        ]


@virtual_time
async def test_an_event_told_again_does_not_bring_a_deleted_object_back() -> None:
    async with world(faults=(Repeat(after_events=2),)) as it:
        it.server.put(PODS, pod("a"))
        it.server.remove(PODS, key("a"))
        it.server.put(PODS, pod("end"))
        await it.until(lambda: "end" in it.nodes())
        assert it.nodes() == {"end": "n1"}
        assert it.lists == 1


@virtual_time
async def test_delayed_events_arrive_in_order() -> None:
    release = asyncio.Event()
    async with world(pod("a"), faults=(Delay(release),)) as it:
        it.server.put(PODS, pod("b"))
        it.server.remove(PODS, key("a"))
        it.server.put(PODS, pod("a", "n2"))
        assert it.nodes() == {"a": "n1"}
        release.set()
        await it.until(lambda: len(it.told) == 4)
        assert it.nodes() == {"a": "n2", "b": "n1"}
        assert it.lists == 1


@virtual_time
async def test_failures_are_paced_and_the_pace_recovers() -> None:
    timing = Timing(retry_initial_s=1.0, retry_max_s=8.0)
    async with world(pod("a"), faults=tuple(End() for _ in range(8)), timing=timing) as it:
        loop = asyncio.get_running_loop()
        times = [loop.time()]
        for number in range(2, 9):
            await it.server.until(lambda n=number: len(it.watches) >= n)  # type: ignore[misc]
            times.append(loop.time())
        pauses = [after - before for before, after in itertools.pairwise(times)]
        for pause, least in zip(pauses, [1, 2, 4, 8, 8, 8, 8], strict=True):
            assert least <= pause <= 1.5 * least + 0.5


@virtual_time
async def test_a_server_that_was_away_for_long_is_found_soon_when_it_is_back() -> None:
    away = [Refuse(503, "ServiceUnavailable")] * 1000
    async with world(pod("a"), faults=(End(after_events=1), *away)) as it:
        loop = asyncio.get_running_loop()
        it.server.put(PODS, pod("b"))
        await asyncio.sleep(200)
        # Not more often than every ten seconds, once that pace is reached.
        assert len(it.watches) < 30
        # One that was started anew knows no old versions.
        it.server.watch_faults.clear()
        it.server.put(PODS, pod("c"))
        it.server.compact()
        back_s = loop.time()
        await it.until(lambda: "c" in it.nodes())
        assert loop.time() - back_s <= 15 + 1.5


@virtual_time
async def test_retry_after_is_honoured_and_those_who_were_told_the_same_come_apart() -> None:
    refusal = Refuse(429, "TooManyRequests", headers={"Retry-After": "40"})
    waited = set()
    for _ in range(3):
        async with world(pod("a"), faults=(refusal,)) as it:
            await it.server.until(lambda: len(it.watches) == 1)
            started_s = asyncio.get_running_loop().time()
            await it.server.until(lambda: len(it.watches) == 2)
            waited.add(round(asyncio.get_running_loop().time() - started_s, 2))
    assert all(40 <= wait_s <= 61 for wait_s in waited)
    assert len(waited) == 3


@virtual_time
async def test_absent_server_is_waited_for() -> None:
    async with FakeApiServer() as server:
        server.refusals.extend([Refuse(503, "ServiceUnavailable"), Refuse(404, "NotFound")])
        async with KubeClient.for_url(server.url, user_agent="test") as client:
            informer = Informer(client, PODS, Pod)
            task = asyncio.create_task(informer.run(), name="informer")
            await informer.wait_synced()
            assert len(server.requests) >= 3
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


@virtual_time
async def test_expired_page_is_replaced_by_one_whole_list() -> None:
    async with FakeApiServer() as server:
        for number in range(4):
            server.put(PODS, pod(f"p{number}"))
        async with KubeClient.for_url(server.url, user_agent="test") as client:
            informer = Informer(client, PODS, Pod, timing=Timing(page_size=2))
            task = asyncio.create_task(informer.run(), name="informer")
            await server.until(lambda: len(server.requests) == 1)
            server.refusals.append(Refuse(410, "Expired"))
            await informer.wait_synced()
            assert len(informer.list()) == 4
            assert [request.query.get("limit") for request in server.requests[:3]] == [
                "2",
                "2",
                None,
            ]
            task.cancel()
            await asyncio.wait([task])


@virtual_time
async def test_object_that_does_not_fit_harms_no_other() -> None:
    bad: dict[str, Any] = {
        "metadata": {"namespace": "shop", "name": "bad"},
        "spec": {"nodeName": 7},
    }
    with capture_logs() as logs:
        async with world(pod("a"), bad) as it:
            it.server.put(PODS, {**bad, "metadata": {**bad["metadata"], "name": "worse"}})
            it.server.put(PODS, pod("b"))
            await it.until(lambda: "b" in it.nodes())
            assert sorted(it.nodes()) == ["a", "b"]
    errors = [log for log in logs if log["log_level"] == "error"]
    assert [log["name"] for log in errors] == ["bad", "worse"]


@virtual_time
async def test_the_answer_to_a_write_is_known_before_the_watch_tells_of_it() -> None:
    release = asyncio.Event()
    async with world(pod("a"), faults=(Delay(release),)) as it:
        answers = (it.server.put(PODS, pod("a", "n2")), it.server.put(PODS, pod("b")))
        for answer in answers:
            it.informer.learn(msgspec.convert(answer, Pod))
        assert it.nodes() == {"a": "n2", "b": "n1"}
        release.set()
        it.server.put(PODS, pod("end"))
        await it.until(lambda: "end" in it.nodes())
        assert [name for name, *_ in it.told] == ["a", "a", "b", "end"]


@virtual_time
async def test_the_answer_to_a_write_does_not_bring_a_deleted_object_back() -> None:
    async with world(pod("a")) as it:
        answer = it.server.put(PODS, pod("b"))
        it.server.remove(PODS, key("b"))
        it.server.put(PODS, pod("end"))
        await it.until(lambda: "end" in it.nodes())
        it.informer.learn(msgspec.convert(answer, Pod))
        assert it.nodes() == {"a": "n1", "end": "n1"}


@virtual_time
async def test_late_subscriber_is_told_what_is_known() -> None:
    async with world(pod("a")) as it:
        told: list[ObjectKey] = []
        it.informer.subscribe(lambda key, old, new: told.append(key))
        assert told == [key("a")]
