"""Rules that the tables of bad values beside this one do not reach, each with a value that breaks it alone."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import changed
from tests.unit.controller.builders import situations

DISKS = "domain.devices.disks"
NICS = "domain.devices.interfaces"
NIC = {"name": "default", "masquerade": {}}
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    situations(
        ("name of a disk", "domain/devices/disks/1/name", "A b", f"{DISKS}[1].name", "lower-case"),
        ("name of a volume", "volumes/1/name", "A b", "volumes[1].name", "lower-case"),
        (
            "boot order that no emulator counts to",
            "domain/devices/disks/0/bootOrder",
            2**31,
            f"{DISKS}[0].bootOrder",
            "less than or equal to 2147483647",
        ),
        (
            "control characters in a path",
            "volumes/0/containerDisk/path",
            "/disk/a\0b",
            "volumes[0].containerDisk.path",
            "control characters",
        ),
        (
            "board with more than a name",
            "domain/machine/type",
            "q35 -device x",
            "domain.machine.type",
            "is not supported: q35 -device x",
        ),
        (
            "two sources of network data",
            "volumes/1/cloudInitNoCloud",
            {"networkData": "x", "networkDataBase64": "eA=="},
            "volumes[1].cloudInitNoCloud",
            "only one networkdatasource",
        ),
        (
            "second pod network",
            "networks",
            [{"name": "default", "pod": {}}, {"name": "other", "pod": {}}],
            "networks[1]",
            "is a second pod network",
        ),
        (
            "two networks of one name",
            "networks",
            [{"name": "default", "pod": {}}] * 2,
            "networks[1].name",
            "names of networks must differ",
        ),
        (
            "two interfaces to one network",
            "domain/devices/interfaces",
            [NIC, NIC],
            f"{NICS}[1].name",
            "only one interface can be connected",
        ),
        (
            "name of a port",
            "domain/devices/interfaces/0/ports",
            [{"port": 1, "name": "A b"}],
            f"{NICS}[0].ports[0].name",
            "is not a valid name of a port",
        ),
        (
            "guest larger than its pod",
            "domain",
            {
                "resources": {"limits": {"memory": "64M"}},
                "memory": {"guest": "65M"},
                "devices": {"interfaces": [NIC]},
            },
            "domain.memory.guest",
            "must be equal to or less than the memory limit",
        ),
        (
            "key that no label has",
            "topologySpreadConstraints",
            [SPREAD | {"labelSelector": {}, "matchLabelKeys": ["a b"]}],
            "topologySpreadConstraints[0].matchLabelKeys[0]",
            "is not the key of a label",
        ),
    ),
)
def test_broken_rule(path: str, value: Any, field: str, message: str) -> None:
    by_field = {c.field: c.message for c in validate_virtual_machine(changed(path, value))}
    full = f"spec.template.spec.{field}"
    assert full in by_field
    assert message in by_field[full]
