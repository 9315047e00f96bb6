"""What the agent in a guest tells and does, through the real server, in the shapes that KubeVirt's clients read."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from podvisor.domain.v1 import guest_pb2
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES
from podvisor_common.rpc.errors import FailedPrecondition

from tests.unit.edge.guests import KEY, Guests, guests, instance

QUESTIONS = ("guestosinfo", "userlist", "filesystemlist")
USER = {"userName": "jane", "loginTime": 1700000000.5}
FILESYSTEM = {
    "diskName": "vda1",
    "mountPoint": "/",
    "fileSystemType": "ext4",
    "totalBytes": 1000,
    "usedBytes": 10,
    "disk": [{"serial": "abc", "busType": "virtio"}],
}


@pytest.fixture
async def it() -> AsyncIterator[Guests]:
    async with guests() as made:
        made.handler.agent = guest_pb2.GuestInfo(
            agent_version="10.0",
            commands=[guest_pb2.GuestAgentCommand(name="guest-ping", enabled=True, answers=True)],
            os=guest_pb2.GuestOs(id="debian", pretty_name="Debian 13", version_id="13"),
            host_name="myvm",
            time_zone="UTC",
            users=[guest_pb2.GuestUser(name="jane", login_time_s=1700000000.5)],
            filesystems=[
                guest_pb2.GuestFilesystem(
                    device="vda1",
                    mount_point="/",
                    type="ext4",
                    total_bytes=1000,
                    used_bytes=10,
                    disks=[guest_pb2.GuestFilesystemDisk(serial="abc", bus="virtio")],
                )
            ],
        )
        yield made


async def test_what_it_tells(it: Guests) -> None:
    about = {"apiVersion": "subresources.kubevirt.io/v1"}
    assert await it.get("guestosinfo") == (
        200,
        about
        | {
            "kind": "VirtualMachineInstanceGuestAgentInfo",
            "guestAgentVersion": "10.0",
            "supportedCommands": [{"name": "guest-ping", "enabled": True}],
            "hostname": "myvm",
            "os": {"id": "debian", "prettyName": "Debian 13", "versionId": "13"},
            "timezone": "UTC, 0",
            "userList": [USER],
            "fsInfo": {"disks": [FILESYSTEM]},
        },
    )
    assert await it.get("userlist") == (
        200,
        about | {"kind": "VirtualMachineInstanceGuestOSUserList", "metadata": {}, "items": [USER]},
    )
    assert await it.get("filesystemlist") == (
        200,
        about
        | {"kind": "VirtualMachineInstanceFileSystemList", "metadata": {}, "items": [FILESYSTEM]},
    )


async def test_an_agent_that_tells_nothing(it: Guests) -> None:
    it.handler.agent = guest_pb2.GuestInfo()
    code, told = await it.get("guestosinfo")
    assert (code, sorted(told)) == (200, ["apiVersion", "kind"])
    assert (await it.get("userlist"))[1]["items"] == []


@pytest.mark.parametrize("verb", QUESTIONS)
async def test_there_is_no_agent(it: Guests, verb: str) -> None:
    it.handler.refusal = FailedPrecondition("no", reason="GuestAgentNotConnected")
    code, status = await it.get(verb)
    assert (code, status["message"].partition(": ")[2]) == (
        409, "VMI does not have guest agent connected",
    )  # fmt: skip
    it.set(phase="Succeeded")
    assert (await it.get(verb))[0] == 409


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (None, "FreezeGuest 300"),
        ({"unfreezeTimeout": "0s"}, "FreezeGuest 0"),
        ({"unfreezeTimeout": "500ms"}, "FreezeGuest 1"),
        ({"unfreezeTimeout": "100ns"}, "FreezeGuest 1"),
        ({"unfreezeTimeout": "1m30s"}, "FreezeGuest 90"),
    ],
)
async def test_freeze(it: Guests, options: dict[str, Any] | None, asked: str) -> None:
    assert await it.put("freeze", options) == (202, None)
    assert await it.put("unfreeze") == (202, None)
    assert it.handler.asked == [asked, "ThawGuest"]


@pytest.mark.parametrize(
    "options", [{"unfreezeTimeout": "soon"}, {"unfreezeTimeout": "25h"}, {"timeout": "5s"}]
)
async def test_for_how_long_makes_no_sense(it: Guests, options: dict[str, Any]) -> None:
    code, status = await it.put("freeze", options)
    assert (code, it.handler.asked) == (400, [])
    assert "imeout" in (status or {})["message"]


async def test_it_does_not_freeze(it: Guests) -> None:
    it.handler.refusal = FailedPrecondition("no", reason="GuestAgentNotConnected")
    code, status = await it.put("freeze")
    assert (code, (status or {})["message"]) == (
        500,
        "Internal error occurred: command Freeze failed: QEMU guest agent is not connected",
    )
    it.handler.refusal = FailedPrecondition("it said no", reason="GuestAgentFailed")
    code, status = await it.put("unfreeze")
    assert (code, "command Unfreeze failed: it said no" in (status or {})["message"]) == (500, True)


@pytest.mark.parametrize("resource", ["virtualmachines", "virtualmachineinstances"])
async def test_an_evacuation_is_taken_back(it: Guests, resource: str) -> None:
    def node() -> object:
        found = it.server.get(VIRTUAL_MACHINE_INSTANCES, KEY)
        return (found or {})["status"].get("evacuationNodeName")

    it.server.put(VIRTUAL_MACHINE_INSTANCES, instance(evacuationNodeName="n1"))
    for options in ({"evacuationNodeName": "n2"}, {"dryRun": ["All"]}):
        assert await it.put("evacuate/cancel", options, resource) == (202, None)
        assert node() == "n1"
    assert await it.put("evacuate/cancel", {"evacuationNodeName": "n1"}, resource) == (202, None)
    assert node() is None
    assert await it.put("evacuate/cancel", None, resource) == (202, None)
    it.server.remove(VIRTUAL_MACHINES, KEY)
    it.server.remove(VIRTUAL_MACHINE_INSTANCES, KEY)
    assert (await it.put("evacuate/cancel", None, resource))[0] == 404
