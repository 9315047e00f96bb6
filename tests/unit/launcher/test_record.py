"""What outlives a launcher: whole, and read back as it was written."""

from pathlib import Path

import pytest
from podvisor_launcher.lifecycle.record import (
    End,
    EndReason,
    Record,
    Start,
    Stop,
    load_record,
    load_stop_order,
    save_record,
)
from podvisor_launcher.virt.guest import Crash

FULL = Record(
    start=Start.DONE,
    stop=Stop(deadline_ms=123, by_container=True),
    destroy=EndReason.GRACE_PERIOD_EXPIRED,
    end=End(EndReason.GRACE_PERIOD_EXPIRED, "too slow"),
    generation=7,
    timeline=(("LauncherReady", 1), ("DomainStarted", 2)),
    crash=Crash.PANIC,
    leased=(("default", "10.0.2.2"),),
)


@pytest.mark.parametrize("record", [Record(), FULL])
def test_a_record_is_read_back(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    save_record(path, record)
    assert load_record(path) == record
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]


def test_the_first_launcher_of_a_pod_finds_nothing(tmp_path: Path) -> None:
    assert load_record(tmp_path / "state.json") == Record()
    assert load_stop_order(tmp_path / "stop.json") is None


def test_the_supervisors_order_is_understood(tmp_path: Path) -> None:
    (tmp_path / "stop.json").write_text('{"deadline_boottime_ms": 4711}\n')
    assert load_stop_order(tmp_path / "stop.json") == Stop(4711, by_container=True)


def test_a_step_counts_once() -> None:
    record = Record().with_step("DomainStarted", 5).with_step("DomainStarted", 9)
    assert record.timeline == (("DomainStarted", 5),)
