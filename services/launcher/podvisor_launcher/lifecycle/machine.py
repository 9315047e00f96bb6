"""The one machine of this pod: observes, asks plan() what is next, and does it, one step at a time.

Invariants: what must survive this process is recorded before the step it announces; requests and events only take note and
wake the loop, which alone acts; every step may be repeated, since after a restart of the launcher or of libvirt it will be.
A specification is never logged: it holds confidential data.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import structlog
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import domain_name
from podvisor_launcher.lifecycle import plan as planning
from podvisor_launcher.lifecycle.acceptance import Applied, MachineEnded, OtherMachine, check
from podvisor_launcher.lifecycle.clock import boottime_ms
from podvisor_launcher.lifecycle.device_changes import DeviceChanges
from podvisor_launcher.lifecycle.disk import MachineDisk
from podvisor_launcher.lifecycle.files import MachineFiles
from podvisor_launcher.lifecycle.growth import Growth
from podvisor_launcher.lifecycle.guest_agent import GuestAgent
from podvisor_launcher.lifecycle.inspection import Inspection
from podvisor_launcher.lifecycle.io_errors import look_for_trouble
from podvisor_launcher.lifecycle.power import Power
from podvisor_launcher.lifecycle.preparation import Preparation
from podvisor_launcher.lifecycle.record import EndReason, QemuEnd, Start, Stop
from podvisor_launcher.lifecycle.reports import Facts, Reports
from podvisor_launcher.lifecycle.resumes import Resumes
from podvisor_launcher.lifecycle.situation import DiskTrouble, Situation, Status
from podvisor_launcher.lifecycle.spec_changes import adopt_live_fields, restart_required
from podvisor_launcher.lifecycle.start import start_guest
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.bulkheads import Bulkheads
from podvisor_launcher.virt.connection import LibvirtConnection
from podvisor_launcher.virt.errors import (
    DomainMissing,
    DomainRejected,
    DomainStartFailed,
    LibvirtFailed,
    LibvirtUnreachable,
)
from podvisor_launcher.virt.guest import Absent, Active, Guest, Inactive, Paused
from podvisor_launcher.virt.power import press_power_button

_T = TypeVar("_T")
_log = structlog.stdlib.get_logger(__name__)

_STEP_RETRY_MS = 500  # after libvirt failed in the middle of a step; its next event ends the pause
_DEFAULT_GRACE_PERIOD_S = 30
_CANCEL_TIMEOUT_S = 2.0


class Machine:
    """`on_spec` is told the specification in force, at the start of run() and whenever it changes."""

    def __init__(
        self, settings: Settings, reports: Reports, on_spec: Callable[[pb.DomainSpec], None]
    ) -> None:
        self._settings = settings
        self._files = MachineFiles(settings)
        self._reports = reports
        self._on_spec = on_spec
        self._wake = asyncio.Event()
        self.agent = GuestAgent(lambda: self._spec and domain_name(self._spec), self._wake.set)
        self.libvirt = LibvirtConnection(
            settings.libvirt_uri,
            self._wake.set,
            self._devices_changed,
            self.agent.is_due_again,
            lambda crash: self._change(crash=crash),
        )
        self._record = self._files.load_record()
        self._dirty = False  # the record in memory is newer than the one on disk
        self._disk = MachineDisk(self._files, settings.disks, bulkheads := Bulkheads())
        self._spec = self._files.load_spec()
        self._guest: Guest | None = None
        self._last_active: Active | None = None
        self._gone_since_ms: int | None = None
        self._inspection = Inspection(self.libvirt)
        self._starting = False
        self._preparation = Preparation(settings, self._disk, bulkheads)
        self._unreachable_since_ms: int | None = None
        self._button_pressed_ms: int | None = None
        self._resumes = Resumes()
        self._trouble: DiskTrouble | None = None
        self._growth = Growth(self.libvirt, bulkheads, self._wake.set)
        self._devices = DeviceChanges(self.libvirt, self._wake.set)
        self.power = Power(
            self.libvirt, self.agent, lambda: self._spec if self._record.is_to_run else None
        )

    # Requests: take note, make it durable where there is room, wake the loop. Whoever asked asks a restarted launcher again.

    async def apply(self, spec: pb.DomainSpec) -> Applied:
        """Make `spec` the machine's specification; an older generation changes nothing.

        Raises UnbuildableSpec, OtherMachine and MachineEnded.
        """
        check(spec)
        current = self._spec
        if current is not None and current.uid != spec.uid:
            raise OtherMachine(f"this pod belongs to the machine with uid {current.uid}")
        if self._record.end is not None:
            raise MachineEnded("the guest has ended")
        if current is not None and spec.generation < current.generation:
            return Applied(current.generation)
        if current is not None and self._is_fixed():
            applied = Applied(spec.generation, tuple(restart_required(current, spec)))
            self._spec = adopt_live_fields(current, spec)
            if not applied.restart_required:
                self._change(generation=spec.generation)
        else:
            applied = Applied(spec.generation)
            if current is None or current != spec:
                self._spec = spec
                self._preparation.begin_anew()
        self._step_done("SpecReceived")
        assert self._spec is not None
        self._on_spec(self._spec)
        self._wake.set()
        await self._save_if_possible()
        return applied

    async def shutdown(self, grace_period_s: int) -> None:
        """Let the guest shut down, and destroy it after `grace_period_s`. A later call can only bring that forward."""
        self._stop(Stop(boottime_ms() + grace_period_s * 1000, by_container=False))
        await self._save_if_possible()

    async def destroy(self) -> None:
        """End the guest at once."""
        if self._record.destroy is None:
            self._change(destroy=EndReason.DESTROYED)
        await self._save_if_possible()

    def container_stopping(self) -> None:
        """The container was told to end: the supervisor's order says until when the guest may take."""
        grace_s = self._spec.grace_period_s if self._spec else _DEFAULT_GRACE_PERIOD_S
        order = self._files.load_stop_order()
        self._stop(order or Stop(boottime_ms() + grace_s * 1000, by_container=True))

    def look_again(self) -> None:
        """Something may have happened to the guest."""
        self._wake.set()

    def take_volume(self, disk: str, capacity_bytes: int, descriptor: int) -> str:
        """A volume was handed over, and `descriptor` with it. Why not, as a sentence, if it is not taken."""
        if self._spec is None or not self._record.runs:
            os.close(descriptor)
            return "The guest does not run."
        return self._devices.disks.take(
            self._spec, self._inspection.hardware, disk, capacity_bytes, descriptor
        )

    def leased(self, interface: str, address: str) -> None:
        """The guest took the `address` it was offered on `interface`."""
        if (lease := (interface, address)) not in self._record.leased:
            self._change(leased=(*self._record.leased, lease))

    async def domain_xml(self) -> str:
        """libvirt's description. Raises DomainMissing, LibvirtUnreachable, LibvirtFailed."""
        if self._spec is None:
            raise DomainMissing("no specification was applied yet")
        return await self.libvirt.domain_xml(domain_name(self._spec))

    # The loop.

    async def run(self) -> int:
        """Drive the machine to its end and return the launcher's exit code."""
        self._step_done("LauncherReady")
        if (order := self._files.load_stop_order()) is not None:
            self._stop(order)
        if self._spec is not None:
            self._on_spec(self._spec)
        while True:
            self._wake.clear()
            step = planning.plan(await self._observe())
            facts = self._facts(step.status) if step.status is not None else None
            if self._dirty:
                await self._save_if_possible()
            if facts is not None:
                await self._reports.publish(facts)
            if isinstance(step.action, planning.Leave):
                return step.action.exit_code
            if step.action is None:
                await self._wait_until(step.wake_ms)
                continue
            try:
                await self._carry_out(step.action)
            except (LibvirtUnreachable, LibvirtFailed, DomainMissing) as error:
                action = type(step.action).__name__
                _log.warning("step failed, trying again", step=action, error=str(error))
                await self._wait_until(boottime_ms() + _STEP_RETRY_MS)

    def _facts(self, status: Status) -> Facts:
        seen, hardware = self._inspection, self._inspection.hardware
        attachments = self._devices.attachments(self._spec, hardware)
        settled, agent = seen.is_settled and isinstance(self._guest, Active), self.agent.told
        return Facts(status, self._record, self._spec, hardware, settled, attachments, *agent)

    async def _observe(self) -> Situation:
        if self._spec is None:
            self._guest = Absent()  # nobody but this launcher defines a domain
        else:
            await self._look(domain_name(self._spec))
        seen, hardware = self._inspection, self._inspection.hardware
        device_change = self._devices.pending(self._spec, hardware)
        return Situation(
            now_ms=boottime_ms(),
            record=self._record,
            guest=self._guest,
            has_spec=self._spec is not None,
            disks_ready=self._preparation.disks is not None,
            blocked=self._preparation.blocked,
            start_failure=self._preparation.failure,
            unreachable_since_ms=self._unreachable_since_ms,
            button_pressed_ms=self._button_pressed_ms,
            last_active=self._last_active,
            qemu_end=await self._qemu_end(),
            gone_since_ms=self._gone_since_ms,
            trouble=self._trouble,
            resume_ms=self._resumes.next_ms,
            settled_ms=self._resumes.settled_ms,
            growth=self._growth.pending(self._spec, hardware),
            device_change=device_change if seen.is_settled else None,
        )

    async def _qemu_end(self) -> QemuEnd | None:
        """The supervisor's note, once the guest that was started is there no more."""
        if self._record.start is not Start.DONE or not isinstance(self._guest, Absent | Inactive):
            self._gone_since_ms = None
            return None
        self._gone_since_ms = self._gone_since_ms or boottime_ms()
        return await self._disk.qemu_end()

    async def _look(self, name: str) -> None:
        try:
            self._guest = await self.libvirt.guest(name)
            if isinstance(self._guest, Active):
                self._last_active = self._guest
                await self._inspection.look(name)
                self._trouble, seen = None, self._inspection.hardware
                if self._guest.paused is Paused.IO_ERROR:
                    self._trouble = await look_for_trouble(self.libvirt, self._disk, name, seen)
        except (LibvirtUnreachable, LibvirtFailed, DomainMissing) as error:
            self._guest = None
            if self._unreachable_since_ms is None:
                self._unreachable_since_ms = boottime_ms()
                _log.info("libvirt does not say how the guest is", error=str(error))
            return
        self._unreachable_since_ms = None

    async def _carry_out(self, action: planning.Action) -> None:
        match action:
            case planning.PrepareDisks():
                await self._prepare_disks()
            case planning.StartGuest():
                await self._start()
            case planning.NoteStarted():
                await self._note_started()
            case planning.ResumeGuest():
                self._button_pressed_ms = boottime_ms()
                await self.libvirt.resume(self._name)
                await press_power_button(self.libvirt, self._name)
            case planning.LetGoOn():
                self._resumes.count(boottime_ms())
                _log.info("letting the guest go on", times_in_a_row=self._resumes.in_a_row)
                await self.libvirt.resume(self._name)
            case planning.GrowDisk(disk=disk):
                await self._grow(disk)
            case planning.ChangeDevice(change=change):
                self._devices_changed()
                await self._devices.carry_out(self._spec, change, boottime_ms())
            case planning.PressPowerButton():
                self._button_pressed_ms = boottime_ms()
                _log.info("asking the guest to shut down")
                await press_power_button(self.libvirt, self._name)
            case planning.DestroyGuest(reason=reason):
                self._change(destroy=reason)
                await self._save_if_possible()
                _log.info("destroying the guest", reason=reason.value)
                await self.libvirt.destroy(self._name)
            case planning.RecordEnd(end=end):
                self._change(end=end)
                await self._save_if_possible()
                _log.info("the guest has ended", reason=end.reason.value, message=end.message)
            case planning.Leave():
                raise AssertionError("run() returns instead")

    async def _prepare_disks(self) -> None:
        spec = self._spec
        assert spec is not None
        work = self._preparation.make_disks(spec, boottime_ms())
        disks = await self._unless_stopped(asyncio.create_task(work, name="disks"))
        if disks is not None and self._spec is spec:  # else a newer one came meanwhile
            self._preparation.disks_made(disks)
            self._growth.prepared(spec)
            self._step_done("DisksReady")

    async def _unless_stopped(self, work: asyncio.Task[_T]) -> _T | None:
        """The outcome of `work`; None where the machine shall end before it is there."""
        work.add_done_callback(lambda _: self._wake.set())
        try:
            while not (work.done() or self._record.stop or self._record.destroy):
                self._wake.clear()
                await self._wait_until(None)
            return work.result() if work.done() else None
        finally:
            work.cancel()
            await asyncio.wait({work}, timeout=_CANCEL_TIMEOUT_S)

    async def _grow(self, name: str) -> None:
        assert self._spec is not None
        now_ms = boottime_ms()
        if await self._growth.grow(self._name, self._spec, self._inspection.hardware, name, now_ms):
            self._inspection.is_due_again()

    async def _start(self) -> None:
        assert self._spec is not None
        disks = self._preparation.disks
        assert disks is not None
        self._change(start=Start.ATTEMPTED, generation=self._spec.generation)
        self._starting = True
        try:
            await self._save()
            await self._disk.forget_qemu_end()
            await start_guest(self.libvirt, self._spec, disks, self._settings)
        except OSError as error:
            why = DomainStartFailed(f"The start cannot be recorded: {error.strerror}.")
            await self._preparation.start_failed(why, boottime_ms())
        except (DomainRejected, DomainStartFailed, LibvirtFailed) as error:
            await self._preparation.start_failed(error, boottime_ms())
        else:
            await self._note_started()
        finally:
            self._starting = False

    async def _note_started(self) -> None:
        self._preparation.failure = None
        self._change(start=Start.DONE)
        self._step_done("DomainStarted")
        _log.info("the guest runs", domain=self._name)
        await self._save_if_possible()

    # State.

    @property
    def _name(self) -> str:
        assert self._spec is not None
        return domain_name(self._spec)

    def _devices_changed(self) -> None:
        self._inspection.is_due_again()
        self.agent.is_due_again()
        self._wake.set()

    def _is_fixed(self) -> bool:
        """The guest runs, or may by now: its hardware can no longer be chosen."""
        if self._record.start is Start.ATTEMPTED and not self._starting:
            return self._guest is None or isinstance(self._guest, Active)
        return self._record.start is not Start.NEVER

    def _stop(self, order: Stop) -> None:
        order = order.with_earlier(self._record.stop)
        if order != self._record.stop:
            self._change(stop=order)

    def _step_done(self, name: str) -> None:
        self._record = self._record.with_step(name, time.time_ns() // 1_000_000)

    def _change(self, **fields: object) -> None:
        self._record = replace(self._record, **fields)  # type: ignore[arg-type]
        self._dirty = True
        self._wake.set()

    async def _save(self) -> None:
        """Make record and specification durable. Raises OSError."""
        self._dirty = False  # what changes from here on is not in it
        try:
            await self._disk.save(self._record, self._spec)
        except OSError:
            self._dirty = True
            raise

    async def _save_if_possible(self) -> None:
        self._dirty = False
        if not await self._disk.save_if_possible(self._record, self._spec):
            self._dirty = True

    async def _wait_until(self, wake_ms: int | None) -> None:
        timeout_s = None if wake_ms is None else max(wake_ms - boottime_ms(), 0) / 1000
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
