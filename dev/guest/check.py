"""The self-test of the built guests: each case is what some test of podvisor relies on.

Every case boots its own machine. A failure prints the guest's whole console.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from . import machine
from .builder import AMD64_BENCH, I386, OUT, Guest
from .host import BuildError, require

BOOT_S = 60  # a shared machine under emulation; an idle one needs four
MEMORY_MIB = {I386.name: 61, AMD64_BENCH.name: 128}


def _public_key() -> str:
    return machine.KEY.with_suffix(".pub").read_text().strip()


def _disk(guest: Guest) -> Path:
    return OUT / guest.name / "disk.qcow2"


def _expect_equal(actual: str, expected: str, what: str) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


async def plain_keys(work: Path, guest: Guest) -> str:
    """No #cloud-config line and `ssh-authorized-keys`; JSON meta-data; the power button."""
    cidata = work / "cidata.iso"
    meta_data = '{"instance-id": "myvm.default", "local-hostname": "myvm"}'
    machine.write_cidata(cidata, meta_data, f"ssh-authorized-keys:\n  - {_public_key()}\n")
    async with machine.running(_disk(guest), MEMORY_MIB[guest.name], work, cidata) as vm:
        prompt_s = await vm.expect(r"\nmyvm login: ", BOOT_S)
        _expect_equal(await vm.ssh("hostname"), "myvm\n", "host name")
        _expect_equal(await vm.ssh("id -u", user="cirros"), "0\n", "uid of cirros")
        uptime_s = float((await vm.ssh("cat /proc/uptime")).split()[0])
        resident_mib = vm.resident_mib()
        free = (await vm.ssh("free -m")).splitlines()[1].split()[-1]
        await vm.press_power_button()
        off_s = await vm.off(20)
    for message in ("The system is going down NOW!", "Requesting system poweroff", "Power down"):
        if message not in vm.console:
            raise AssertionError(f"no {message!r} in the console:\n{vm.console}")
    return (
        f"prompt {prompt_s:.1f} s, ssh by uptime {uptime_s:.1f} s, off {off_s:.1f} s after the"
        f" button, {free} MiB available, QEMU {resident_mib} MiB"
    )


CLOUD_CONFIG = """#cloud-config
# every shape that the tests may write
hostname: "othername"   # wins over meta-data
password: 'se cret#1'
chpasswd: { expire: False }
users:
  - default
  - name: someone
    ssh_authorized_keys: ["%s"]
ssh_authorized_keys:
- ssh-rsa AAAAB3NzaK8L93bWxnyp test@test.com
runcmd:
  - echo "plain: it's $((40 + 2))" >> /tmp/out
  - [sh, -c, 'echo "flow, list" >> /tmp/out']
  - - sh
    - -c
    - echo nested list >> /tmp/out
  - |
    for word in block scalar; do
      echo $word >> /tmp/out
    done
  - "echo \\"quoted\\" >> /tmp/out; echo runcmd-finished"
final_message: unused
"""


async def cloud_config(work: Path, guest: Guest) -> str:
    """`#cloud-config` with a host name, a password, keys, runcmd; console login; reboot; poweroff."""
    cidata = work / "cidata.iso"
    meta_data = "instance-id: i-1\nlocal-hostname: myvm.some.domain\n"
    machine.write_cidata(cidata, meta_data, CLOUD_CONFIG % _public_key())
    async with machine.running(_disk(guest), MEMORY_MIB[guest.name], work, cidata) as vm:
        await vm.expect(r"\nothername login: ", BOOT_S)
        await vm.expect(r"runcmd-finished", BOOT_S)
        lines = "plain: it's 42\nflow, list\nnested list\nblock\nscalar\nquoted\n"
        _expect_equal(await vm.ssh("cat /tmp/out", user="cirros"), lines, "output of runcmd")
        await vm.type("root\n")
        await vm.expect(r"Password: ", BOOT_S)
        await vm.type("se cret#1\n")
        await vm.expect(r"# ", BOOT_S)
        await vm.ssh("(usleep 200000; reboot) >/dev/null 2>&1 &")
        await vm.expect(r"Requesting system reboot", BOOT_S)
        await vm.expect(r"reboot: (?s:.*)\nothername login: ", BOOT_S)
        await vm.ssh("(usleep 200000; poweroff) >/dev/null 2>&1 &")
        off_s = await vm.off(20)
    return f"off {off_s:.1f} s after `poweroff`"


