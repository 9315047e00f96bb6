"""Clocks, firmware, features and devices: what is refused, and the field that says so; what is filled in."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.admitted import defaulted, instance
from tests.unit.api.machines import Json, changed, is_refused

DOMAIN = "domain"
DEVICES = "domain/devices"
KERNEL = {"image": "demo/kernel:1", "kernelPath": "/boot/vmlinuz"}
TABLET = {"name": "a"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("domain/clock", {"utc": {"offsetSeconds": 3600}, "timer": {"hpet": {"present": False}}}),
        ("domain/clock", {"timezone": "America/Argentina/Buenos_Aires"}),
        (
            "domain/features",
            {"acpi": {}, "apic": {"endOfInterrupt": True}, "kvm": {"hidden": True}},
        ),
        ("domain/features", {"hyperv": {"relaxed": {}, "spinlocks": {"spinlocks": 8191}}}),
        ("domain/features", {"hyperv": {"evmcs": {}, "synictimer": {}}}),
        ("domain/features", {"hypervPassthrough": {"enabled": True}}),
        ("domain/chassis", {"manufacturer": "Acme", "sku": "1"}),
        ("domain/firmware", {"bootloader": {"bios": {"useSerial": True}}}),
        ("domain/firmware", {"bootloader": {"efi": {"secureBoot": False}}}),
        ("domain/firmware", {"kernelBoot": {"kernelArgs": "quiet", "container": KERNEL}}),
        ("domain/rebootPolicy", "Terminate"),
        ("domain/ioThreadsPolicy", "auto"),
        ("domain/cpu", {"features": [{"name": "vmx", "policy": "require"}, {"name": "aes"}]}),
        ("domain/memory", {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}),
        ("domain/resources/overcommitGuestOverhead", True),
        (f"{DEVICES}/rng", {}),
        (f"{DEVICES}/watchdog", {"name": "dog", "i6300esb": {"action": "poweroff"}}),
        (f"{DEVICES}/sound", {"name": "card", "model": "ac97"}),
        (f"{DEVICES}/inputs", [TABLET, {"name": "b", "bus": "virtio", "type": "tablet"}]),
        (f"{DEVICES}/video", {"type": "bochs"}),
        (f"{DEVICES}/panicDevices", [{"model": "isa"}, {"model": "pvpanic"}]),
        (f"{DEVICES}/tpm", {}),
    ],
)
def test_what_is_admitted(path: str, value: Any) -> None:
    obj = changed(path, value)
    if path == "domain/memory":
        obj["spec"]["template"]["spec"]["domain"]["resources"]["requests"]["memory"] = "64Mi"
    assert validate_virtual_machine(obj) == []


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("domain/clock", {"utc": {}, "timezone": "UTC"}, "domain.clock", "not both"),
        ("domain/clock", {"timezone": "../x"}, "domain.clock.timezone", "is not a time zone"),
        (
            "domain/clock",
            {"utc": {"offsetSeconds": 1 << 40}},
            "domain.clock.utc.offsetSeconds",
            "must be between",
        ),
        (
            "domain/clock",
            {"timer": {"hpet": {"tickPolicy": "x"}}},
            "domain.clock.timer.hpet.tickPolicy",
            "must be one of: delay, catchup, merge, discard",
        ),
        (
            "domain/clock",
            {"timer": {"pit": {"tickPolicy": "merge"}}},
            "domain.clock.timer.pit.tickPolicy",
            "must be one of: delay, catchup, discard",
        ),
        (
            "domain/clock",
            {"timer": {"rtc": {"track": "x"}}},
            "domain.clock.timer.rtc.track",
            "must be one of: guest, wall",
        ),
        (
            "domain/features",
            {"hyperv": {}, "hypervPassthrough": {"enabled": True}},
            "domain.features.hypervPassthrough.enabled",
            "cannot be on with hyperv",
        ),
        (
            "domain/features",
            {"hyperv": {"synic": {}, "vpindex": {"enabled": False}}},
            "domain.features.hyperv.vpindex.enabled",
            "which synic cannot do without",
        ),
        (
            "domain/features",
            {"hyperv": {"spinlocks": {"spinlocks": 1}}},
            "domain.features.hyperv.spinlocks.spinlocks",
            "between 4095 and",
        ),
        (
            "domain/features",
            {"hyperv": {"vendorid": {}}},
            "domain.features.hyperv.vendorid.vendorid",
            "1 to 12",
        ),
        ("domain/chassis", {"sku": "é"}, "domain.chassis.sku", "printable ASCII"),
        (
            "domain/firmware",
            {"bootloader": {"efi": {}}},
            "domain.firmware.bootloader.efi.secureBoot",
            "needs domain.features.smm",
        ),
        (
            "domain/firmware",
            {"bootloader": {"efi": {"secureBoot": False}, "bios": {}}},
            "domain.firmware.bootloader",
            "not both",
        ),
        (
            "domain/firmware",
            {"bootloader": {"efi": {"secureBoot": False, "persistent": True}}},
            "domain.firmware.bootloader.efi.persistent",
            "is not supported yet",
        ),
        (
            "domain/firmware",
            {"kernelBoot": {"kernelArgs": "x"}},
            "domain.firmware.kernelBoot.container",
            "is required",
        ),
        (
            "domain/firmware",
            {"kernelBoot": {"container": {"image": "A B", "kernelPath": "/k"}}},
            "domain.firmware.kernelBoot.container.image",
            "not a valid image reference",
        ),
        (
            "domain/firmware",
            {"kernelBoot": {"container": {"image": "a", "initrdPath": "/i"}}},
            "domain.firmware.kernelBoot.container.kernelPath",
            "is required",
        ),
        (
            "domain/firmware",
            {"kernelBoot": {"container": KERNEL | {"initrdPath": "/../i"}}},
            "domain.firmware.kernelBoot.container.initrdPath",
            "must be an absolute path",
        ),
        (
            "domain/firmware",
            {"kernelBoot": {"kernelArgs": "x" * 2049, "container": KERNEL}},
            "domain.firmware.kernelBoot.kernelArgs",
            "at most 2048",
        ),
        ("domain/rebootPolicy", "Never", "domain.rebootPolicy", "must be one of: Reboot"),
        ("domain/ioThreadsPolicy", "x", "domain.ioThreadsPolicy", "must be one of: shared"),
        (
            "domain/ioThreadsPolicy",
            "supplementalPool",
            "domain.ioThreads.supplementalPoolThreadCount",
            "must be between 1 and 256",
        ),
        (
            "domain/ioThreads",
            {"supplementalPoolThreadCount": 2},
            "domain.ioThreads.supplementalPoolThreadCount",
            "needs ioThreadsPolicy supplementalPool",
        ),
        (
            "domain/cpu",
            {"features": [{"name": "a b"}]},
            "domain.cpu.features[0].name",
            "is not the name",
        ),
        (
            "domain/cpu",
            {"features": [{"name": "a"}, {"name": "a"}]},
            "domain.cpu.features[1].name",
            "there already",
        ),
        (
            "domain/cpu",
            {"features": [{"name": "a", "policy": "x"}]},
            "domain.cpu.features[0].policy",
            "must be one of: force, require, optional, disable, forbid",
        ),
        (
            "domain/memory",
            {"guest": "64M", "hugepages": {"pageSize": "2Mi"}},
            "domain.memory.hugepages.pageSize",
            "is not a multiple of it",
        ),
        (
            "domain/memory",
            {"guest": "64Mi", "hugepages": {"pageSize": "3Mi"}},
            "domain.memory.hugepages.pageSize",
            "must be one of: 2Mi, 1Gi",
        ),
        (f"{DEVICES}/watchdog", {}, "domain.devices.watchdog.i6300esb", "is required"),
        (
            f"{DEVICES}/watchdog",
            {"i6300esb": {"action": "x"}},
            "domain.devices.watchdog.i6300esb.action",
            "must be one of: poweroff, shutdown, reset",
        ),
        (
            f"{DEVICES}/sound",
            {"name": "", "model": "ich9"},
            "domain.devices.sound.name",
            "must name the device",
        ),
        (
            f"{DEVICES}/sound",
            {"name": "a", "model": "x"},
            "domain.devices.sound.model",
            "must be one of: ich9, ac97",
        ),
        (f"{DEVICES}/inputs", [TABLET, TABLET], "domain.devices.inputs[1].name", "same Name"),
        (
            f"{DEVICES}/inputs",
            [{"name": "a b"}],
            "domain.devices.inputs[0].name",
            "letters, digits",
        ),
        (
            f"{DEVICES}/inputs",
            [{"name": "a", "bus": "ps2"}],
            "domain.devices.inputs[0].bus",
            "must be one of: usb, virtio",
        ),
        (
            f"{DEVICES}/inputs",
            [{"name": "a", "type": "mouse"}],
            "domain.devices.inputs[0].type",
            "must be one of: tablet",
        ),
        (
            f"{DEVICES}/inputs",
            [{"name": f"i{number}"} for number in range(17)],
            "domain.devices.inputs",
            "there can be 16",
        ),
        (f"{DEVICES}/video", {"type": "qxl"}, "domain.devices.video.type", "must be one of: vga"),
        (
            f"{DEVICES}/panicDevices",
            [{"model": "isa"}, {}],
            "domain.devices.panicDevices[1].model",
            "there already",
        ),
        (
            f"{DEVICES}/panicDevices",
            [{"model": "s390"}],
            "domain.devices.panicDevices[0].model",
            "must be one of: isa, hyperv, pvpanic",
        ),
        (
            f"{DEVICES}/tpm",
            {"persistent": True},
            "domain.devices.tpm.persistent",
            "is not supported yet",
        ),
    ],
)
def test_what_is_refused(path: str, value: Any, field: str, message: str) -> None:
    is_refused(path, value, field, message)


def test_a_video_card_needs_graphics() -> None:
    obj = changed(f"{DEVICES}/video", {"type": "vga"})
    devices = obj["spec"]["template"]["spec"]["domain"]["devices"]
    devices["autoattachGraphicsDevice"] = False
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.domain.devices.video"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"clock": {}}, {"clock": {"utc": {}}}),
        ({"clock": {"timezone": "UTC"}}, {"clock": {"timezone": "UTC"}}),
        (
            {"clock": {"utc": {}, "timer": {"hpet": {"present": False}, "rtc": {}}}},
            {
                "clock": {
                    "utc": {},
                    "timer": {"hpet": {"present": False}, "rtc": {"present": True}},
                }
            },
        ),
        (
            {"features": {"acpi": {}, "smm": {"enabled": False}}},
            {"features": {"acpi": {"enabled": True}, "smm": {"enabled": False}}},
        ),
        (
            {"features": {"hyperv": {"spinlocks": {}, "synictimer": {}}}},
            {
                "features": {
                    "hyperv": {
                        "spinlocks": {"enabled": True, "spinlocks": 4096},
                        "synictimer": {"enabled": True},
                        "synic": {"enabled": True},
                        "vpindex": {"enabled": True},
                    }
                },
                "clock": {"utc": {}, "timer": {"hyperv": {"present": True}}},
            },
        ),
        (
            {"features": {"hyperv": {"evmcs": {}}}, "cpu": {"features": [{"name": "aes"}]}},
            {
                "cpu": {
                    "sockets": 1,
                    "cores": 1,
                    "threads": 1,
                    "features": [{"name": "aes"}, {"name": "vmx", "policy": "require"}],
                }
            },
        ),
        (
            {
                "features": {"hyperv": {"synictimer": {}, "evmcs": {"enabled": False}}},
                "clock": {"timer": {"hyperv": {"present": False}}},
            },
            {
                "clock": {"utc": {}, "timer": {"hyperv": {"present": False}}},
                "cpu": {"sockets": 1, "cores": 1, "threads": 1},
            },
        ),
        (
            {"memory": {"hugepages": {"pageSize": "2Mi"}}},
            {"memory": {"hugepages": {"pageSize": "2Mi"}, "guest": "2Mi"}},
        ),
        ({"features": {"hyperv": "nonsense"}}, {"features": {"hyperv": "nonsense"}}),
    ],
)
def test_what_is_filled_into_the_board(given: Json, expected: Json) -> None:
    domain = defaulted(instance(domain={"devices": {}, **given}))["spec"]["domain"]
    assert {key: domain[key] for key in expected} == expected


def test_what_is_filled_into_devices() -> None:
    given = {"watchdog": {"i6300esb": {}}, "inputs": [{"name": "a"}, "nonsense"], "rng": {}}
    devices = defaulted(instance(domain={"devices": given}))["spec"]["domain"]["devices"]
    assert {key: devices[key] for key in given} == {
        "watchdog": {"i6300esb": {"action": "reset"}},
        "inputs": [{"name": "a", "bus": "usb", "type": "tablet"}, "nonsense"],
        "rng": {},
    }


def test_the_kernels_image_is_pulled_as_others_are() -> None:
    def policy(image: str) -> str:
        boot = {"kernelBoot": {"container": {"image": image, "kernelPath": "/k"}}}
        made = defaulted(instance(domain={"devices": {}, "firmware": boot}))
        return str(made["spec"]["domain"]["firmware"]["kernelBoot"]["container"]["imagePullPolicy"])

    assert policy("demo/kernel") == "Always"
    assert policy("demo/kernel:1") == "IfNotPresent"
