"""The verbs that ask the agent in a guest: guestosinfo, userlist, filesystemlist, freeze and unfreeze of instances.

What the agent says is a guest's own word; the handler has cut it to what is fit to be shown.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from podvisor.domain.v1 import guest_pb2
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor_common.api import v1
from podvisor_common.api.duration import DurationError, parse_duration
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES
from podvisor_common.rpc.client import call

from podvisor_controller.subresources.instances import Handlers, Instances, Refusals, conflicting
from podvisor_controller.subresources.options import read_checked
from podvisor_controller.subresources.statuses import StatusError, bad_request, internal
from podvisor_controller.subresources.verbs import GROUP, Call, Verb

# An agent may take long; longer than a handler waits for its launcher.
ANSWER_WITHIN_S = 60.0
FROZEN_WITHIN_S = 100.0
DEFAULT_THAW_S = 300
MAX_THAW_S = 24 * 3600

_VERSION = f"{GROUP}/v1"
_INFO = "VirtualMachineInstanceGuestAgentInfo"
_USERS = "VirtualMachineInstanceGuestOSUserList"
_FILESYSTEMS = "VirtualMachineInstanceFileSystemList"


def verbs(client: KubeClient, handlers: Handlers) -> list[Verb]:
    """All of them."""
    verbs, instances = _AgentVerbs(Instances(client, handlers)), VIRTUAL_MACHINE_INSTANCES
    return [
        Verb("GET", instances, "guestosinfo", verbs.guest_os_info, _INFO),
        Verb("GET", instances, "userlist", verbs.user_list, _USERS),
        Verb("GET", instances, "filesystemlist", verbs.filesystem_list, _FILESYSTEMS),
        Verb("PUT", instances, "freeze", verbs.freeze, "FreezeUnfreezeTimeout"),
        Verb("PUT", instances, "unfreeze", verbs.unfreeze),
    ]


def _failed(command: str) -> Refusals:
    """The words by which backup programs know why a guest does not stand still."""

    def said(_: str, message: str) -> StatusError:
        return internal(f"command {command} failed: {message}")

    def not_connected(_: str, __: str) -> StatusError:
        return internal(f"command {command} failed: QEMU guest agent is not connected")

    return {
        "NotRunning": conflicting("VM is not running"),
        "GuestAgentNotConnected": not_connected,
        "GuestAgentCommandUnsupported": said,
        "GuestAgentFailed": said,
        "GuestAgentTimedOut": said,
    }


_NO_AGENT = conflicting("VMI does not have guest agent connected")
_QUESTION_REFUSALS: Refusals = {
    "NotRunning": conflicting("VM is not running"),
    "GuestAgentNotConnected": _NO_AGENT,
    "GuestAgentCommandUnsupported": lambda _, message: internal(message),
    "GuestAgentFailed": lambda _, message: internal(message),
    "GuestAgentTimedOut": lambda _, message: internal(message),
}
_FREEZE_REFUSALS = _failed("Freeze")
_THAW_REFUSALS = _failed("Unfreeze")


class _AgentVerbs:
    def __init__(self, instances: Instances) -> None:
        self._instances = instances

    async def guest_os_info(self, asked: Call) -> web.StreamResponse:
        """All that the agent tells."""
        vmi = await self._instances.get(asked.key)
        async with self._instances.guest(vmi, _QUESTION_REFUSALS) as (handler, reference):
            request = pb.GetGuestInfoRequest(reference=reference)
            told = await call(handler.GetGuestInfo, request, timeout_s=ANSWER_WITHIN_S)
        return web.json_response(agent_info(told.info))

    async def user_list(self, asked: Call) -> web.StreamResponse:
        """Who is logged in."""
        vmi = await self._instances.get(asked.key)
        async with self._instances.guest(vmi, _QUESTION_REFUSALS) as (handler, reference):
            request = pb.ListGuestUsersRequest(reference=reference)
            told = await call(handler.ListGuestUsers, request, timeout_s=ANSWER_WITHIN_S)
        return web.json_response(_list(_USERS, [_user(user) for user in told.users]))

    async def filesystem_list(self, asked: Call) -> web.StreamResponse:
        """What is mounted."""
        vmi = await self._instances.get(asked.key)
        async with self._instances.guest(vmi, _QUESTION_REFUSALS) as (handler, reference):
            request = pb.ListGuestFilesystemsRequest(reference=reference)
            told = await call(handler.ListGuestFilesystems, request, timeout_s=ANSWER_WITHIN_S)
        return web.json_response(_list(_FILESYSTEMS, filesystems(told.filesystems)))

    async def freeze(self, asked: Call) -> web.StreamResponse:
        """Have the guest's file systems stand still, for five minutes unless the caller says for how long."""
        options, _ = await read_checked(asked.request, v1.FreezeUnfreezeTimeout)
        thaw_after_s = _thaw_after_s(options)
        vmi = await self._instances.get(asked.key)
        async with self._instances.guest(vmi, _FREEZE_REFUSALS) as (handler, reference):
            request = pb.FreezeGuestRequest(reference=reference, thaw_after_s=thaw_after_s)
            await call(handler.FreezeGuest, request, timeout_s=FROZEN_WITHIN_S)
        return web.Response(status=202)

    async def unfreeze(self, asked: Call) -> web.StreamResponse:
        """Let them go on."""
        vmi = await self._instances.get(asked.key)
        async with self._instances.guest(vmi, _THAW_REFUSALS) as (handler, reference):
            request = pb.ThawGuestRequest(reference=reference)
            await call(handler.ThawGuest, request, timeout_s=FROZEN_WITHIN_S)
        return web.Response(status=202)


