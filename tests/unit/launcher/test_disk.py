"""The machine's files when they cannot be read: nothing that the machine's loop must end for."""

from pathlib import Path

import pytest
from podvisor_launcher.domain.disks import Image
from podvisor_launcher.lifecycle.disk import MachineDisk
from podvisor_launcher.lifecycle.files import MachineFiles
from podvisor_launcher.lifecycle.record import QemuEnd
from podvisor_launcher.settings import Settings
from podvisor_launcher.storage import room
from podvisor_launcher.storage.bulkheads import Bulkheads


@pytest.mark.parametrize(
    ("note", "end"),
    [
        ('{"exit_code": -1, "signal": 9}', QemuEnd(-1, 9)),
        ("{", None),
        ('{"signal": 9}', None),
        ('{"exit_code": "x", "signal": 9}', None),
    ],
)
async def test_the_note_of_how_qemu_ended(
    note: str, end: QemuEnd | None, settings: Settings
) -> None:
    settings.qemu_end.write_text(note)
    assert await MachineDisk(MachineFiles(settings), settings.disks, Bulkheads()).qemu_end() == end


async def test_a_directory_that_is_gone_is_not_called_full(
    settings: Settings, tmp_path: Path
) -> None:
    assert await MachineDisk(MachineFiles(settings), tmp_path / "gone", Bulkheads()).has_room()


async def test_room_is_where_the_image_is(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = MachineDisk(MachineFiles(settings), settings.disks, Bulkheads())
    here, gone = Image(str(tmp_path), "raw"), Image(str(tmp_path / "gone"), "raw")
    assert await files.has_room_for("data", here)
    monkeypatch.setattr(room, "_ENOUGH_OF_VOLUME_BYTES", 1 << 62)
    assert not await files.has_room_for("data", here)
    overlay = Image(str(settings.disks / "root.qcow2"), "qcow2")
    assert await files.has_room_for("data", overlay)
    assert await files.has_room_for("data", gone)
    assert await files.has_room_for("data", Image(str(tmp_path), "raw", is_block=True))
    monkeypatch.setattr(room, "_ENOUGH_BYTES", 1 << 62)
    assert not await files.has_room_for("data", overlay)
