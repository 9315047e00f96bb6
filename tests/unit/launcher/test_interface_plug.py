"""Network devices of a guest that runs: plugged, unplugged, and without a carrier."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle import hotplug_plan
from podvisor_launcher.settings import Settings
from podvisor_launcher.virt import connection

from tests.unit.launcher.launched import Launcher, launcher
from tests.unit.launcher.plugging import Qemu, alias_of, qemu_in_place
from tests.unit.launcher.specs import interface, spec

AWAITED = pb.INTERFACE_ATTACHMENT_AWAITED
ATTACHED = pb.INTERFACE_ATTACHMENT_ATTACHED
DETACHING = pb.INTERFACE_ATTACHMENT_DETACHING
MAC = "02:00:00:00:00:09"


@pytest.fixture
def qemu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Qemu]:
    with qemu_in_place(monkeypatch) as it:
        yield it


def later(**changes: object) -> pb.InterfaceSpec:
    return interface("later", mac=MAC, tap="tap1", is_pluggable=True, **changes)


@asynccontextmanager
async def running(
    settings: Settings, *interfaces: pb.InterfaceSpec, name: str
) -> AsyncIterator[Launcher]:
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name, interfaces=interfaces))
        await it.until(lambda report: report.devices_settled)
        yield it


def reported(report: pb.DomainReport, name: str) -> pb.InterfaceReport:
    found = (each for each in report.interfaces if each.name == name)
    return next(found, pb.InterfaceReport())


async def until(it: Launcher, attachment: int, name: str = "later") -> pb.InterfaceReport:
    report = await it.until(lambda report: reported(report, name).attachment == attachment)
    return reported(report, name)


async def until_gone(it: Launcher, name: str = "later") -> pb.DomainReport:
    """It is proved: the report is complete, and has no such device."""
    return await it.until(
        lambda report: (
            report.devices_settled and all(each.name != name for each in report.interfaces)
        )
    )


async def test_an_interface_comes_and_goes(settings: Settings, name: str, qemu: Qemu) -> None:
    async with running(settings, interface(), name=name) as it:
        wanted = spec(name=name, generation=2, interfaces=[interface(), later(queues=2)])
        assert (await it.machine.apply(wanted)).restart_required == ()
        assert it.specs[-1].interfaces[1].dhcp.address == "10.0.2.2"
        found = await until(it, ATTACHED)
        assert (found.mac, found.link_up, found.queues) == (MAC, True, 2)
        [device] = [each for each in qemu.devices if each.tag == "interface"]
        assert device.find("address") is None
        await it.machine.apply(spec(name=name, generation=3, interfaces=[interface()]))
        gone = await until_gone(it)
        assert reported(gone, "default").attachment == pb.INTERFACE_ATTACHMENT_UNSPECIFIED
    assert qemu.asked == ["ua-later"]


async def test_one_that_was_there_at_the_start_goes(
    settings: Settings, name: str, qemu: Qemu
) -> None:
    async with running(settings, interface(), later(), name=name) as it:
        await until(it, ATTACHED)
        await it.machine.apply(spec(name=name, generation=2, interfaces=[interface()]))
        await until_gone(it)
    assert qemu.devices == []


async def test_the_carrier_goes_and_comes(settings: Settings, name: str, qemu: Qemu) -> None:
    async with running(settings, interface(link_down=True), name=name) as it:
        assert not reported(await it.until(lambda _: True), "default").link_up
        for generation, link_down in ((2, False), (3, True)):
            wanted = [interface(link_down=link_down)]
            await it.machine.apply(spec(name=name, generation=generation, interfaces=wanted))
            await it.until(
                lambda report, up=not link_down: reported(report, "default").link_up == up  # type: ignore[misc]
            )
    [device] = qemu.changed.values()
    target = device.find("target")
    assert target is not None
    assert target.get("dev") == "tap0"


async def test_what_is_plugged_is_known_to_the_next_launcher(
    settings: Settings, name: str, qemu: Qemu
) -> None:
    qemu.is_stubborn = True
    async with running(settings, interface(), name=name) as it:
        await it.machine.apply(
            spec(name=name, generation=2, interfaces=[interface(), later(link_down=True)])
        )
        await until(it, ATTACHED)
    async with launcher(settings) as it:
        assert not (await until(it, ATTACHED)).link_up
        await it.machine.apply(spec(name=name, generation=3, interfaces=[interface()]))
        await until(it, DETACHING)
    async with launcher(settings) as it:
        await until(it, DETACHING)
        qemu.let_go("ua-later")
        await until_gone(it)
    assert set(qemu.asked) == {"ua-later"}


@pytest.mark.parametrize("is_of_link", [False, True])
async def test_what_fails_is_told_and_tried_again(
    settings: Settings,
    name: str,
    qemu: Qemu,
    monkeypatch: pytest.MonkeyPatch,
    is_of_link: bool,
) -> None:
    monkeypatch.setattr(hotplug_plan, "_RETRY_MS", 50)
    qemu.failures = ["No more available PCI slots"]
    message = 'Interface "{}": No more available PCI slots.'
    wanted = [interface(link_down=True)] if is_of_link else [interface(), later()]
    device = "default" if is_of_link else "later"
    async with running(settings, interface(), name=name) as it:
        await it.machine.apply(spec(name=name, generation=2, interfaces=wanted))
        await it.until(lambda report: reported(report, device).message == message.format(device))
        await it.until(
            lambda report: (
                reported(report, device).link_up != is_of_link
                and not reported(report, device).message
            )
        )


async def test_a_device_that_may_still_come_is_not_said_to_be_gone(
    settings: Settings, name: str, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call whose answer was not waited for goes on without us."""
    monkeypatch.setattr(connection, "_CHANGE_TIMEOUT_S", 0.2)
    async with running(settings, interface(), name=name) as it:
        qemu.gate.clear()
        await it.machine.apply(spec(name=name, generation=2, interfaces=[interface(), later()]))
        await it.until(lambda report: not report.devices_settled)
        await it.machine.apply(spec(name=name, generation=3, interfaces=[interface()]))
        assert not (await it.until(lambda report: report.accepted_generation == 3)).devices_settled
        qemu.gate.set()
        await it.until(lambda _: qemu.asked == ["ua-later"])
        await until_gone(it)
    assert [alias_of(each) for each in qemu.devices] == []
