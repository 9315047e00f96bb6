"""The agent of a guest whose launcher is in a container, through libvirt and QEMU as they are. It is a script, and does what a hostile
one may do; the real one is in tests/e2e/test_guest_addresses.py.

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

import grpc
import pytest
from podvisor.domain.v1 import domain_pb2 as domain
from podvisor.launcher.v1 import launcher_pb2 as pb

from tests.support.launcher_container import Container, running, spec

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the container's sockets belong to user 107"),
    pytest.mark.timeout(120),
]

OPEN = """#!/bin/sh
port=$(grep -l org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name | cut -d/ -f5)
exec 3<>/dev/$port
"""
# libvirt asks whether the agent is in step, by a number that is to be repeated, and then its question. As long as libvirt has not
# opened its end, which it does once the guest has, there is nothing to be read but the end of the file.
IN_STEP = """
in_step() { id=${1##*\\"id\\":}; printf '{"return":%s}\\n' "${id%%\\}*}" >&3; }
asked() { until read -r asked; do usleep 50000; done; }
"""
SILENT = f"{OPEN}sleep 1000 <&3"
NEVER_ANSWERS = f"""{OPEN}{IN_STEP}
while asked <&3; do case $asked in *guest-sync*) in_step "$asked" ;; esac; done
"""
FLOODS = f"{OPEN}yes '{{\"return\":' >&3"


def answers(interfaces: list[dict[str, object]]) -> str:
    """An agent that tells of these, in the agent's own words, until the file /tmp/go is there. root has no password."""
    answer = json.dumps({"return": interfaces})
    return f"""{OPEN}{IN_STEP}
sed -i 's/^root:[^:]*/root:/' /etc/shadow
cat >/tmp/answer <<'EOF'
{answer}
EOF
(until [ -e /tmp/go ]; do usleep 100000; done; kill $$) &
while asked <&3; do
  case $asked in *guest-sync*) in_step "$asked" ;; *) cat /tmp/answer >&3 ;; esac
done
"""


async def start(container: Container, script: str) -> None:
    wanted = spec()
    wanted.disks[1].cloud_init.user_data = script.encode()
    request = pb.ApplyDomainRequest(spec=wanted)
    await container.launcher.ApplyDomain(request, wait_for_ready=True, timeout=20)


async def until(
    container: Container, holds: Callable[[domain.GuestAgentReport], bool]
) -> domain.DomainReport:
    """The first report of an agent that `holds`."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):  # its launcher was killed
                request = pb.WatchDomainRequest()
                async for reply in container.launcher.WatchDomain(request, wait_for_ready=True):
                    if reply.report.HasField("guest_agent") and holds(reply.report.guest_agent):
                        return reply.report


def address(text: str, kind: str = "ipv4") -> dict[str, object]:
    return {"ip-address": text, "ip-address-type": kind, "prefix": 24}


async def test_what_an_agent_tells(image: str, tmp_path: Path) -> None:
    """Of what is sound, all; by a launcher that was killed, again; and once the agent has gone, nothing, whichever libvirtd saw it."""
    hostile: list[dict[str, object]] = [
        {"name": f"\u202ex\x1b{number}", "ip-addresses": []} for number in range(100)
    ]
    interfaces: list[dict[str, object]] = [
        {"name": "lo", "ip-addresses": [address("127.0.0.1")]},
        {
            "name": "eth0",
            "hardware-address": "02:00:00:00:00:01",
            "ip-addresses": [address("10.0.2.2"), address("nonsense"), address("fe80::1", "ipv6")],
        },
        *hostile,
    ]
    async with running(image, tmp_path) as it:
        await start(it, answers(interfaces))
        first = await until(it, lambda agent: len(agent.interfaces) > 0 and agent.HasField("os"))
        assert len(first.guest_agent.interfaces) == 32
        eth0, other, *_ = first.guest_agent.interfaces
        assert (eth0.name, eth0.mac) == ("eth0", "02:00:00:00:00:01")
        assert list(eth0.addresses) == ["10.0.2.2", "fe80::1"]
        assert other.name == "x0"
        os.kill(it.processes()["launcher"], signal.SIGKILL)
        second = await until(it, lambda agent: len(agent.interfaces) > 0 and agent.HasField("os"))
        assert second.epoch != first.epoch
        assert second.guest_agent == first.guest_agent
        os.kill(it.processes()["libvirtd"], signal.SIGKILL)
        await it.serial(("login:", "root\n"), ("# ", "touch /tmp/go\n"), ("# ", ""))
        gone = await until(it, lambda agent: not agent.connected)
        assert list(gone.guest_agent.interfaces) == []


@pytest.mark.parametrize(
    "script", [SILENT, NEVER_ANSWERS, FLOODS], ids=["silent", "never answers", "floods"]
)
async def test_no_agent_holds_its_launcher_up(image: str, tmp_path: Path, script: str) -> None:
    """libvirt answers all else at once, and the guest is asked to end by its power button, not by its agent."""
    async with running(image, tmp_path) as it:
        await start(it, script)
        report = await until(it, lambda agent: agent.connected)
        assert list(report.guest_agent.interfaces) == []
        began_s = time.monotonic()
        for _ in range(3):
            await it.launcher.GetDomainXml(pb.GetDomainXmlRequest(), timeout=5)
        assert time.monotonic() - began_s < 5
        began_s = time.monotonic()
        await it.launcher.ShutdownDomain(pb.ShutdownDomainRequest(grace_period_s=50), timeout=5)
        ended = await it.until(domain.DOMAIN_STATE_ENDED)
        assert ended.reason == domain.DOMAIN_REASON_SHUTDOWN
        assert time.monotonic() - began_s < 8
        assert await it.exit_code() == 0
