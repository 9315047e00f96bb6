"""Pause, resume, reset, reboot and screenshot of a guest of libvirt's test driver: what is answered is in force."""

import asyncio
from collections.abc import Awaitable, Callable

import libvirt
import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.errors import Terminal
from podvisor_launcher.lifecycle.guest_agent import Agent
from podvisor_launcher.lifecycle.power import AlreadyPaused, NotPaused, NotRunning, Power
from podvisor_launcher.settings import Settings
from podvisor_launcher.virt.errors import AgentTimedOut
from podvisor_launcher.virt.guest import Active, Paused

from tests.unit.launcher.fake_agent import SILENCE
from tests.unit.launcher.launched import Launcher, launcher, outside

PNG = b"\x89PNG\r\n\x1a\n"
ROUNDS = 20


async def test_what_is_answered_is_in_force(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        power = await _running(it, machine_spec)
        for _ in range(ROUNDS):
            await power.pause()
            with pytest.raises(AlreadyPaused):
                await power.pause()
            with pytest.raises(AlreadyPaused):
                await power.reboot()
            await power.resume()
            with pytest.raises(NotPaused):
                await power.resume()
        await power.pause()
        paused = await it.until_state(pb.DOMAIN_STATE_PAUSED)
        assert paused.reason == pb.DOMAIN_REASON_PAUSED_BY_USER
        await power.resume()
        await it.until_state(pb.DOMAIN_STATE_RUNNING)


async def test_what_somebody_else_has_paused_goes_on(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        power = await _running(it, machine_spec)
        outside(machine_spec.name, "suspend")
        await power.resume()
        assert await _guest(it, machine_spec) == Active()


async def test_a_restarted_launcher_leaves_a_guest_paused(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await (await _running(it, machine_spec)).pause()
    async with launcher(settings) as it:
        await it.until_state(pb.DOMAIN_STATE_PAUSED)
        assert await _guest(it, machine_spec) == Active(Paused.BY_USER)
        await it.machine.power.resume()
        await it.until_state(pb.DOMAIN_STATE_RUNNING)


async def test_a_picture(settings: Settings, machine_spec: pb.DomainSpec) -> None:
    async with launcher(settings) as it:
        power = await _running(it, machine_spec)
        picture = b"".join([piece async for piece in power.screenshot()])
        assert picture.startswith(PNG)
        async for _ in power.screenshot():
            break  # one that nobody wants to the end
        await power.pause()


BY_AGENT, BY_BUTTON = libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT, libvirt.VIR_DOMAIN_REBOOT_DEFAULT


@pytest.mark.parametrize(
    ("without_acpi", "connected", "failure", "expected"),
    [
        (False, False, None, [BY_BUTTON]),
        (False, True, None, [BY_AGENT]),
        (False, True, SILENCE, [BY_AGENT, BY_BUTTON]),
        (True, True, None, [BY_AGENT]),
        (True, False, None, [BY_AGENT]),
    ],
)
async def test_by_whom_a_guest_is_asked_to_reboot(
    settings: Settings,
    machine_spec: pb.DomainSpec,
    monkeypatch: pytest.MonkeyPatch,
    without_acpi: bool,
    connected: bool,
    failure: Exception | None,
    expected: list[int],
) -> None:
    asked = _reboots(monkeypatch, failure)
    machine_spec.features.without_acpi = without_acpi
    async with launcher(settings) as it:
        power = await _running(it, machine_spec)
        it.machine.agent.known = Agent(connected=connected)
        await power.reboot()
        assert asked == expected


async def test_a_guest_without_acpi_whose_agent_does_not_answer(
    settings: Settings, machine_spec: pb.DomainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _reboots(monkeypatch, SILENCE)
    machine_spec.features.without_acpi = True
    async with launcher(settings) as it:
        power = await _running(it, machine_spec)
        with pytest.raises(AgentTimedOut):
            await power.reboot()
        assert asked == [BY_AGENT]


def _reboots(monkeypatch: pytest.MonkeyPatch, failure: Exception | None) -> list[int]:
    """How guests are asked from now on; the agents fail in that way."""
    asked: list[int] = []

    def reboot(_domain: libvirt.virDomain, flags: int) -> None:
        asked.append(flags)
        if flags == BY_AGENT and failure is not None:
            raise failure

    monkeypatch.setattr(libvirt.virDomain, "reboot", reboot)
    return asked


@pytest.mark.parametrize("verb", [Power.pause, Power.resume, Power.reset, Power.reboot])
async def test_without_a_guest_nothing_can_be_asked(
    verb: Callable[[Power], Awaitable[None]], settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await _refused(it, verb, NotRunning)
        power = await _running(it, machine_spec)
        await power.pause()  # so that the end takes a moment
        await it.machine.shutdown(30)
        await _refused(it, verb, NotRunning)
        await it.until_state(pb.DOMAIN_STATE_ENDED)
        await _refused(it, verb, NotRunning)


async def _running(it: Launcher, spec: pb.DomainSpec) -> Power:
    await it.machine.apply(spec)
    await it.until_state(pb.DOMAIN_STATE_RUNNING)
    return it.machine.power


async def _guest(it: Launcher, spec: pb.DomainSpec) -> object:
    return await it.machine.libvirt.guest(f"{spec.namespace}_{spec.name}")


async def _refused(
    it: Launcher, verb: Callable[[Power], Awaitable[None]], error: type[Terminal]
) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(error):
            await verb(it.machine.power)