async def deaf_guest(work: Path, guest: Guest) -> str:
    """A `#!` script as user-data, which makes this guest ignore the power button."""
    cidata = work / "cidata.iso"
    script = (
        "#!/bin/sh\nmkdir -p /root/.ssh\n"
        f"echo '{_public_key()}' > /root/.ssh/authorized_keys\nkillall acpid\necho now-deaf\n"
    )
    machine.write_cidata(cidata, "instance-id: i-1\nlocal-hostname: deaf\n", script)
    async with machine.running(_disk(guest), MEMORY_MIB[guest.name], work, cidata) as vm:
        await vm.expect(r"\ndeaf login: ", BOOT_S)
        await vm.expect(r"now-deaf", BOOT_S)
        await vm.press_power_button()
        before = float((await vm.ssh("cat /proc/uptime; sleep 2")).split()[0])
        after = float((await vm.ssh("cat /proc/uptime")).split()[0])
    if after < before + 2 or "going down" in vm.console:
        raise AssertionError(f"the guest heard the button:\n{vm.console}")
    return "still up two seconds after the button"


async def name_from_dhcp(work: Path, guest: Guest) -> str:
    """No NoCloud data: the lease's host name shows in the prompt."""
    memory_mib, lease = MEMORY_MIB[guest.name], ",hostname=fromdhcp"
    async with machine.running(_disk(guest), memory_mib, work, network=lease) as vm:
        prompt_s = await vm.expect(r"\nfromdhcp login: ", BOOT_S)
    return f"prompt {prompt_s:.1f} s"


Case = Callable[[Path, Guest], Awaitable[str]]
CASES: tuple[tuple[Case, Guest], ...] = (
    (plain_keys, I386),
    (cloud_config, I386),
    (deaf_guest, I386),
    (name_from_dhcp, I386),
    (plain_keys, AMD64_BENCH),
)


async def _run_all(repeat_boot: int) -> int:
    failures = 0
    for case, guest in CASES:
        with tempfile.TemporaryDirectory(prefix="guest-") as scratch:
            try:
                print(f"ok   {case.__name__} ({guest.name}): {await case(Path(scratch), guest)}")
            except (AssertionError, TimeoutError) as error:
                failures += 1
                print(f"FAIL {case.__name__} ({guest.name}): {error}")
    for guest in (I386, AMD64_BENCH) if repeat_boot else ():
        seconds = []
        for _ in range(repeat_boot):
            with tempfile.TemporaryDirectory(prefix="guest-") as scratch:
                seconds.append(await _boot_s(Path(scratch), guest))
        print(
            f"{guest.name}: prompt after {statistics.median(seconds):.1f} s (median of"
            f" {repeat_boot}, {min(seconds):.1f} to {max(seconds):.1f})"
        )
    return failures


async def _boot_s(work: Path, guest: Guest) -> float:
    cidata = work / "cidata.iso"
    machine.write_cidata(cidata, "instance-id: i-1\nlocal-hostname: myvm\n", "")
    async with machine.running(_disk(guest), MEMORY_MIB[guest.name], work, cidata) as vm:
        return await vm.expect(r"\nmyvm login: ", BOOT_S)


def main(arguments: list[str]) -> int:
    """The command line of dev/guest/selftest."""
    parser = argparse.ArgumentParser(prog="dev/guest/selftest", description=__doc__)
    parser.add_argument("--boots", type=int, default=0, help="also time this many boots of each")
    options = parser.parse_args(arguments)
    try:
        require(("qemu-system-x86_64", "ssh"))
        return 1 if asyncio.run(_run_all(options.boots)) else 0
    except BuildError as error:
        print(f"dev/guest/selftest: {error}")
        return 1
