"""Which volumes a launcher's user is let at."""

from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core
from podvisor_handler.storage.plan import (
    Access,
    Device,
    HandOver,
    Image,
    accesses_of,
    hand_over_of,
)

from tests.unit.handler.builders import HOLDER_UID, holder, holder_manifest

FILES = {"path": "/run/podvisor/volumes/d", "file": "disk.img"}
DEVICE = {"path": "/dev/podvisor/d"}


def machine(volume: dict[str, Any] | None, *, read_only: bool = False) -> domain_pb2.DomainSpec:
    disk = domain_pb2.DiskSpec(name="d", read_only=read_only)
    if volume is not None:
        disk.volume.CopyFrom(domain_pb2.VolumeDiskSource(**volume))
    return domain_pb2.DomainSpec(disks=[disk])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(machine(None), [], id="no persistent volume"),
        pytest.param(
            machine({**FILES, "create": True}),
            [Image("d", "/run/podvisor/volumes/d", "disk.img", create=True)],
            id="written to",
        ),
        pytest.param(
            machine(FILES),
            [Image("d", "/run/podvisor/volumes/d", "disk.img", create=False)],
            id="written to where it is",
        ),
        pytest.param(machine(FILES, read_only=True), [], id="read"),
        pytest.param(machine({**FILES, "ephemeral": True}), [], id="read under an overlay"),
        pytest.param(
            machine(DEVICE), [Device("d", "/dev/podvisor/d", read_only=False)], id="device"
        ),
        pytest.param(
            machine(DEVICE, read_only=True),
            [Device("d", "/dev/podvisor/d", read_only=True)],
            id="device, read",
        ),
        pytest.param(
            machine({**DEVICE, "ephemeral": True}),
            [Device("d", "/dev/podvisor/d", read_only=True)],
            id="device, read under an overlay",
        ),
        pytest.param(machine({"handed_over": True}), [], id="another pod holds it"),
    ],
)
def test_accesses(spec: domain_pb2.DomainSpec, expected: list[Access]) -> None:
    assert list(accesses_of(spec)) == expected


HANDED_OVER = {"handed_over": True, "capacity_bytes": 9}
HELD_IMAGE = Image("d", "/run/podvisor/volumes/d", "disk.img", create=True)
HELD_DEVICE = Device("d", "/dev/podvisor/d", read_only=False)


@pytest.mark.parametrize(
    ("spec", "holds_device", "expected"),
    [
        pytest.param(
            machine({**HANDED_OVER, "file": "disk.img", "create": True}),
            False,
            HandOver(HELD_IMAGE, False, 9, HOLDER_UID, 7),
            id="files",
        ),
        pytest.param(
            machine(HANDED_OVER), True, HandOver(HELD_DEVICE, False, 9, HOLDER_UID, 7), id="device"
        ),
        pytest.param(
            machine(HANDED_OVER, read_only=True),
            True,
            HandOver(Device("d", "/dev/podvisor/d", read_only=True), True, 9, HOLDER_UID, 7),
            id="device, read",
        ),
        pytest.param(
            machine({**HANDED_OVER, "file": "disk.img"}),
            True,
            None,
            id="files were said of a device",
        ),
        pytest.param(machine(HANDED_OVER), False, None, id="a device was said of files"),
        pytest.param(machine(FILES), False, None, id="the launcher has it"),
        pytest.param(machine(None), True, None, id="an empty drive"),
    ],
)
def test_hand_overs(
    spec: domain_pb2.DomainSpec, holds_device: bool, expected: HandOver | None
) -> None:
    found = hand_over_of(spec.disks[0], holder(volume="d", is_device=holds_device), 7)
    assert found == expected


ROOT = {"runAsUser": 0, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
SECOND = {"name": "second", "securityContext": ROOT}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("containers", 0, "securityContext", "runAsUser"), 0),
        (("containers", 0, "securityContext", "privileged"), True),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), None),
        (("containers", 0, "securityContext", "capabilities", "drop"), ["NET_RAW"]),
        (("containers", 0, "securityContext", "capabilities", "add"), ["MKNOD"]),
        (("containers", 0, "securityContext"), None),
        (("securityContext",), None),
        (("containers", 1), SECOND),
        (("initContainers",), [SECOND]),
        (("ephemeralContainers",), [SECOND]),
        (("volumes", 0), {"name": "dev", "hostPath": {"path": "/dev"}}),
    ],
)
def test_a_pod_that_could_make_devices_holds_nothing(path: tuple[Any, ...], value: Any) -> None:
    """Anybody who may create pods may make one that looks like a holder, or change one."""
    manifest = holder_manifest(volume="d", is_device=True)
    *above, last = ("spec", *path)
    place: Any = manifest
    for step in above:
        place = place[step]
    if isinstance(place, list) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    pod = msgspec.convert(manifest, core.Pod)
    assert hand_over_of(machine(HANDED_OVER).disks[0], pod, 7) is None
