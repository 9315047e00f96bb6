"""The machine's state as its watchers get it: whole, numbered, and the newest one only.

Level-triggered: a slow watcher misses intermediate states and never the last one. There is one watcher at a time; a new one
replaces the older, since a handler that dials again has lost its earlier stream.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.lifecycle.device_changes import NO_ATTACHMENTS, Attachments
from podvisor_launcher.lifecycle.guest_agent import NO_WORK, Agent, AgentWork
from podvisor_launcher.lifecycle.hardware import UNSEEN, Hardware, Interface
from podvisor_launcher.lifecycle.hotplug_plan import Attachment
from podvisor_launcher.lifecycle.record import EndReason, Record, Start
from podvisor_launcher.lifecycle.situation import State, Status, Why

_STATES = {
    State.NONE: pb.DOMAIN_STATE_NONE,
    State.PREPARING: pb.DOMAIN_STATE_PREPARING,
    State.WAITING: pb.DOMAIN_STATE_WAITING,
    State.RUNNING: pb.DOMAIN_STATE_RUNNING,
    State.PAUSED: pb.DOMAIN_STATE_PAUSED,
    State.ENDED: pb.DOMAIN_STATE_ENDED,
}
_REASONS: "Mapping[Why | EndReason, pb.DomainReason.ValueType]" = {
    Why.NOTHING: pb.DOMAIN_REASON_UNSPECIFIED,
    Why.INVALID_DISK: pb.DOMAIN_REASON_INVALID_DISK,
    Why.MISSING_SECRET: pb.DOMAIN_REASON_MISSING_SECRET,
    Why.PAUSED_BY_USER: pb.DOMAIN_REASON_PAUSED_BY_USER,
    Why.IO_ERROR: pb.DOMAIN_REASON_IO_ERROR,
    Why.LIBVIRT_UNREACHABLE: pb.DOMAIN_REASON_LIBVIRT_UNREACHABLE,
    Why.START_FAILED: pb.DOMAIN_REASON_START_FAILED,
    Why.NO_SPACE: pb.DOMAIN_REASON_NO_SPACE,
    EndReason.SHUTDOWN: pb.DOMAIN_REASON_SHUTDOWN,
    EndReason.GRACE_PERIOD_EXPIRED: pb.DOMAIN_REASON_GRACE_PERIOD_EXPIRED,
    EndReason.DESTROYED: pb.DOMAIN_REASON_DESTROYED,
    EndReason.CRASHED: pb.DOMAIN_REASON_CRASHED,
    EndReason.REJECTED: pb.DOMAIN_REASON_REJECTED,
    EndReason.START_FAILED: pb.DOMAIN_REASON_START_FAILED,
    EndReason.NEVER_STARTED: pb.DOMAIN_REASON_NEVER_STARTED,
}


_ATTACHMENTS = {
    Attachment.AWAITED: pb.DISK_ATTACHMENT_AWAITED,
    Attachment.ATTACHED: pb.DISK_ATTACHMENT_ATTACHED,
    Attachment.DETACHING: pb.DISK_ATTACHMENT_DETACHING,
}
_INTERFACE_ATTACHMENTS = {
    Attachment.AWAITED: pb.INTERFACE_ATTACHMENT_AWAITED,
    Attachment.ATTACHED: pb.INTERFACE_ATTACHMENT_ATTACHED,
    Attachment.DETACHING: pb.INTERFACE_ATTACHMENT_DETACHING,
}


class StreamReplaced(Exception):
    """Another watcher has taken the place of this one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is made of."""

    status: Status
    record: Record
    spec: pb.DomainSpec | None
    hardware: Hardware = UNSEEN
    devices_settled: bool = False  # what `hardware` says of devices is complete
    attachments: Attachments = NO_ATTACHMENTS
    agent: Agent | None = None  # None before anybody has looked for it
    agent_work: AgentWork = NO_WORK


def make_report(facts: Facts) -> pb.DomainReport:
    """The report of `facts`, without what numbers and dates it."""
    record, spec = facts.record, facts.spec
    report = pb.DomainReport(
        applied_generation=record.generation if record.start is Start.DONE else 0,
        accepted_generation=spec.generation if spec else 0,
        devices_settled=facts.devices_settled,
        uid=spec.uid if spec else "",
        state=_STATES[facts.status.state],
        reason=_REASONS[facts.status.reason],
        message=facts.status.message,
        machine_type=facts.hardware.machine_type,
        shutting_down=facts.status.state is not State.ENDED
        and (record.stop is not None or record.destroy is not None),
        container_stopping=record.stop is not None and record.stop.by_container,
    )
    _add_interfaces(report, facts)
    _add_disks(report, facts)
    _add_agent(report, facts.agent)
    report.filesystems_frozen = facts.agent_work.filesystems_frozen
    if facts.agent_work.credentials is not None:
        synchronized, message = facts.agent_work.credentials
        report.access_credentials.synchronized = synchronized
        report.access_credentials.message = message
    for name, at_ms in record.timeline:
        report.timeline.add(name=name).at.FromMilliseconds(at_ms)
    return report


def _add_interfaces(report: pb.DomainReport, facts: Facts) -> None:
    """Those of the specification, and those that the guest has nevertheless."""
    present = {each.name: each for each in facts.hardware.interfaces}
    for wanted in facts.spec.interfaces if facts.spec else ():
        offered = (wanted.dhcp.address, wanted.dhcpv6.address)
        taken = [each for each in offered if (wanted.name, each) in facts.record.leased]
        known = present.pop(wanted.name, None) or _expected(wanted, facts)
        _add_interface(report, known).addresses.extend(taken)
    for leftover in present.values():
        _add_interface(report, leftover)
    said = {each.name: each for each in report.interfaces}
    for each in facts.attachments.interfaces:
        if each.name in said:
            said[each.name].message = each.message
            if each.attachment is not None:
                said[each.name].attachment = _INTERFACE_ATTACHMENTS[each.attachment]


def _expected(wanted: pb.InterfaceSpec, facts: Facts) -> Interface:
    """What is to be said of a device that the guest was not seen to have: it will be as it is asked for, unless it was looked
    for and is missing."""
    is_missing = facts.hardware is not UNSEEN
    link_up = not wanted.link_down and not is_missing
    return Interface(wanted.name, wanted.mac, link_up, max(wanted.queues, 1))


def _add_interface(report: pb.DomainReport, interface: Interface) -> pb.InterfaceReport:
    return report.interfaces.add(
        name=interface.name,
        mac=interface.mac,
        link_up=interface.link_up,
        queues=interface.queues,
    )


def _add_disks(report: pb.DomainReport, facts: Facts) -> None:
    for disk in facts.hardware.disks:
        report.disks.add(name=disk.name, target=disk.target, capacity_bytes=disk.capacity_bytes)
    said = {disk.name: disk for disk in report.disks}
    for each in facts.attachments.disks:
        disk_report = said[each.name] if each.name in said else report.disks.add(name=each.name)
        disk_report.attachment = _ATTACHMENTS[each.attachment]
        disk_report.message = each.message


def _add_agent(report: pb.DomainReport, agent: Agent | None) -> None:
    if agent is None:
        return
    report.guest_agent.connected = agent.connected
    report.guest_agent.answered = agent.answered
    report.guest_agent.version = agent.version
    report.guest_agent.SetInParent()
    if agent.os is not None:
        report.guest_agent.os.CopyFrom(agent.os)
    for each in agent.interfaces:
        report.guest_agent.interfaces.add(name=each.name, mac=each.mac, addresses=each.addresses)


class Reports:
    """The newest report and whoever waits for it."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._current: pb.DomainReport | None = None
        self._changed = asyncio.Condition()
        self._watcher = 0  # number of the newest watcher
        self._closed = False
        self.end_delivered = (
            asyncio.Event()
        )  # a watcher was sent the report that the guest has ended

    @property
    def epoch(self) -> int:
        """The number that tells this launcher process from others."""
        return self._epoch

    async def publish(self, facts: Facts) -> None:
        """Make `facts` the newest report, unless it says the same as the last one."""
        report = make_report(facts)
        last = self._current
        report.epoch = self._epoch
        if last is not None:
            report.sequence, unchanged = last.sequence, _same_state(last, report)
            if unchanged:
                report.since.CopyFrom(last.since)
                if report == last:
                    return
        if not report.HasField("since"):
            report.since.FromMilliseconds(time.time_ns() // 1_000_000)
        report.sequence += 1
        async with self._changed:
            self._current = report
            self._changed.notify_all()

    async def close(self) -> None:
        """End every stream, after the newest report was sent."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def watch(self) -> AsyncIterator[pb.DomainReport]:
        """The newest report at once and again after every change. Raises StreamReplaced when another watcher comes."""
        self._watcher += 1
        number, sent = self._watcher, 0
        async with self._changed:
            self._changed.notify_all()
        while True:
            async with self._changed:
                while not self._closed and self._watcher == number and not self._newer_than(sent):
                    await self._changed.wait()
                current = self._current
            if self._watcher != number:
                raise StreamReplaced
            if current is None or current.sequence <= sent:
                return  # closed, and everything was said
            sent = current.sequence
            yield current
            if current.state == pb.DOMAIN_STATE_ENDED:
                self.end_delivered.set()

    def _newer_than(self, sequence: int) -> bool:
        return self._current is not None and self._current.sequence > sequence


def _same_state(one: pb.DomainReport, other: pb.DomainReport) -> bool:
    return (one.state, one.reason, one.message) == (other.state, other.reason, other.message)
