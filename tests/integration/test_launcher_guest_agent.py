"""What people ask of a guest's agent, through a launcher in a container, libvirt and QEMU as they are. The agent is a script, and does
what a hostile one may do.

Needs what test_launcher_container.py needs.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb
from podvisor_common.rpc.errors import RpcError, from_status

from tests.integration.test_launcher_agent import IN_STEP, OPEN, start
from tests.support.launcher_container import PROGRAMS, Container, docker, running

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(180),
]

COMMANDS = (
    "guest-info", "guest-ping", "guest-get-osinfo", "guest-get-users", "guest-get-fsinfo",
    "guest-fsfreeze-status", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-exec", "guest-exec-status",
)  # fmt: skip
INFO = {
    "version": "7.2",
    "supported_commands": [
        {"name": each, "enabled": True, "success-response": True} for each in COMMANDS
    ],
}
# libvirt has read so much of an agent that never ends, or all of one that does.
LAUNCHER_MAY_GROW_KIB = 16 * 1024


def printed(answer: Any) -> str:
    return f"printf '%s\\n' '{json.dumps({'return': answer})}' >&3"


NINE_MB = (
    """printf '{"return":"' >&3; head -c 9000000 /dev/zero | tr '\\0' x >&3; printf '"}\\n' >&3"""
)


def agent(**says: str) -> str:
    """An agent that runs what is said of a command; by default it answers like a sound one."""
    sound = {
        "guest-info": printed(INFO),
        "guest-ping": printed({}),
        "guest-get-osinfo": printed({"id": "busybox", "kernel-release": "6.1"}),
        "guest-get-users": printed([{"user": "root", "login-time": 1.5}]),
        "guest-get-fsinfo": printed([{"name": "rootfs", "mountpoint": "/", "type": "tmpfs", "disk": []}]),
        "guest-fsfreeze-status": f"if [ -e /tmp/frozen ]; then {printed('frozen')}; else {printed('thawed')}; fi",
        "guest-fsfreeze-freeze": f"touch /tmp/frozen; {printed(1)}",
        "guest-fsfreeze-thaw": f"rm -f /tmp/frozen; {printed(1)}",
        "guest-exec-status": printed({"exited": True, "exitcode": 3, "out-data": "bm8K"}),
        "guest-exec": printed({"pid": 7}),
    }  # fmt: skip
    says = sound | {name.replace("_", "-"): what for name, what in says.items()}
    cases = "\n".join(f"    *'\"{name}\"'*) {what} ;;" for name, what in says.items())
    unknown = json.dumps({"error": {"class": "CommandNotFound", "desc": "not found"}})
    return f"""{OPEN}{IN_STEP}
while asked <&3; do
  case $asked in
    *guest-sync*) in_step "$asked" ;;
{cases}
    *) printf '%s\\n' '{unknown}' >&3 ;;
  esac
