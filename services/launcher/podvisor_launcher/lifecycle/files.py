"""The files by which a launcher knows what its predecessor knew."""

import contextlib

from google.protobuf.message import DecodeError
from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.lifecycle.record import (
    QemuEnd,
    Record,
    Stop,
    load_qemu_end,
    load_record,
    load_stop_order,
    save_record,
)
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage.files import write_whole


class MachineFiles:
    """Record, specification and the supervisor's notes in the pod's private directory. All calls block for a moment of disk time, and no two
    may run at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._saved: pb.DomainSpec | None = None
        for directory in (settings.disks, settings.cloud_init):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load_record(self) -> Record:
        """The predecessor's record; an empty one for the first launcher of the pod."""
        return load_record(self._settings.record)

    def load_spec(self) -> pb.DomainSpec | None:
        """The specification in force, if one was accepted."""
        with contextlib.suppress(FileNotFoundError, DecodeError):
            self._saved = pb.DomainSpec.FromString(self._settings.spec.read_bytes())
        return self._saved

    def load_stop_order(self) -> Stop | None:
        """The supervisor's order to end, if there is one."""
        return load_stop_order(self._settings.stop_order)

    def load_qemu_end(self) -> QemuEnd | None:
        """The supervisor's note of how QEMU ended, if one has."""
        return load_qemu_end(self._settings.qemu_end)

    def forget_qemu_end(self) -> None:
        """Before another QEMU is started: the note shall be about that one. Raises OSError."""
        self._settings.qemu_end.unlink(missing_ok=True)

    def save(self, record: Record, spec: pb.DomainSpec | None) -> None:
        """Save `spec` unless it is saved already, then make `record` durable. Raises OSError."""
        if spec is not None and spec is not self._saved:
            write_whole(self._settings.spec, spec.SerializeToString())
            self._saved = spec
        save_record(self._settings.record, record)
