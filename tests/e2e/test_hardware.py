"""Hardware beside disks and interfaces, as the guest finds it: many items in few guests, since each boots slowly where it is emulated."""

import time

from tests.support.cluster import Cluster, Json
from tests.support.disks import with_disk
from tests.support.machine import Machine, phase_is, vmi
from tests.support.qemu import qemu_of

AHEAD_S = 40 * 24 * 3600
DOMAIN: Json = {
    "cpu": {"cores": 2, "features": [{"name": "aes"}]},
    "clock": {
        "utc": {"offsetSeconds": AHEAD_S},
        "timer": {"hpet": {"present": False}, "rtc": {"tickPolicy": "catchup"}},
    },
    "features": {"acpi": {}, "smm": {"enabled": False}},
    "chassis": {"manufacturer": "Acme", "asset": "asset-7", "serial": "chassis-7"},
    "firmware": {"serial": "board-7", "bootloader": {"bios": {"useSerial": True}}},
    "rebootPolicy": "Terminate",
    "ioThreadsPolicy": "auto",
}
DEVICES: Json = {
    "rng": {},
    "watchdog": {"name": "dog", "i6300esb": {"action": "poweroff"}},
    "sound": {"name": "card", "model": "ich9"},
    "inputs": [{"name": "stick"}, {"name": "pad", "bus": "virtio"}],
    "video": {"type": "virtio"},
    "panicDevices": [{"model": "pvpanic"}],
    "tpm": {},
    "autoattachMemBalloon": True,
    "blockMultiQueue": True,
}
# What a question is about, what is asked of the guest, and its answer.
Question = tuple[str, str, str]


def _device(place: str) -> str:
    """Vendor and device at a place of the PCI bus."""
    at = f"/sys/bus/pci/devices/0000:{place}"
    return f"echo $(cat {at}/vendor {at}/device)"


QUESTIONS: tuple[Question, ...] = (
    ("chassis, maker", "cat /sys/class/dmi/id/chassis_vendor", "Acme"),
    ("chassis, asset", "cat /sys/class/dmi/id/chassis_asset_tag", "asset-7"),
    ("chassis, serial", "cat /sys/class/dmi/id/chassis_serial", "chassis-7"),
    ("system, serial", "cat /sys/class/dmi/id/product_serial", "board-7"),
    ("processors", "grep -c ^processor /proc/cpuinfo", "2"),
    ("aes", "grep -m1 ^flags /proc/cpuinfo | grep -o -w aes", "aes"),
    (
        "hpet",
        "grep -c hpet /sys/devices/system/clocksource/clocksource0/available_clocksource",
        "0",
    ),
    ("video card", _device("00:01.0"), "0x1af4 0x1050"),
    ("source of random numbers", _device("00:1e.1"), "0x1af4 0x1044"),
    ("watchdog", _device("00:1e.2"), "0x8086 0x25ab"),
    ("sound card", _device("00:1e.3"), "0x8086 0x293e"),
    ("balloon", _device("00:1e.4"), "0x1af4 0x1045"),
    ("pvpanic", _device("00:1e.5"), "0x1b36 0x0011"),
    ("controller of USB", _device("00:1e.6"), "0x1b36 0x000d"),
    ("random numbers", "head -c 8 /dev/hwrng | wc -c", "8"),
    (
        "who gives them",
        "cut -d. -f1 /sys/devices/virtual/misc/hw_random/rng_current",
        "virtio_rng",
    ),
    ("timer", "ls /dev/watchdog0", "/dev/watchdog0"),
    ("TPM", "cat /sys/class/tpm/tpm0/tpm_version_major", "2"),
    ("its device", "ls /dev/tpm0", "/dev/tpm0"),
    ("tablet on USB", "cat /sys/bus/usb/devices/*/product | grep Tablet", "QEMU USB Tablet"),
    (
        "tablet on virtio",
        "grep -o 'QEMU Virtio Tablet' /proc/bus/input/devices",
        "QEMU Virtio Tablet",
    ),
    ("queues of a disk", "ls /sys/block/vda/mq | wc -l", "2"),
)


