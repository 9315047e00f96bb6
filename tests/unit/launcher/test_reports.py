"""Reports: the newest whole state, once, to one watcher."""

import asyncio
from dataclasses import replace

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle.hardware import UNSEEN, Disk, Hardware, Interface
from podvisor_launcher.lifecycle.record import EndReason, Record, Stop
from podvisor_launcher.lifecycle.reports import Facts, Reports, StreamReplaced, make_report
from podvisor_launcher.lifecycle.situation import State, Status, Why

from tests.unit.launcher.specs import interface, spec

MAC = "02:00:00:12:34:56"
RUNNING = Facts(Status(State.RUNNING), Record(), spec())


async def test_a_stream_opens_with_the_whole_state() -> None:
    reports = Reports(epoch=9)
    await reports.publish(Facts(Status(State.NONE), Record(), None))
    await reports.publish(RUNNING)
    report = await anext(reports.watch())
    assert (report.epoch, report.sequence, report.state) == (9, 2, pb.DOMAIN_STATE_RUNNING)


async def test_the_same_is_not_said_twice() -> None:
    reports = Reports(epoch=9)
    await reports.publish(RUNNING)
    first = await anext(reports.watch())
    await reports.publish(RUNNING)
    await reports.publish(replace(RUNNING, hardware=Hardware("pc-q35-10.0", ())))
    second = await anext(reports.watch())
    assert second.sequence == first.sequence + 1
    assert second.since == first.since  # the state is the same since then


async def test_a_slow_watcher_gets_the_newest() -> None:
    reports = Reports(epoch=9)
    await reports.publish(Facts(Status(State.NONE), Record(), None))
    stream = reports.watch()
    await anext(stream)
    await reports.publish(Facts(Status(State.PREPARING), Record(), spec()))
    await reports.publish(RUNNING)
    assert (await anext(stream)).state == pb.DOMAIN_STATE_RUNNING


async def test_a_new_stream_replaces_the_older() -> None:
    reports = Reports(epoch=9)
    await reports.publish(RUNNING)
    older, newer = reports.watch(), reports.watch()
    await anext(older)
    waiting: asyncio.Task[pb.DomainReport] = asyncio.create_task(anext(older), name="older")  # type: ignore[arg-type]
    await anext(newer)
    with pytest.raises(StreamReplaced):
        await waiting


async def test_the_end_counts_as_delivered_when_it_was_sent() -> None:
    reports = Reports(epoch=9)
    await reports.publish(Facts(Status(State.ENDED, EndReason.CRASHED, "gone"), Record(), spec()))
    stream = reports.watch()
    assert (await anext(stream)).reason == pb.DOMAIN_REASON_CRASHED
    assert not reports.end_delivered.is_set()
    following = asyncio.create_task(anext(stream, None), name="following")
    async with asyncio.timeout(5):
        await reports.end_delivered.wait()
    await reports.close()
    assert await following is None


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_number(state: State) -> None:
    report = make_report(Facts(Status(state), Record(), None))
    assert pb.DomainState.Name(report.state) == f"DOMAIN_STATE_{state.name}"


@pytest.mark.parametrize("reason", [*Why, *EndReason])
def test_every_reason_has_its_number(reason: Why | EndReason) -> None:
    report = make_report(Facts(Status(State.ENDED, reason), Record(), None))
    name = "UNSPECIFIED" if reason is Why.NOTHING else reason.name
    assert pb.DomainReason.Name(report.reason) == f"DOMAIN_REASON_{name}"


def test_a_stop_is_said_until_the_guest_has_ended() -> None:
    record = Record(stop=Stop(1, by_container=True))
    running = make_report(replace(RUNNING, record=record))
    assert (running.shutting_down, running.container_stopping) == (True, True)
    ended = make_report(Facts(Status(State.ENDED, EndReason.SHUTDOWN), record, spec()))
    assert (ended.shutting_down, ended.container_stopping) == (False, True)


def test_the_disks_are_told_as_libvirt_knows_them() -> None:
    hardware = Hardware("pc-q35-10.0", (Disk("root", "vda", 1 << 30), Disk("seed", "vdb", 0)))
    report = make_report(replace(RUNNING, hardware=hardware))
    assert report.machine_type == "pc-q35-10.0"
    told = [(disk.name, disk.target, disk.capacity_bytes) for disk in report.disks]
    assert told == [("root", "vda", 1 << 30), ("seed", "vdb", 0)]


LEASED = Record(leased=(("a", "10.0.2.2"), ("a", "fd10:0:2::2"), ("b", "10.9.9.9")))


@pytest.mark.parametrize(
    ("situation", "hardware", "expected"),
    [
        ("nobody has looked", UNSEEN, [("a", MAC, True, 2), ("b", MAC, False, 1)]),
        (
            "as it is, and not as it shall be",
            Hardware("q35", (), (Interface("a", MAC, False, 1), Interface("b", MAC, True, 4))),
            [("a", MAC, False, 1), ("b", MAC, True, 4)],
        ),
        ("missing", Hardware("q35", ()), [("a", MAC, False, 2), ("b", MAC, False, 1)]),
        (
            "one too many",
            Hardware("q35", (), (Interface("a", MAC), Interface("b", MAC), Interface("c", MAC))),
            [("a", MAC, True, 1), ("b", MAC, True, 1), ("c", MAC, True, 1)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_interfaces_are_reported_as_the_guest_has_them(
    situation: str, hardware: Hardware, expected: list[tuple[str, str, bool, int]]
) -> None:
    lease6 = pb.Dhcpv6Lease(bridge="k6t-eth0", address="fd10:0:2::2")
    wanted = [interface("a", queues=2, dhcpv6=lease6), interface("b", link_down=True)]
    facts = Facts(Status(State.RUNNING), LEASED, spec(interfaces=wanted), hardware)
    found = make_report(facts).interfaces
    assert [(each.name, each.mac, each.link_up, each.queues) for each in found] == expected
    assert [list(each.addresses) for each in found[:2]] == [["10.0.2.2", "fd10:0:2::2"], []]
