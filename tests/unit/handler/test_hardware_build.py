"""What a manifest says of the board and of devices: VirtualMachineInstance → DomainSpec."""

from typing import Any

import pytest
from google.protobuf import json_format
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.api.v1 import names
from podvisor_handler.launchers.state import HARDWARE_SINCE
from podvisor_handler.vmi.build import FIELDS_SINCE, build_domain
from podvisor_handler.vmi.errors import SpecRefused

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.networks import WIRED

VOLUMES = [{"name": name, "containerDisk": {"image": "demo"}} for name in ("a", "b", "c")]
VIRTIO = {"disk": {"bus": "virtio"}}
DISKS = [
    {"name": "a", **VIRTIO},
    {"name": "b", "dedicatedIOThread": True, **VIRTIO},
    {"name": "c", **VIRTIO},
]


def built(*, annotations: dict[str, str] | None = None, **domain: Any) -> pb.DomainSpec:
    """The machine with those fields in its domain."""
    body = {"memory": {"guest": "64M"}, "devices": {}} | domain
    machine = vmi(spec={"domain": body, "volumes": VOLUMES})
    return build_domain(machine, pod(annotations=annotations), WIRED)


def hardware(spec: pb.DomainSpec) -> dict[str, Any]:
    """What of it not every launcher knows."""
    used = [
        field.name for field, _ in spec.ListFields() if field.number in FIELDS_SINCE[HARDWARE_SINCE]
    ]
    shown = json_format.MessageToDict(spec, preserving_proto_field_name=True)
    return {name: shown[name] for name in used}


def test_a_machine_that_asks_for_nothing_has_nothing_of_it() -> None:
    assert hardware(built()) == {}


def test_every_field_is_of_one_version_of_the_contract() -> None:
    """Who adds a field says from which version on a launcher knows it, or one of an earlier release would ignore it."""
    assigned = [number for fields in FIELDS_SINCE.values() for number in fields]
    assert sorted(assigned) == sorted(pb.DomainSpec.DESCRIPTOR.fields_by_number)


