"""What is made of a guest's words, which may be any."""

from collections.abc import Callable
from typing import Any

import pytest
from podvisor.domain.v1 import guest_pb2 as pb
from podvisor_common.told import told_number, told_seconds, told_text
from podvisor_launcher.lifecycle import guest_facts as facts

from tests.unit.launcher.fake_agent import DISK, FILESYSTEM, OS, USER

LONG = "x" * 10_000_000


def test_what_a_sound_agent_tells() -> None:
    os = facts.os_of(OS)
    assert (os.id, os.pretty_name, os.version_id) == (
        "debian",
        "Debian GNU/Linux 12 (bookworm)",
        "12",
    )
    assert (os.kernel_release, os.machine) == ("6.1.0-18-amd64", "x86_64")
    assert facts.host_name_of({"host-name": "shop"}) == "shop"
    assert facts.time_zone_of({"zone": "CET", "offset": 3600}) == ("CET", 3600)
    assert facts.time_zone_of({"offset": -18000}) == ("", -18000)
    [user] = facts.users_of([USER])
    assert (user.name, user.domain, user.login_time_s) == ("root", "", 1700000000.25)
    [filesystem] = facts.filesystems_of([FILESYSTEM])
    assert (filesystem.device, filesystem.mount_point, filesystem.type) == ("vda1", "/", "ext4")
    assert (filesystem.total_bytes, filesystem.used_bytes) == (2**33, 2**30)
    assert list(filesystem.disks) == [pb.GuestFilesystemDisk(serial="abc", bus="virtio")]
    told = {"version": "7.2", "supported_commands": [{"name": "guest-ping", "enabled": True}]}
    command = pb.GuestAgentCommand(name="guest-ping", enabled=True, answers=True)
    assert facts.agent_of(told) == ("7.2", [command])


@pytest.mark.parametrize(
    "answer", [None, 1, -1.5, True, "x", [], {}, [None], [[]], ["x"], {"x": {}}, LONG], ids=repr
)
def test_what_is_no_answer_tells_nothing(answer: Any) -> None:
    assert facts.agent_of(answer) == ("", [])
    assert facts.os_of(answer) == pb.GuestOs()
    assert facts.host_name_of(answer) == ""
    assert facts.time_zone_of(answer) == ("", 0)
    assert facts.users_of(answer) == []
    assert facts.filesystems_of(answer) == []
    assert not facts.is_frozen(answer)


@pytest.mark.parametrize(
    ("reader", "answer", "limit_bytes"),
    [
        (facts.os_of, dict.fromkeys(OS, LONG), 8 * 300),
        (facts.users_of, [{"user": LONG, "domain": LONG}] * 100_000, 128 * 600),
        (
            facts.filesystems_of,
            [{**FILESYSTEM, "name": LONG, "mountpoint": LONG, "disk": [DISK] * 1000}] * 10_000,
            128 * 2200,
        ),
    ],
    ids=["system", "users", "file systems"],
)
def test_however_much_is_told_little_is_kept(
    reader: Callable[[Any], Any], answer: Any, limit_bytes: int
) -> None:
    kept = reader(answer)
    size = kept.ByteSize() if isinstance(kept, pb.GuestOs) else sum(e.ByteSize() for e in kept)
    assert 0 < size <= limit_bytes


def test_a_number_that_is_none() -> None:
    odd = {**FILESYSTEM, "total-bytes": -1, "used-bytes": 2**64}
    [filesystem] = facts.filesystems_of([odd])
    assert (filesystem.total_bytes, filesystem.used_bytes) == (0, 0)
    [user] = facts.users_of([{"user": "x", "login-time": float("inf")}])
    assert user.login_time_s == 0
    assert facts.time_zone_of({"offset": 10**30}) == ("", 0)


@pytest.mark.parametrize(
    ("said", "expected"),
    [("a\x1b[31mb\u202e\n", "a[31mb"), (" x ", "x"), ("\ud800", ""), (7, ""), ("abcdef", "abcd")],
)
def test_a_text_can_be_printed(said: object, expected: str) -> None:
    assert told_text(said, 4 if said == "abcdef" else 64) == expected


def test_numbers() -> None:
    assert [told_number(each) for each in (1, True, -1, 2**63, "1", None)] == [1, 0, 0, 0, 0, 0]
    assert told_number(2**63 - 1) == 2**63 - 1
    assert [told_seconds(each) for each in (1.5, True, -1, float("nan"))] == [1.5, 0, 0, 0]
