"""A pod all of whose interfaces passt carries: what of it is known without entering it. Needs root."""

import os
import subprocess
import sys

import pytest
from podvisor_common.launcher_pod import PASST_SYSCTLS
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network.attachments import Attachment, Passt
from podvisor_handler.network.netns import NetworkNotReady, NetworkRefused, wire

from tests.unit.handler.bridged_pods import BLUE, ON_BLUE, WITH_BLUE
from tests.unit.handler.bridged_pods import POD as DUAL_STACK
from tests.unit.handler.namespaces import inside, links_of, needs_root, pod

pytestmark = needs_root

PASST = (Attachment("default", Passt()),)
SYSFS = "mount -t sysfs sysfs /sys\n"
ALONE = """
ip link add eth0 mtu 1450 type veth peer name peer
ip addr add 10.0.1.5/32 dev eth0
ip link set eth0 up
ip link set peer up
ip route add 169.254.1.1 dev eth0
ip route add default via 169.254.1.1
"""
ROUTED = """
ip link add net7 mtu 9000 type veth peer name peer
ip addr add 10.244.0.200/24 dev net7
ip link set net7 up
ip link set peer up
ip route del 10.244.0.0/24
ip route add 10.244.0.1 dev net7 src 10.244.0.200
ip route add 10.244.0.0/24 via 10.244.0.1 src 10.244.0.200
ip route add default via 10.244.0.1
"""
# What a handler does that may look at other processes and nothing else.
WIRE = """
import asyncio, sys
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network.attachments import Attachment, Passt
from podvisor_handler.network.netns import NetworkNotReady, wire

process, is_prepared = PinnedProcess.open(int(sys.argv[1])), sys.argv[2] == "prepared"
desired = (Attachment("default", Passt()),)
try:
    found = asyncio.run(wire(process, desired, is_prepared=is_prepared))
except NetworkNotReady as error:
    print(error)
else:
    print(*(each.addresses for each in found.attached))
"""


def without_privilege(process: PinnedProcess, state: str) -> str:
    """What comes of wiring where the kernel lets nobody enter a namespace, nor change one."""
    only = ["setpriv", "--bounding-set=-all,+sys_ptrace", "--inh-caps=-all"]
    command = [*only, sys.executable, "-c", WIRE, str(process.pid), state]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    "links", [DUAL_STACK, ALONE, ROUTED], ids=["dual stack", "an address that is alone", "routed"]
)
async def test_what_is_seen_from_outside_is_what_is_seen_inside(links: str) -> None:
    with pod(SYSFS + links) as process:
        outside = await wire(process, PASST, is_prepared=True)
        inside_ = await wire(process, PASST)
        assert outside.attached[0].mtu_bytes > 0
        assert outside.attached == inside_.attached
        assert outside.resolver == inside_.resolver
        assert inside_.changed
        assert not outside.changed


async def test_no_namespace_is_entered() -> None:
    with pod(SYSFS + DUAL_STACK) as process:
        assert without_privilege(process, "prepared") == "('10.244.1.5/24', '2001:db8::5/64')"
        assert "not permitted" in without_privilege(process, "not prepared")


async def test_nothing_is_changed_in_the_pod() -> None:
    files = [f"/proc/sys/{name.replace('.', '/')}" for name in PASST_SYSCTLS]
    with pod(SYSFS + DUAL_STACK) as process:
        before = inside(process, "cat", *files), links_of(process)
        await wire(process, PASST, is_prepared=True)
        assert (inside(process, "cat", *files), links_of(process)) == before
        assert os.listdir(f"/proc/{process.pid}/root/dev") == []


async def test_a_pod_of_an_earlier_release_is_set_up_and_gets_no_tun_device() -> None:
    files = [f"/proc/sys/{name.replace('.', '/')}" for name in PASST_SYSCTLS]
    with pod(DUAL_STACK) as process:
        assert (await wire(process, PASST)).changed
        found = inside(process, "cat", *files).splitlines()
        assert [value.split() for value in found] == [
            each.split() for each in PASST_SYSCTLS.values()
        ]
        assert os.listdir(f"/proc/{process.pid}/root/dev") == []


async def test_what_was_made_for_another_interface_is_removed() -> None:
    with pod(SYSFS + WITH_BLUE) as process:
        await wire(process, (*PASST, ON_BLUE))
        inside(process, "ip", "link", "del", BLUE)
        assert (await wire(process, PASST, is_prepared=True)).changed
        assert set(links_of(process)) == {"lo", "eth0", "uplink"}
        assert not (await wire(process, PASST, is_prepared=True)).changed


async def test_a_pod_whose_kernel_keeps_its_devices_to_itself() -> None:
    """Without sysfs the MTU is not known. passt tells the guest another one anyhow."""
    with pod(f"mount -t tmpfs tmpfs /sys\n{DUAL_STACK}") as process:
        (attached,) = (await wire(process, PASST, is_prepared=True)).attached
        assert (attached.pod_interface, attached.mtu_bytes) == ("eth0", 0)


@pytest.mark.parametrize("links", ["", "ip link add eth0 type veth peer name peer"])
async def test_a_pod_without_an_address_is_tried_again_later(links: str) -> None:
    with pod(links) as process, pytest.raises(NetworkNotReady, match='"default"'):
        await wire(process, PASST, is_prepared=True)


async def test_the_nodes_own_network_is_refused() -> None:
    with pod("", own_network=False) as process, pytest.raises(NetworkRefused):
        await wire(process, PASST, is_prepared=True)