async def _check(machine: Machine, *questions: Question) -> None:
    """The guest loads some drivers a moment after its prompt: it is asked again there, for five seconds."""
    script = "\n".join(
        f"for n in $(seq 20); do a=$({command} 2>&1);"
        f' [ "$a" = "{expected}" ] && break; usleep 250000; done; echo "$a" | tr "\\n" " "; echo'
        for _, command, expected in questions
    )
    said = (await machine.ssh(script, timeout_s=60)).stdout.splitlines()
    answers = {what: line.strip() for (what, _, _), line in zip(questions, said, strict=True)}
    assert answers == {what: expected for what, _, expected in questions}


async def test_the_guest_has_the_hardware_of_its_manifest(cluster: Cluster) -> None:
    """Tables, clocks, processors and every device; and a reboot is the end of the instance that wants it so."""
    manifest = vmi("laden")
    domain = manifest["spec"]["domain"]
    domain["resources"]["requests"]["memory"] = "128Mi"
    domain |= DOMAIN
    domain["devices"] |= DEVICES
    await cluster.apply(manifest)
    machine = Machine(cluster, "laden")
    await machine.console_shows("laden login:", within_s=90)
    await _check(machine, *QUESTIONS)
    rtc = await machine.ssh("cat /sys/class/rtc/rtc0/since_epoch")
    assert abs(int(rtc.stdout) - time.time() - AHEAD_S) < 60
    assert len((await qemu_of(machine)).io_threads) == 2
    assert any("swtpm" in command for command in (await machine.processes()).values())
    # The guest is gone before it has answered.
    await machine.ssh("reboot", check=False)
    await cluster.until(
        "vmi", "laden", phase_is("Succeeded"), within_s=40, what="the reboot is its end"
    )


async def test_a_guest_under_uefi(cluster: Cluster) -> None:
    """It is started from its disk by the firmware, and finds virtio devices as of before version 1.0."""
    manifest = vmi("uefi")
    spec = manifest["spec"]
    spec["domain"]["resources"]["requests"]["memory"] = "256Mi"
    spec["domain"]["firmware"] = {"bootloader": {"efi": {"secureBoot": False}}}
    spec["domain"]["devices"]["useVirtioTransitional"] = True
    spec["volumes"][0]["containerDisk"]["image"] = "podvisor/guest-amd64-bench:devel"
    await cluster.apply(manifest)
    machine = Machine(cluster, "uefi")
    await machine.console_shows("uefi login:", within_s=150)
    await _check(
        machine,
        ("firmware", "cat /sys/firmware/efi/fw_platform_size", "64"),
        ("a disk", "cat $(readlink -f /sys/block/vda/device)/../device", "0x1001"),
    )


async def test_a_kernel_out_of_an_image(cluster: Cluster) -> None:
    """It is started with the arguments of the manifest, and the machine's only disk holds no system."""
    manifest = vmi("kernel")
    spec = manifest["spec"]
    spec["domain"]["firmware"] = {
        "kernelBoot": {
            "kernelArgs": "console=ttyS0,115200 quiet mitigations=off podvisor.mark=7",
            "container": {
                "image": "podvisor/guest-kernel:devel",
                "kernelPath": "/boot/vmlinuz",
                "initrdPath": "/boot/initrd",
            },
        }
    }
    del spec["volumes"][0], spec["domain"]["devices"]["disks"][0]
    with_disk(manifest, "data", {"emptyDisk": {"capacity": "16Mi"}}, {"disk": {"bus": "virtio"}})
    await cluster.apply(manifest)
    machine = Machine(cluster, "kernel")
    await machine.console_shows("kernel login:", within_s=90)
    said = (await machine.ssh("cat /proc/cmdline")).stdout
    assert "podvisor.mark=7" in said.split()


async def test_a_kernel_that_is_not_in_its_image(cluster: Cluster) -> None:
    """The instance waits, and says which file there is none of."""
    manifest = vmi("lost")
    boot = {"image": "podvisor/guest-kernel:devel", "kernelPath": "/boot/other"}
    manifest["spec"]["domain"]["firmware"] = {"kernelBoot": {"container": boot}}
    await cluster.apply(manifest)

    def says_why(state: Json | None) -> bool:
        conditions = (state or {}).get("status", {}).get("conditions", [])
        return any(
            each.get("reason") == "InvalidDisk" and "/boot/other" in each.get("message", "")
            for each in conditions
        )

    await cluster.until("vmi", "lost", says_why, within_s=60, what="the file is named")