done
"""


async def until(
    container: Container, holds: Callable[[domain.DomainReport], bool]
) -> domain.DomainReport:
    """The first report that `holds`."""
    async with asyncio.timeout(90):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):  # its launcher was killed
                request = pb.WatchDomainRequest()
                async for reply in container.launcher.WatchDomain(request, wait_for_ready=True):
                    if holds(reply.report):
                        return reply.report


async def ask(method: Any, request: Any) -> Any:
    """The answer. Raises RpcError."""
    try:
        return await method(request, timeout=80, wait_for_ready=True)
    except grpc.aio.AioRpcError as error:
        raise from_status(error) from error


def rss_kib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


async def test_what_an_agent_tells_people(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await start(it, agent())
        told = await until(it, lambda report: report.guest_agent.HasField("os"))
        assert (told.guest_agent.os.id, told.guest_agent.version) == ("busybox", "7.2")
        info = (await ask(it.launcher.GetGuestInfo, pb.GetGuestInfoRequest())).info
        assert (info.os.kernel_release, info.filesystems_frozen) == ("6.1", False)
        users = await ask(it.launcher.ListGuestUsers, pb.ListGuestUsersRequest())
        assert [(each.name, each.login_time_s) for each in users.users] == [("root", 1.5)]
        request = pb.ListGuestFilesystemsRequest()
        found = await ask(it.launcher.ListGuestFilesystems, request)
        assert [each.mount_point for each in found.filesystems] == ["/"]
        features = (await it.launcher.GetInfo(pb.GetInfoRequest(), timeout=5)).features
        assert "guest-agent" in features


async def test_a_frozen_guest_is_thawed_whatever_becomes_of_its_launcher(
    image: str, tmp_path: Path
) -> None:
    async with running(image, tmp_path) as it:
        await start(it, agent())
        await until(it, lambda report: report.guest_agent.connected)
        await ask(it.launcher.FreezeGuest, pb.FreezeGuestRequest(thaw_after_s=10))
        frozen = await until(it, lambda report: report.filesystems_frozen)
        os.kill(it.processes()["launcher"], signal.SIGKILL)
        again = await until(it, lambda report: report.epoch != frozen.epoch)
        assert again.filesystems_frozen
        await until(it, lambda report: not report.filesystems_frozen)
        info = (await ask(it.launcher.GetGuestInfo, pb.GetGuestInfoRequest())).info
        assert not info.filesystems_frozen
        await ask(it.launcher.ThawGuest, pb.ThawGuestRequest())


async def test_the_kubelets_probes(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        await start(it, agent())
        await until(it, lambda report: report.guest_agent.connected)

        async def probe(*arguments: str) -> str:
            program = ("exec", it.name, f"{PROGRAMS}/probe", *arguments)
            return await asyncio.to_thread(docker, *program, check=False)

        assert await probe("10", "ping") == ""
        assert await probe("10", "exec", "/bin/check") == "no\n"
        await ask(it.launcher.PauseDomain, pb.PauseDomainRequest())
        assert await probe("2", "ping") == "not asked: the guest is paused\n"
        await ask(it.launcher.ResumeDomain, pb.ResumeDomainRequest())
        assert await probe("10", "ping") == ""
        os.kill(it.processes()["launcher"], signal.SIGKILL)
        assert await probe("10", "ping") in (
            "",
            "not asked: libvirt does not answer, which says nothing of the guest\n",
        )


async def test_a_guest_that_says_that_it_does_not_freeze(image: str, tmp_path: Path) -> None:
    async with running(image, tmp_path) as it:
        busy = json.dumps({"error": {"class": "GenericError", "desc": "busy"}})
        await start(it, agent(guest_fsfreeze_freeze=f"printf '%s\\n' '{busy}' >&3"))
        await until(it, lambda report: report.guest_agent.connected)
        with pytest.raises(RpcError) as refused:
            await ask(it.launcher.FreezeGuest, pb.FreezeGuestRequest(thaw_after_s=300))
        assert refused.value.reason == "GuestAgentFailed"
        assert "has not done guest-fsfreeze-freeze" in refused.value.message
        report = await until(it, lambda _: True)
        assert not report.filesystems_frozen


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (":", "GuestAgentTimedOut"),
        (NINE_MB, ""),
        ("printf '{\"return\":\"\\377\\376\"}\\n' >&3", ""),
        ("yes '{\"return\":' >&3", ""),
        (printed({}).replace("{}", "[" * 5000), ""),
    ],
    ids=["never answers", "9 MB", "no UTF-8", "never ends", "deep"],
)  # fmt: skip
async def test_a_hostile_answer_is_a_failure_of_its_question(
    image: str, tmp_path: Path, says: str, reason: str
) -> None:
    """libvirt answers all else at once, and the launcher has not grown."""
    async with running(image, tmp_path) as it:
        await start(it, agent(guest_get_users=says))
        await until(it, lambda report: report.guest_agent.HasField("os"))
        before = rss_kib(it.processes()["launcher"])
        asking = asyncio.create_task(
            ask(it.launcher.ListGuestUsers, pb.ListGuestUsersRequest()), name="question"
        )
        began_s = time.monotonic()
        for _ in range(3):
            await it.launcher.GetDomainXml(pb.GetDomainXmlRequest(), timeout=5)
        assert time.monotonic() - began_s < 5
        with pytest.raises(RpcError) as refused:
            await asking
        assert refused.value.reason.startswith("GuestAgent")
        assert reason in ("", refused.value.reason)
        assert rss_kib(it.processes()["launcher"]) - before < LAUNCHER_MAY_GROW_KIB
        await it.launcher.ShutdownDomain(pb.ShutdownDomainRequest(grace_period_s=50), timeout=5)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_SHUTDOWN
