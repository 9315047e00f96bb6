"""What a guest's agent has answered, as the contract has it. Pure.

Invariant: a guest may answer anything. What is not what was asked for is left out, what is left is bounded in number and length.
Commands and answers: https://qemu-project.gitlab.io/qemu/interop/qemu-ga-ref.html.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from podvisor.domain.v1 import guest_pb2 as pb
from podvisor_common.told import told_number, told_seconds, told_text

from podvisor_launcher.virt.agent import Answer

_TEXT_LIMIT = 256
_MOUNT_POINT_LIMIT = 1024
_COMMANDS_LIMIT = 256
_COMMAND_LIMIT = 64
_VERSION_LIMIT = 64
_USERS_LIMIT = 128
_FILESYSTEMS_LIMIT = 128
_DISKS_LIMIT = 16
# No zone is a whole day away from UTC.
_DAY_S = 86_400
_OS_FIELDS = (
    "id",
    "name",
    "pretty-name",
    "version",
    "version-id",
    "kernel-release",
    "kernel-version",
    "machine",
)


def agent_of(answer: Answer) -> tuple[str, list[pb.GuestAgentCommand]]:
    """The version of the agent and its commands, by its answer to guest-info."""
    told = _object(answer)
    commands = [
        pb.GuestAgentCommand(
            name=name,
            enabled=each.get("enabled") is True,
            answers=each.get("success-response") is not False,
        )
        for each in _objects(told.get("supported_commands"), _COMMANDS_LIMIT)
        if (name := told_text(each.get("name"), _COMMAND_LIMIT))
    ]
    return told_text(told.get("version"), _VERSION_LIMIT), commands


def os_of(answer: Answer) -> pb.GuestOs:
    """By the answer to guest-get-osinfo."""
    told = _object(answer)
    fields = {name.replace("-", "_"): told_text(told.get(name), _TEXT_LIMIT) for name in _OS_FIELDS}
    return pb.GuestOs(**fields)


def host_name_of(answer: Answer) -> str:
    """By the answer to guest-get-host-name."""
    return told_text(_object(answer).get("host-name"), _TEXT_LIMIT)


def time_zone_of(answer: Answer) -> tuple[str, int]:
    """The name and how far it is ahead of UTC, in seconds, by the answer to guest-get-timezone."""
    told = _object(answer)
    offset = told.get("offset")
    sign = -1 if isinstance(offset, int) and offset < 0 else 1
    ahead_s = sign * told_number(abs(offset) if isinstance(offset, int) else 0, _DAY_S)
    return told_text(told.get("zone"), _TEXT_LIMIT), ahead_s


def users_of(answer: Answer) -> list[pb.GuestUser]:
    """By the answer to guest-get-users."""
    return [
        pb.GuestUser(
            name=name,
            domain=told_text(each.get("domain"), _TEXT_LIMIT),
            login_time_s=told_seconds(each.get("login-time")),
        )
        for each in _objects(answer, _USERS_LIMIT)
        if (name := told_text(each.get("user"), _TEXT_LIMIT))
    ]


def filesystems_of(answer: Answer) -> list[pb.GuestFilesystem]:
    """By the answer to guest-get-fsinfo."""
    return [
        pb.GuestFilesystem(
            device=told_text(each.get("name"), _TEXT_LIMIT),
            mount_point=mount_point,
            type=told_text(each.get("type"), _TEXT_LIMIT),
            total_bytes=told_number(each.get("total-bytes")),
            used_bytes=told_number(each.get("used-bytes")),
            disks=[
                pb.GuestFilesystemDisk(
                    serial=told_text(disk.get("serial"), _TEXT_LIMIT),
                    bus=told_text(disk.get("bus-type"), _TEXT_LIMIT),
                )
                for disk in _objects(each.get("disk"), _DISKS_LIMIT)
            ],
        )
        for each in _objects(answer, _FILESYSTEMS_LIMIT)
        if (mount_point := told_text(each.get("mountpoint"), _MOUNT_POINT_LIMIT))
    ]


def is_frozen(answer: Answer) -> bool:
    """By the answer to guest-fsfreeze-status."""
    return answer == "frozen"


def _object(answer: object) -> Mapping[str, Any]:
    return answer if isinstance(answer, dict) else {}


def _objects(answer: object, limit: int) -> Iterator[Mapping[str, Any]]:
    found = answer if isinstance(answer, list) else []
    return islice((each for each in found if isinstance(each, dict)), limit)
