"""Which volumes a launcher's user is let at."""

from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_handler.storage.plan import Access, Device, Image, accesses_of

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
