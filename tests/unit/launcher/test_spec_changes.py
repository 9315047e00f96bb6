"""What of a volume changes while its guest runs, and what waits for the next start."""

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle.spec_changes import adopt_live_fields, restart_required

from tests.unit.launcher.specs import cloud_init_disk, spec, volume_disk


def of_volume(**fields: object) -> pb.DomainSpec:
    source: dict[str, object] = {"path": "/volumes/data", "file": "disk.img"}
    volume = pb.VolumeDiskSource(**(source | fields))  # type: ignore[arg-type]
    return spec(disks=[volume_disk(volume=volume)])


@pytest.mark.parametrize(
    ("wanted", "required"),
    [
        (of_volume(capacity_bytes=2 << 20), []),
        (of_volume(create=True, tolerated_shortfall_percent=10, reserve_bytes=1), []),
        (of_volume(ephemeral=True), ["disks[data]"]),
        (of_volume(path="/volumes/other"), ["disks[data]"]),
        (spec(disks=[volume_disk(serial="S1")]), ["disks[data]"]),
    ],
)
def test_only_the_size_of_a_volume_is_live(wanted: pb.DomainSpec, required: list[str]) -> None:
    assert restart_required(of_volume(capacity_bytes=1 << 20), wanted) == required


def test_what_is_live_is_adopted() -> None:
    running = of_volume(capacity_bytes=1 << 20, create=True)
    wanted = of_volume(capacity_bytes=2 << 20)
    wanted.disks[0].serial = "S1"
    adopted = adopt_live_fields(running, wanted)
    assert adopted.disks[0].volume == wanted.disks[0].volume
    assert adopted.disks[0].serial == ""


def test_the_size_of_another_volume_is_not() -> None:
    running = of_volume(capacity_bytes=1 << 20)
    adopted = adopt_live_fields(running, of_volume(path="/volumes/x", capacity_bytes=2 << 20))
    assert adopted.disks == running.disks


def test_what_is_told_of_another_device_needs_no_restart() -> None:
    tagged = [pb.TaggedDevice(name="later", tag="front", is_interface=True)]
    before, after = (spec(disks=[cloud_init_disk(tagged_devices=each)]) for each in ([], tagged))
    assert restart_required(before, after) == []
