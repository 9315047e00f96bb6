"""The machine from specification to end, with libvirt's test driver, real files and the real qemu-img."""

import asyncio
from pathlib import Path

import libvirt
import pytest
import structlog
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import UnbuildableSpec
from podvisor_launcher.lifecycle.acceptance import MachineEnded, OtherMachine
from podvisor_launcher.lifecycle.clock import boottime_ms
from podvisor_launcher.lifecycle.machine import Machine
from podvisor_launcher.lifecycle.record import Start, load_record
from podvisor_launcher.lifecycle.reports import Reports
from podvisor_launcher.settings import Settings

from tests.unit.launcher.conftest import SECRET
from tests.unit.launcher.launched import launcher, outside, start_of
from tests.unit.launcher.specs import cloud_init_disk, interface, spec


async def test_from_specification_to_shutdown(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        first = await it.until_state(pb.DOMAIN_STATE_NONE)
        assert (first.epoch, first.uid) == (7, "")
        applied = await it.machine.apply(machine_spec)
        assert (applied.generation, applied.restart_required) == (1, ())
        running = await it.until_state(pb.DOMAIN_STATE_RUNNING)
        assert (running.uid, running.applied_generation) == (machine_spec.uid, 1)
        assert [each.name for each in running.interfaces] == ["default"]
        names = [step.name for step in running.timeline]
        assert names == ["LauncherReady", "SpecReceived", "DisksReady", "DomainStarted"]
        moments = [step.at.ToNanoseconds() for step in running.timeline]
        assert moments == sorted(moments)
        assert "ua-root" in await it.machine.domain_xml()
        await it.machine.shutdown(30)
        ended = await it.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason == pb.DOMAIN_REASON_SHUTDOWN
        assert ended.sequence > running.sequence > first.sequence
        assert not ended.shutting_down
        assert await it.exit_code() == 0
        with pytest.raises(MachineEnded):
            await it.machine.apply(machine_spec)


async def test_a_restarted_launcher_finds_its_guest(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as first:
        await first.machine.apply(machine_spec)
        before = await first.until_state(pb.DOMAIN_STATE_RUNNING)
    async with launcher(settings) as second:
        after = await second.until_state(pb.DOMAIN_STATE_RUNNING)
        assert list(after.timeline) == list(before.timeline)
        assert after.applied_generation == 1
        assert [each.name for each in second.specs] == [machine_spec.name]
        assert (await second.machine.apply(machine_spec)).restart_required == ()
        outside(machine_spec.name, "destroy")
        ended = await second.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason == pb.DOMAIN_REASON_DESTROYED
        assert await second.exit_code() == 0


async def test_a_restarted_launcher_does_not_guess_that_a_paused_guest_runs(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as first:
        await first.machine.apply(machine_spec)
        await first.until_state(pb.DOMAIN_STATE_RUNNING)
        outside(machine_spec.name, "suspend")
        await first.until_state(pb.DOMAIN_STATE_PAUSED)
    async with launcher(settings) as second:
        first_word = await second.until(lambda report: True)
    assert first_word.state == pb.DOMAIN_STATE_PAUSED


async def test_an_ended_guest_stays_ended(settings: Settings, machine_spec: pb.DomainSpec) -> None:
    async with launcher(settings) as first:
        await first.machine.apply(machine_spec)
        await first.until_state(pb.DOMAIN_STATE_RUNNING)
    outside(machine_spec.name, "shutdown")  # while no launcher is there
    async with launcher(settings) as second:
        assert (await second.until_state(pb.DOMAIN_STATE_ENDED)).reason == pb.DOMAIN_REASON_SHUTDOWN
        assert await second.exit_code() == 0
    async with launcher(settings) as third:
        assert (await third.until_state(pb.DOMAIN_STATE_ENDED)).reason == pb.DOMAIN_REASON_SHUTDOWN


async def test_a_crash(settings: Settings, machine_spec: pb.DomainSpec) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        outside(machine_spec.name, "destroy")
        outside(machine_spec.name, "undefine")
        ended = await it.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason in (pb.DOMAIN_REASON_CRASHED, pb.DOMAIN_REASON_DESTROYED)


async def test_a_paused_guest_is_reported_and_can_be_shut_down(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        outside(machine_spec.name, "suspend")
        paused = await it.until_state(pb.DOMAIN_STATE_PAUSED)
        assert paused.reason == pb.DOMAIN_REASON_PAUSED_BY_USER
        await it.machine.shutdown(30)
        assert (await it.until_state(pb.DOMAIN_STATE_ENDED)).reason == pb.DOMAIN_REASON_SHUTDOWN


async def test_destroy(settings: Settings, machine_spec: pb.DomainSpec) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        await it.machine.destroy()
        await it.machine.destroy()
        assert (await it.until_state(pb.DOMAIN_STATE_ENDED)).reason == pb.DOMAIN_REASON_DESTROYED
        assert await it.exit_code() == 0


async def test_no_grace_at_all(settings: Settings, machine_spec: pb.DomainSpec) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        await it.machine.shutdown(0)
        ended = await it.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason == pb.DOMAIN_REASON_GRACE_PERIOD_EXPIRED
        assert await it.exit_code() == 10


async def test_told_to_end_before_any_guest(settings: Settings) -> None:
    async with launcher(settings) as it:
        await it.machine.shutdown(30)
        assert (
            await it.until_state(pb.DOMAIN_STATE_ENDED)
        ).reason == pb.DOMAIN_REASON_NEVER_STARTED
        assert await it.exit_code() == 0


async def test_the_containers_order_is_found_by_the_next_launcher(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as first:
        await first.machine.apply(machine_spec)
        await first.until_state(pb.DOMAIN_STATE_RUNNING)
    settings.stop_order.write_text(f'{{"deadline_boottime_ms": {boottime_ms() + 30_000}}}')
    async with launcher(settings) as second:
        ended = await second.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason == pb.DOMAIN_REASON_SHUTDOWN
        assert ended.container_stopping


async def test_a_later_request_only_brings_the_end_forward(settings: Settings) -> None:
    machine = Machine(settings, Reports(1), lambda _spec: None)
    await machine.shutdown(30)
    await machine.shutdown(300)
    first = load_record(settings.record).stop
    machine.container_stopping()
    await machine.shutdown(1)
    second = load_record(settings.record).stop
    assert first is not None
    assert second is not None
    assert first.deadline_ms <= boottime_ms() + 30_000
    assert second.deadline_ms <= boottime_ms() + 1_000
    assert second.by_container


async def test_a_missing_secret_heals(settings: Settings, name: str, tmp_path: Path) -> None:
    directory = tmp_path / "secret"
    machine_spec = spec(name=name, disks=[cloud_init_disk(user_data_secret_dir=str(directory))])
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        waiting = await it.until_state(pb.DOMAIN_STATE_WAITING)
        assert waiting.reason == pb.DOMAIN_REASON_MISSING_SECRET
        assert "cloudinit" in waiting.message
        directory.mkdir()
        (directory / "userdata").write_bytes(SECRET)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)


async def test_what_the_disks_became_is_told_with_the_first_word(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"block.0.name": "vda", "block.0.capacity": 372_736}
    monkeypatch.setattr(libvirt.virConnect, "domainListGetStats", lambda *_: [(None, sizes)])
    seed = cloud_init_disk(user_data=SECRET)
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name, disks=[seed]))
        running = await it.until_state(pb.DOMAIN_STATE_RUNNING)
    (disk,) = running.disks
    assert (disk.name, disk.target) == ("cloudinit", "vda")
    assert disk.capacity_bytes == 372_736


async def test_a_machine_whose_sizes_nobody_tells_goes_on(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU waits for a file system, and libvirt for QEMU."""

    def wait_for_qemu(*_: object) -> None:
        raise libvirt.libvirtError("timed out")

    monkeypatch.setattr(libvirt.virConnect, "domainListGetStats", wait_for_qemu)
    async with launcher(settings) as it:
        await it.machine.apply(spec(name=name, disks=[cloud_init_disk(user_data=SECRET)]))
        running = await it.until_state(pb.DOMAIN_STATE_RUNNING)
        assert [disk.capacity_bytes for disk in running.disks] == [0]
        await it.machine.destroy()
        await it.until_state(pb.DOMAIN_STATE_ENDED)


async def test_a_better_specification_replaces_one_that_waits(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    broken = pb.DomainSpec()
    broken.CopyFrom(machine_spec)
    broken.disks[0].container_disk.image_root = "/nowhere"
    async with launcher(settings) as it:
        await it.machine.apply(broken)
        assert (
            await it.until_state(pb.DOMAIN_STATE_WAITING)
        ).reason == pb.DOMAIN_REASON_INVALID_DISK
        assert start_of(settings) is Start.NEVER
        machine_spec.generation = 2
        await it.machine.apply(machine_spec)
        assert (await it.until_state(pb.DOMAIN_STATE_RUNNING)).applied_generation == 2
        assert start_of(settings) is Start.DONE


async def test_what_libvirt_refuses_ends(settings: Settings, name: str) -> None:
    bad = spec(name=name, interfaces=[interface(mac="not a mac")])
    async with launcher(settings) as it:
        await it.machine.apply(bad)
        ended = await it.until_state(pb.DOMAIN_STATE_ENDED)
        assert ended.reason == pb.DOMAIN_REASON_REJECTED
        assert "not a mac" in ended.message  # libvirt's own words
        assert await it.exit_code() == 10


async def test_changes_to_a_running_machine(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        newer = pb.DomainSpec()
        newer.CopyFrom(machine_spec)
        newer.generation, newer.grace_period_s = 2, 77
        newer.interfaces[0].dhcp.dns_servers[0] = "10.96.0.99"
        assert (await it.machine.apply(newer)).restart_required == ()
        assert it.specs[-1].interfaces[0].dhcp.dns_servers == ["10.96.0.99"]
        await it.until(lambda report: report.applied_generation == 2)
        newer.generation, newer.memory.guest_bytes = 3, 1 << 30
        newer.disks[1].cloud_init.user_data = b"other"
        newer.interfaces.add(name="second", mac="02:00:00:00:00:09", tap="tap1")
        applied = await it.machine.apply(newer)
        assert applied.generation == 3
        assert applied.restart_required == ("memory", "disks[cloudinit]", "interfaces[second]")
        assert (
            await it.machine.apply(machine_spec)
        ).generation == 3  # an older one changes nothing
        assert (await it.until(lambda _report: True)).applied_generation == 2


async def test_wrong_specifications_are_refused(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        other = pb.DomainSpec()
        other.CopyFrom(machine_spec)
        other.uid = "11111111-2222-3333-4444-555555555555"
        with pytest.raises(OtherMachine):
            await it.machine.apply(other)
        machine_spec.interfaces[0].dhcp.address = "10.0.2.300"
        with pytest.raises(UnbuildableSpec, match=r"10\.0\.2\.300"):
            await it.machine.apply(machine_spec)


async def test_a_granted_lease_is_reported_and_remembered(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as it:
        await it.machine.apply(machine_spec)
        await it.until_state(pb.DOMAIN_STATE_RUNNING)
        it.machine.leased("default", "10.0.2.2")
        report = await it.until(lambda report: bool(report.interfaces[0].addresses))
        assert list(report.interfaces[0].addresses) == ["10.0.2.2"]
    async with launcher(settings) as second:
        report = await second.until_state(pb.DOMAIN_STATE_RUNNING)
        assert list(report.interfaces[0].addresses) == ["10.0.2.2"]


async def test_a_client_that_hangs_up_leaves_a_specification_that_lasts(
    settings: Settings, machine_spec: pb.DomainSpec
) -> None:
    async with launcher(settings) as first:
        await first.until_state(pb.DOMAIN_STATE_NONE)
        newer = pb.DomainSpec()
        newer.CopyFrom(machine_spec)
        newer.generation = 2
        older_call = asyncio.create_task(first.machine.apply(machine_spec), name="older")
        newer_call = asyncio.create_task(first.machine.apply(newer), name="newer")
        await asyncio.sleep(0)  # both have come as far as the disk
        newer_call.cancel()
        await older_call
        await first.until_state(pb.DOMAIN_STATE_RUNNING)
    assert pb.DomainSpec.FromString(settings.spec.read_bytes()).generation == 2


async def test_confidential_data_is_in_no_log(
    settings: Settings, machine_spec: pb.DomainSpec, capfd: pytest.CaptureFixture[str]
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with launcher(settings) as it:
            await it.machine.apply(machine_spec)
            report = await it.until_state(pb.DOMAIN_STATE_RUNNING)
            xml = await it.machine.domain_xml()
            await it.machine.destroy()
            await it.exit_code()
    captured = capfd.readouterr()
    for text in (
        str(logs),
        captured.out,
        captured.err,
        str(report),
        xml,
        settings.record.read_text(),
    ):
        assert "hunter2" not in text
    assert settings.spec.stat().st_mode & 0o777 == 0o600