def hyperv(**given: Any) -> dict[str, Any]:
    return {"features": {"hyperv": given}}


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"clock": {"utc": {}}}, {}),
        ({"clock": {"utc": {"offsetSeconds": -60}}}, {"clock": {"offset_s": "-60"}}),
        ({"clock": {"timezone": "Europe/Paris"}}, {"clock": {"timezone": "Europe/Paris"}}),
        (
            {
                "clock": {
                    "timer": {
                        "hpet": {"present": False},
                        "pit": {"tickPolicy": "delay"},
                        "rtc": {"tickPolicy": "catchup", "track": "guest"},
                        "kvm": {},
                        "hyperv": {"present": True},
                    }
                }
            },
            {
                "clock": {
                    "timers": [
                        {"name": "hpet", "absent": True},
                        {"name": "pit", "tick_policy": "delay"},
                        {"name": "rtc", "tick_policy": "catchup", "track": "guest"},
                        {"name": "kvmclock"},
                        {"name": "hypervclock"},
                    ]
                }
            },
        ),
        ({"features": {"acpi": {}, "apic": {}}}, {}),
        ({"features": {"hyperv": {}}, "chassis": {}}, {}),
        (
            {"features": {"acpi": {"enabled": False}, "apic": {"enabled": False}}},
            {"features": {"without_acpi": True, "without_apic": True}},
        ),
        (
            {
                "features": {
                    "apic": {"endOfInterrupt": False},
                    "smm": {},
                    "pvspinlock": {"enabled": False},
                    "kvm": {"hidden": True},
                }
            },
            {
                "features": {
                    "apic_end_of_interrupt": "SWITCH_OFF",
                    "smm": "SWITCH_ON",
                    "pv_spinlock": "SWITCH_OFF",
                    "kvm_hidden": True,
                }
            },
        ),
        (
            {"features": {"hypervPassthrough": {"enabled": True}}},
            {"features": {"hyperv": {"passthrough": True}}},
        ),
        (
            hyperv(
                spinlocks={},
                vendorid={"vendorid": "me"},
                synictimer={"direct": {}},
                reset={"enabled": False},
            ),
            {
                "features": {
                    "hyperv": {
                        "features": [
                            {"name": "spinlocks", "retries": 4096},
                            {"name": "stimer", "direct": True},
                            {"name": "reset", "off": True},
                            {"name": "vendor_id", "vendor_id": "me"},
                            {"name": "synic"},
                            {"name": "vpindex"},
                        ]
                    }
                },
                "clock": {"timers": [{"name": "hypervclock"}]},
            },
        ),
        (
            hyperv(evmcs={}),
            {
                "features": {"hyperv": {"features": [{"name": "evmcs"}, {"name": "vapic"}]}},
                "cpu_features": [{"name": "vmx", "policy": "require"}],
            },
        ),
        ({"chassis": {"asset": "A"}}, {"chassis": {"asset": "A"}}),
        ({"rebootPolicy": "Terminate"}, {"ends_on_reboot": True}),
        ({"rebootPolicy": "Reboot"}, {}),
        ({"firmware": {"bootloader": {"bios": {}}}}, {}),
        (
            {"firmware": {"bootloader": {"bios": {"useSerial": True}}}},
            {"bootloader": {"bios_serial": True}},
        ),
        (
            {"firmware": {"bootloader": {"efi": {"secureBoot": False}}}},
            {"bootloader": {"efi": {}}},
        ),
        (
            {"firmware": {"bootloader": {"efi": {}}}, "features": {"smm": {}}},
            {"features": {"smm": "SWITCH_ON"}, "bootloader": {"efi": {"secure_boot": True}}},
        ),
        (
            {
                "firmware": {
                    "kernelBoot": {
                        "kernelArgs": "quiet",
                        "container": {"image": "k", "kernelPath": "/k", "initrdPath": "/i"},
                    }
                }
            },
            {
                "kernel_boot": {
                    "image_root": "/run/podvisor/images/_kernel",
                    "kernel_path": "/k",
                    "initrd_path": "/i",
                    "kernel_args": "quiet",
                }
            },
        ),
        (
            {"cpu": {"features": [{"name": "aes"}, {"name": "svm", "policy": "disable"}]}},
            {
                "cpu_features": [
                    {"name": "aes", "policy": "require"},
                    {"name": "svm", "policy": "disable"},
                ]
            },
        ),
        (
            {"memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}},
            {"hugepage_bytes": str(2 << 20)},
        ),
        ({"memory": {"hugepages": {"pageSize": "2Mi"}}}, {"hugepage_bytes": str(2 << 20)}),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else None,
)
def test_board(domain: dict[str, Any], expected: dict[str, Any]) -> None:
    assert hardware(built(**domain)) == expected


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ({"rng": {}}, {"rng": True}),
        ({"tpm": {}}, {"tpm": True}),
        ({"tpm": {"enabled": False}}, {}),
        ({"watchdog": {"i6300esb": {}}}, {"watchdog": {"action": "reset"}}),
        (
            {"watchdog": {"name": "dog", "i6300esb": {"action": "poweroff"}}},
            {"watchdog": {"name": "dog", "action": "poweroff"}},
        ),
        ({"sound": {"name": "s"}}, {"sound": {"name": "s", "model": "ich9"}}),
        (
            {"inputs": [{"name": "i", "bus": "virtio"}], "autoattachInputDevice": True},
            {"inputs": [{"name": "i", "bus": "virtio", "type": "tablet"}]},
        ),
        (
            {"autoattachInputDevice": True},
            {"inputs": [{"name": "default-0", "bus": "usb", "type": "tablet"}]},
        ),
        ({"autoattachMemBalloon": True}, {"memory_balloon": {"stats_period_s": 10}}),
        ({"autoattachMemBalloon": False}, {}),
        ({"video": {"type": "virtio"}}, {"video_model": "virtio"}),
        ({"video": {"type": "virtio"}, "autoattachGraphicsDevice": False}, {}),
        (
            {"panicDevices": [{"model": "pvpanic"}, {}]},
            {"panic_models": ["pvpanic", "isa"]},
        ),
        ({"blockMultiQueue": True}, {"block_multi_queue": True}),
        ({"useVirtioTransitional": True}, {"virtio_transitional": True}),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else None,
)
def test_devices(devices: dict[str, Any], expected: dict[str, Any]) -> None:
    assert hardware(built(devices=devices)) == expected


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"ioThreadsPolicy": "shared"}, {"io_threads": {"shared": 1}}),
        ({"ioThreadsPolicy": "auto"}, {"io_threads": {"shared": 1}}),
        ({"ioThreadsPolicy": "auto", "cpu": {"cores": 4}}, {"io_threads": {"shared": 2}}),
        (
            {
                "ioThreadsPolicy": "supplementalPool",
                "ioThreads": {"supplementalPoolThreadCount": 3},
            },
            {"io_threads": {"pool": 3}},
        ),
        ({"ioThreadsPolicy": "shared", "devices": {}}, {}),
    ],
)
def test_threads_of_disks(domain: dict[str, Any], expected: dict[str, Any]) -> None:
    assert hardware(built(**({"devices": {"disks": DISKS}} | domain))) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('{"manufacturer":"Acme","sku":"1"}', {"system": {"manufacturer": "Acme", "sku": "1"}}),
        ('{"family":"a\\nb' + "x" * 300 + '"}', {"system": {"family": "ab" + "x" * 254}}),
        ("{}", {}),
        ("nonsense", {}),
        ('{"sku": 1}', {}),
    ],
)
def test_the_clusters_tables(said: str, expected: dict[str, Any]) -> None:
    assert hardware(built(annotations={names.SMBIOS_ANNOTATION: said})) == expected


@pytest.mark.parametrize(
    ("said", "period_s"), [("0", 0), ("60", 60), ("-1", 10), ("9" * 99, 86400)]
)
def test_the_clusters_balloon_period(said: str, period_s: int) -> None:
    annotations = {names.BALLOON_PERIOD_ANNOTATION: said}
    spec = built(annotations=annotations, devices={"autoattachMemBalloon": True})
    assert spec.HasField("memory_balloon")
    assert spec.memory_balloon.stats_period_s == period_s


@pytest.mark.parametrize(
    ("domain", "field"),
    [
        ({"firmware": {"bootloader": {"efi": {}}}}, "features.smm"),
        ({"firmware": {"kernelBoot": {"kernelArgs": "x"}}}, "kernelBoot"),
        ({"memory": {"guest": "1Gi", "hugepages": {"pageSize": "x"}}}, "pageSize"),
        ({"memory": {"guest": "1Gi", "hugepages": {"pageSize": "0"}}}, "pageSize"),
        ({"devices": {"watchdog": {}}}, "watchdog"),
        ({"devices": {"disks": DISKS}, "ioThreadsPolicy": "x"}, "ioThreadsPolicy"),
        (
            {"devices": {"disks": DISKS}, "ioThreadsPolicy": "supplementalPool"},
            "supplementalPoolThreadCount",
        ),
    ],
)
def test_what_admission_should_have_refused(domain: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecRefused, match=field):
        built(**domain)
