"""What must outlive the launcher process, and nothing that can be found by looking.

Kept in private/state.json, written durably before the step it announces. A restarted launcher tells by it a guest that was
never started from one that has ended: an ended guest never starts again in this pod.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from podvisor_launcher.storage.files import write_durably
from podvisor_launcher.virt.guest import Crash


class Start(StrEnum):
    """How far the start of the guest got."""

    NEVER = "never"
    ATTEMPTED = "attempted"  # libvirt was or is about to be asked; whether it did is not known
    DONE = "done"  # the guest was seen running


class EndReason(StrEnum):
    """Why the guest has ended for good."""

    SHUTDOWN = "shutdown"
    GRACE_PERIOD_EXPIRED = "grace-period-expired"
    DESTROYED = "destroyed"
    CRASHED = "crashed"
    REJECTED = "rejected"
    START_FAILED = "start-failed"
    NEVER_STARTED = "never-started"


@dataclass(frozen=True, slots=True)
class Stop:
    """The guest shall end. Times are milliseconds of CLOCK_BOOTTIME, which no clock setting moves."""

    deadline_ms: int
    by_container: bool  # the container was told to end, as opposed to a client's request

    def with_earlier(self, known: "Stop | None") -> "Stop":
        """This order given after another one: the deadline only comes nearer, and the container stays told."""
        if known is None:
            return self
        deadline_ms = min(self.deadline_ms, known.deadline_ms)
        return Stop(deadline_ms, self.by_container or known.by_container)


@dataclass(frozen=True, slots=True)
class End:
    """The guest has ended."""

    reason: EndReason
    message: str


@dataclass(frozen=True, slots=True)
class QemuEnd:
    """How the last QEMU ended, from the one process that can know: the supervisor, which reaps it."""

    exit_code: int  # -1 when a signal ended it
    signal: int  # 0 when it ended by itself

    @property
    def is_orderly(self) -> bool:
        """QEMU left as it does after its guest has powered off. It does so by libvirt's SIGTERM, which libvirt sends only then
        and to end a domain, be it by request or because its guest has crashed."""
        return self.exit_code == 0

    def __str__(self) -> str:
        if self.signal:
            return f"QEMU was killed by signal {self.signal}."
        return f"QEMU ended with exit code {self.exit_code}."


@dataclass(frozen=True, slots=True)
class Record:
    """The whole of it."""

    start: Start = Start.NEVER
    stop: Stop | None = None
    destroy: EndReason | None = None  # the guest is being destroyed, for this reason
    end: End | None = None
    generation: int = 0  # of the specification the guest has, once it is started
    timeline: tuple[tuple[str, int], ...] = ()  # (step, milliseconds since the epoch), in order
    leased: tuple[tuple[str, str], ...] = ()  # (interface, address) that the guest took
    crash: Crash | None = None  # what libvirt told of the guest's end when it came

    @property
    def runs(self) -> bool:
        """The guest was started and has not ended."""
        return self.start is Start.DONE and self.end is None

    @property
    def is_to_run(self) -> bool:
        """Nor was it told to end."""
        return self.runs and self.stop is None and self.destroy is None

    def with_step(self, name: str, at_ms: int) -> "Record":
        """The record with one more step of the timeline; the first time a step is done counts."""
        if any(name == known for known, _ in self.timeline):
            return self
        return replace(self, timeline=(*self.timeline, (name, at_ms)))


def load_record(path: Path) -> Record:
    """The record of the launcher's predecessor; an empty one when there was none."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Record()
    return _decode(content)


def save_record(path: Path, record: Record) -> None:
    """Make `record` durable."""
    write_durably(
        path, json.dumps(asdict(record) | {"crash": record.crash and record.crash.value}).encode()
    )


def load_stop_order(path: Path) -> Stop | None:
    """The supervisor's order to end, if the container was told to."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return Stop(deadline_ms=int(content["deadline_boottime_ms"]), by_container=True)


def load_qemu_end(path: Path) -> QemuEnd | None:
    """The supervisor's note of how QEMU ended; None while none has since the last start was begun."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return QemuEnd(exit_code=int(content["exit_code"]), signal=int(content["signal"]))


def _decode(content: Mapping[str, Any]) -> Record:
    stop, end, destroy = content.get("stop"), content.get("end"), content.get("destroy")
    return Record(
        start=Start(content["start"]),
        stop=Stop(**stop) if stop else None,
        destroy=EndReason(destroy) if destroy else None,
        end=End(EndReason(end["reason"]), end["message"]) if end else None,
        generation=content["generation"],
        timeline=tuple((name, at_ms) for name, at_ms in content["timeline"]),
        crash=Crash(content["crash"]) if content.get("crash") else None,
        leased=tuple((interface, address) for interface, address in content["leased"]),
    )
