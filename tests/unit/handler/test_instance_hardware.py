"""What the status tells of a guest's hardware, and how much of it a launcher decides."""

from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi.status import needs_write, written_out

from tests.unit.handler.builders import vmi
from tests.unit.handler.observations import LATER, observed, said

VOLUMES: dict[str, Any] = {
    "volumes": [
        {"name": "root", "containerDisk": {"image": "registry/disk"}},
        {"name": "seed", "cloudInitNoCloud": {"userData": "#cloud-config"}},
    ]
}
DISKS = [
    domain_pb2.DiskReport(name="root", target="vda", capacity_bytes=1 << 30),
    domain_pb2.DiskReport(name="seed", target="vdb", capacity_bytes=1 << 20),
]
TOLD = [
    v1.VolumeStatus(name="root", target="vda", size=1 << 30),
    v1.VolumeStatus(name="seed", target="vdb", size=1 << 20),
]


def machine(**arguments: Any) -> v1.VirtualMachineInstance:
    return vmi(spec=VOLUMES, **arguments)


def test_the_interface() -> None:
    (interface,) = said(observed()).interfaces or [v1.NetworkInterfaceStatus()]
    assert (interface.queue_count, interface.link_state) == (1, "up")
    assert (interface.pod_interface_name, interface.info_source) == ("eth0", "domain")


def test_the_memory() -> None:
    memory = said(observed()).memory
    assert memory == v1.MemoryStatus(
        guest_at_boot="62500Ki",
        guest_current="62500Ki",
        guest_requested="62500Ki",
        memory_overhead="146Mi",
    )


@pytest.mark.parametrize(
    ("domain", "sockets", "cores", "threads"),
    [
        ({}, 1, 1, 1),
        ({"cpu": {"cores": 2, "threads": 2}}, 1, 2, 2),
        ({"resources": {"limits": {"cpu": "2500m"}}}, 3, 1, 1),
    ],
    ids=["nothing is said", "as given", "as many sockets as processors are requested"],
)
def test_the_processors(domain: dict[str, Any], sockets: int, cores: int, threads: int) -> None:
    spec = {"domain": {"memory": {"guest": "64M"}, "devices": {}, **domain}}
    topology = said(observed(machine=vmi(spec=spec))).current_cpu_topology
    assert topology == v1.CPUTopology(sockets=sockets, cores=cores, threads=threads)


def test_the_volumes_are_told_with_the_first_word() -> None:
    status = said(observed(machine=machine(), disks=DISKS))
    assert status.phase == "Running"
    assert status.volume_status == TOLD


def test_a_machine_without_volumes_has_none_to_tell_of() -> None:
    assert said(observed(disks=DISKS)).volume_status is None


def test_a_launcher_of_an_earlier_release_knows_no_devices() -> None:
    status = said(observed(machine=machine()))
    assert status.volume_status == [v1.VolumeStatus(name="root"), v1.VolumeStatus(name="seed")]


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ({"name": "other", "target": "vda"}, {"name": "root"}),
        ({"name": "root", "target": "../vda"}, {"name": "root"}),
        (
            {"name": "root", "target": "vda", "capacity_bytes": 1 << 63},
            {"name": "root", "target": "vda"},
        ),
        (
            {"name": "root", "target": "vda", "capacity_bytes": 0},
            {"name": "root", "target": "vda"},
        ),
    ],
    ids=["of no volume", "no device", "larger than the API can say", "not known"],
)
def test_a_launcher_is_believed_within_bounds(
    disk: dict[str, Any], expected: dict[str, Any]
) -> None:
    status = said(observed(machine=machine(), disks=[domain_pb2.DiskReport(**disk)]))
    assert (status.volume_status or [])[0] == v1.VolumeStatus(**expected)


def test_what_is_known_stays_while_nobody_tells_of_it() -> None:
    """A silent launcher takes back no device, and neither does the guest's end."""
    first = said(observed(machine=machine(), disks=DISKS))
    running = machine(phase="Running", status=_content(first))
    silent = said(
        observed(None, machine=running, connection=Connection.UNRESPONSIVE, silent_for_s=11), LATER
    )
    ended = said(
        observed(
            domain_pb2.DOMAIN_STATE_ENDED,
            machine=running,
            reason=domain_pb2.DOMAIN_REASON_SHUTDOWN,
        )
    )
    for status in (silent, ended):
        assert status.volume_status == TOLD
        assert status.current_cpu_topology == first.current_cpu_topology
        assert status.memory == first.memory