def _thaw_after_s(options: v1.FreezeUnfreezeTimeout) -> int:
    """What a FreezeUnfreezeTimeout says. Raises StatusError (400)."""
    text = options.unfreeze_timeout
    if text is None:
        return DEFAULT_THAW_S
    try:
        wanted_s = parse_duration(text).total_seconds()
    except DurationError as error:
        raise bad_request(f"unfreezeTimeout: {error}") from error
    if not 0 <= wanted_s <= MAX_THAW_S:
        raise bad_request(f"unfreezeTimeout has to be between 0s and {MAX_THAW_S}s")
    return math.ceil(wanted_s)  # less than a second is not never


def agent_info(told: guest_pb2.GuestInfo) -> dict[str, Any]:
    """A VirtualMachineInstanceGuestAgentInfo."""
    os = told.os
    system = {
        "id": os.id,
        "name": os.name,
        "prettyName": os.pretty_name,
        "version": os.version,
        "versionId": os.version_id,
        "kernelRelease": os.kernel_release,
        "kernelVersion": os.kernel_version,
        "machine": os.machine,
    }
    zone = f"{told.time_zone}, {told.time_zone_offset_s}" if told.time_zone else ""
    return _without_empty(
        {
            "apiVersion": _VERSION,
            "kind": _INFO,
            "guestAgentVersion": told.agent_version,
            "supportedCommands": [
                {"name": one.name, "enabled": one.enabled} for one in told.commands
            ],
            "hostname": told.host_name,
            "os": _without_empty(system),
            "timezone": zone,
            "userList": [_user(user) for user in told.users],
            "fsInfo": _without_empty({"disks": filesystems(told.filesystems)}),
            "fsFreezeStatus": "frozen" if told.filesystems_frozen else "",
        }
    )


def _user(user: guest_pb2.GuestUser) -> dict[str, Any]:
    found = {"userName": user.name, "domain": user.domain, "loginTime": user.login_time_s}
    return _without_empty(found)


def filesystems(told: Iterable[guest_pb2.GuestFilesystem]) -> list[dict[str, Any]]:
    """VirtualMachineInstanceFileSystems."""
    return [
        {
            "diskName": one.device,
            "mountPoint": one.mount_point,
            "fileSystemType": one.type,
            "totalBytes": one.total_bytes,
            "usedBytes": one.used_bytes,
            "disk": [
                _without_empty({"serial": disk.serial, "busType": disk.bus}) for disk in one.disks
            ],
        }
        for one in told
    ]


def _list(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": _VERSION, "kind": kind, "metadata": {}, "items": items}


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the agent does not tell."""
    return {name: value for name, value in fields.items() if value not in ("", [], {}, 0)}
