"""The machine when nothing can be written any more: it waits, starts nothing that it cannot record, and can be ended."""

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle import preparation
from podvisor_launcher.lifecycle.plan import MAX_START_ATTEMPTS
from podvisor_launcher.lifecycle.record import Start
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage import room

from tests.unit.launcher.launched import launcher, outside, start_of


async def test_a_full_disk_does_not_hold_up_the_end(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        settings.record.unlink()
        settings.record.mkdir()  # nothing can be saved there any more
        outside(machine_spec.name, "shutdown")
        assert (await it.until_state(pb.DOMAIN_STATE_ENDED)).reason == pb.DOMAIN_REASON_SHUTDOWN
        assert await it.exit_code() == 0


async def test_a_start_that_cannot_be_recorded_is_not_made(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        settings.record.mkdir()
        await it.machine.apply(machine_spec)
        waiting = await it.until_state(pb.DOMAIN_STATE_WAITING)
        assert waiting.reason == pb.DOMAIN_REASON_START_FAILED
        assert "recorded" in waiting.message


async def test_a_full_disk_is_waited_for(
    settings: Settings, machine_spec: pb.DomainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes, it counts as no attempt; nothing is started that cannot be recorded."""
    monkeypatch.setattr(room, "_ENOUGH_BYTES", 1 << 62)
    monkeypatch.setattr(preparation, "_DISK_RETRY_MAX_MS", 1)
    async with launcher(settings) as it:
        settings.record.mkdir()  # nothing can be saved
        await it.machine.apply(machine_spec)
        waiting = await it.until_state(pb.DOMAIN_STATE_WAITING)
        assert waiting.reason == pb.DOMAIN_REASON_NO_SPACE
        for _ in range(2 * MAX_START_ATTEMPTS):
            waiting = await it.until_state(pb.DOMAIN_STATE_WAITING)
            assert waiting.reason == pb.DOMAIN_REASON_NO_SPACE
        settings.record.rmdir()
        monkeypatch.undo()
        running = await it.until_state(pb.DOMAIN_STATE_RUNNING)
        assert running.applied_generation == 1
        assert start_of(settings) is Start.DONE


async def test_a_full_disk_keeps_no_guest_from_its_end(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        settings.record.unlink()
        settings.record.mkdir()
        await it.machine.destroy()
        ended = await it.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason == pb.DOMAIN_REASON_DESTROYED