def test_a_device_that_becomes_known_is_worth_a_write() -> None:
    first = said(observed(machine=machine()))
    again = said(observed(machine=machine(status=_content(first)), disks=DISKS))
    assert needs_write(machine(status=_content(first)).status, again)


def test_a_size_that_cannot_be_told_at_the_moment_stays_as_it_was_said() -> None:
    first = said(observed(machine=machine(), disks=DISKS))
    known = machine(status=_content(first))
    unsized = [domain_pb2.DiskReport(name=disk.name, target=disk.target) for disk in DISKS]
    assert said(observed(machine=known, disks=unsized)).volume_status == first.volume_status
    moved = [domain_pb2.DiskReport(name=disk.name, target="vdz") for disk in DISKS]
    volumes = said(observed(machine=known, disks=moved)).volume_status or []
    assert [volume.size for volume in volumes] == [None, None]


CLAIM_INFO: dict[str, Any] = {"claimName": "c", "capacity": {"storage": "1Gi"}}


def shown(status: v1.VirtualMachineInstanceStatus, **entry: Any) -> dict[str, Any]:
    """The status as the API server shows it after the controller has said of the first volume what it knows."""
    content = _content(status)
    content["volumeStatus"][0].update({"persistentVolumeClaimInfo": CLAIM_INFO, **entry})
    return content


@pytest.mark.parametrize(
    ("state", "report"),
    [
        (domain_pb2.DOMAIN_STATE_RUNNING, {"disks": DISKS}),
        (domain_pb2.DOMAIN_STATE_RUNNING, {}),
        (domain_pb2.DOMAIN_STATE_PAUSED, {"disks": DISKS[:1]}),
        (None, {"connection": Connection.UNRESPONSIVE, "silent_for_s": 11}),
    ],
    ids=["running", "of no devices", "of one device", "silent"],
)
def test_what_the_controller_says_of_a_volume_is_neither_written_nor_a_reason_to_write(
    state: domain_pb2.DomainState.ValueType | None, report: dict[str, Any]
) -> None:
    first = said(observed(state, machine=machine(phase="Running"), **report))
    known = machine(phase="Running", status=shown(first))
    again = said(observed(state, machine=known, **report), LATER)
    assert not needs_write(known.status, again)
    assert "persistentVolumeClaimInfo" not in str(written_out(again))
    assert again.volume_status == first.volume_status


def test_what_the_controller_said_first_is_completed() -> None:
    status = {"volumeStatus": [{"name": "root", "persistentVolumeClaimInfo": CLAIM_INFO}]}
    known = machine(status=status)
    running = said(observed(machine=known, disks=DISKS))
    assert running.volume_status == TOLD
    assert needs_write(known.status, running)
    without_devices = said(observed(machine=known)).volume_status
    assert without_devices == [v1.VolumeStatus(name="root"), v1.VolumeStatus(name="seed")]


def test_what_a_guest_that_has_ended_had_is_said_without_the_controllers_words() -> None:
    first = said(observed(machine=machine(), disks=DISKS))
    known = machine(phase="Running", status=shown(first))
    shut_down: dict[str, Any] = {"reason": domain_pb2.DOMAIN_REASON_SHUTDOWN}
    ended = said(observed(domain_pb2.DOMAIN_STATE_ENDED, machine=known, **shut_down))
    assert ended.volume_status == TOLD


@pytest.mark.parametrize(
    ("entry", "worth_it"),
    [
        ({"name": "gone", "target": "sda"}, True),
        ({"name": "gone", "size": 1}, True),
        ({"name": "gone", "persistentVolumeClaimInfo": CLAIM_INFO}, False),
        ({"name": "gone", "phase": "Pending"}, True),
    ],
)
def test_an_entry_that_is_not_of_the_machine(entry: dict[str, Any], worth_it: bool) -> None:
    """It goes if the handler has said something in it before, and else is none of its business."""
    first = said(observed(machine=machine(), disks=DISKS))
    content = shown(first)
    content["volumeStatus"].append(entry)
    known = machine(phase="Running", status=content)
    assert needs_write(known.status, said(observed(machine=known, disks=DISKS), LATER)) is worth_it


def test_a_guest_that_sees_more_is_worth_a_write() -> None:
    known = machine(
        phase="Running", status=shown(said(observed(machine=machine(), disks=DISKS)), size=1 << 29)
    )
    assert needs_write(known.status, said(observed(machine=known, disks=DISKS), LATER))


def _content(status: v1.VirtualMachineInstanceStatus) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.to_builtins(status)
    content.pop("phase", None)
    return content
