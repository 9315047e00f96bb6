"""What the status and events tell of volumes that may come and go."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.storage.plan import Device, HandOver
from podvisor_handler.vmi.plan import Attempt, Observed
from podvisor_handler.vmi.status import events_of, needs_write

from tests.unit.handler import observations
from tests.unit.handler.builders import HOLDER_UID, held, holder, vmi
from tests.unit.handler.observations import LATER, said

GIB = 1 << 30
RUNNING, WAITING = domain_pb2.DOMAIN_STATE_RUNNING, domain_pb2.DOMAIN_STATE_WAITING
UNREACHABLE = domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE
UNSPECIFIED = domain_pb2.DISK_ATTACHMENT_UNSPECIFIED
AWAITED = domain_pb2.DISK_ATTACHMENT_AWAITED
ATTACHED = domain_pb2.DISK_ATTACHMENT_ATTACHED
DETACHING = domain_pb2.DISK_ATTACHMENT_DETACHING
TAKEN = Attempt(HandOver(Device("extra", "/d", False), False, 0, HOLDER_UID, 1), is_taken=True)
FAILED = replace(TAKEN, is_taken=False, problem='Volume "extra": disk.img is a symbolic link.')
HOLDERS = {"extra": holder()}
READY = held(phase="Ready", reason="VolumeReady", target="sda", size=GIB)
OTHER_CLAIM: dict[str, Any] = {**READY, "persistentVolumeClaimInfo": {"claimName": "old"}}
UNTOLD_CLAIM = {k: v for k, v in READY.items() if k != "persistentVolumeClaimInfo"}
UNBOUND = {"name": "extra", "persistentVolumeClaimInfo": {"claimName": "c"}}


def machine(
    *entries: dict[str, Any],
    is_wanted: bool = True,
    target: str = "disk",
    mode: str = "",
    **arguments: Any,
) -> v1.VirtualMachineInstance:
    claim = {"claimName": "c", "hotpluggable": True}
    disks = [{"name": "extra", target: {}}] if is_wanted or target == "cdrom" else []
    volumes = [{"name": "extra", "persistentVolumeClaim": claim}] if is_wanted else []
    devices = {"disks": disks, "autoattachPodInterface": False}
    spec = {"domain": {"memory": {"guest": "64M"}, "devices": devices}, "volumes": volumes}
    return vmi(spec=spec, status={"volumeStatus": list(entries)}, **arguments)


def observed(
    of: v1.VirtualMachineInstance,
    attachment: domain_pb2.DiskAttachment.ValueType | None = None,
    *,
    holders: dict[str, core.Pod] | None = None,
    last: Attempt | None = None,
    handing_over: frozenset[str] = frozenset(),
    message: str = "",
    state: domain_pb2.DomainState.ValueType = RUNNING,
    reason: domain_pb2.DomainReason.ValueType = domain_pb2.DOMAIN_REASON_UNSPECIFIED,
    settled: bool = True,
) -> Observed:
    disks = []
    if attachment is not None:
        has_device = attachment in (ATTACHED, DETACHING)
        disk = domain_pb2.DiskReport(name="extra", attachment=attachment, message=message)
        if has_device:
            disk.target, disk.capacity_bytes = "sda", GIB
        disks.append(disk)
    now = observations.observed(
        state,
        machine=of,
        disks=disks,
        reason=reason,
        devices_settled=settled,
        accepted_generation=1,
    )
    return replace(
        now,
        holders=holders or {},
        handovers={"extra": last} if last is not None else {},
        handing_over=handing_over,
    )


def told(now: Observed) -> tuple[str, str, str] | None:
    """Phase, reason and target."""
    volumes = said(now).volume_status
    if volumes is None:
        return None
    (volume,) = volumes
    return volume.phase, volume.reason, volume.target


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(observed(machine()), ("Pending", "", ""), id="no claim"),
        pytest.param(observed(machine(UNBOUND)), ("Pending", "", ""), id="no volume"),
        pytest.param(observed(machine(held())), ("Bound", "", ""), id="no pod that runs"),
        pytest.param(
            observed(machine(held()), AWAITED, holders=HOLDERS),
            ("AttachedToNode", "", ""),
            id="a pod holds it",
        ),
        pytest.param(
            observed(machine(held()), AWAITED, holders=HOLDERS, last=TAKEN),
            ("MountedToPod", "VolumeMountedToPod", ""),
            id="handed over",
        ),
        pytest.param(
            observed(
                machine(held()),
                AWAITED,
                holders=HOLDERS,
                last=replace(TAKEN, order=replace(TAKEN.order, epoch=0)),
            ),
            ("AttachedToNode", "", ""),
            id="handed over to a launcher that is no more",
        ),
        pytest.param(
            observed(machine(held()), ATTACHED, holders=HOLDERS, last=TAKEN),
            ("Ready", "VolumeReady", "sda"),
            id="attached",
        ),
        pytest.param(
            observed(machine(READY), ATTACHED), ("Ready", "VolumeReady", "sda"), id="pod lost"
        ),
        pytest.param(
            observed(machine(held()), AWAITED, holders=HOLDERS, last=FAILED),
            ("AttachedToNode", "HotplugFailed", ""),
            id="it is not handed over",
        ),
        pytest.param(
            observed(machine(held()), AWAITED, holders=HOLDERS, message="no such format"),
            ("AttachedToNode", "HotplugFailed", ""),
            id="the launcher does not attach it",
        ),
        pytest.param(
            observed(machine(held(), target="lun"), holders=HOLDERS),
            ("AttachedToNode", "HotplugFailed", ""),
            id="it can be no part of the machine",
        ),
        pytest.param(
            observed(machine(READY), DETACHING), ("Detaching", "", "sda"), id="wanted anew"
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False), ATTACHED),
            ("Detaching", "", "sda"),
            id="removed",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False), DETACHING),
            ("Detaching", "", "sda"),
            id="the guest was asked to let go",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False), DETACHING, message="the guest keeps it"),
            ("Detaching", "HotplugFailed", "sda"),
            id="the guest does not let go",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False)),
            ("UnMountedFromPod", "VolumeUnMountedFromPod", ""),
            id="let go",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False, target="cdrom"), UNSPECIFIED),
            ("UnMountedFromPod", "VolumeUnMountedFromPod", ""),
            id="the drive is empty",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False), UNSPECIFIED),
            ("Detaching", "", ""),
            id="the launcher has it and does not say how",
        ),
        pytest.param(
            observed(machine(OTHER_CLAIM), ATTACHED, holders=HOLDERS),
            ("Detaching", "", "sda"),
            id="another claim is wanted by its name",
        ),
        pytest.param(
            observed(machine(OTHER_CLAIM), holders=HOLDERS),
            ("UnMountedFromPod", "VolumeUnMountedFromPod", ""),
            id="let go, and another claim is wanted by its name",
        ),
        pytest.param(
            observed(machine(held(phase="UnMountedFromPod")), holders=HOLDERS),
            ("AttachedToNode", "", ""),
            id="the other claim is held by now",
        ),
        pytest.param(
            observed(machine(UNTOLD_CLAIM), ATTACHED),
            ("Ready", "VolumeReady", "sda"),
            id="what is not known of the claim is no other one",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False, generation=2)),
            ("Detaching", "", ""),
            id="the launcher was not told yet",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False), reason=UNREACHABLE),
            ("Detaching", "", ""),
            id="nobody knows what the guest has",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False), handing_over=frozenset({"extra"})),
            ("Detaching", "", ""),
            id="the handler has it open",
        ),
        pytest.param(
            observed(machine(held(), is_wanted=False, generation=2), state=WAITING),
            ("UnMountedFromPod", "VolumeUnMountedFromPod", ""),
            id="removed before the guest was started",
        ),
        pytest.param(
            observed(machine(held()), state=WAITING, holders=HOLDERS),
            ("AttachedToNode", "", ""),
            id="held before the guest was started",
        ),
        pytest.param(
            observed(machine({"name": "extra", "phase": "UnMountedFromPod"}, is_wanted=False)),
            None,
            id="its pod is gone",
        ),
    ],
)
def test_how_far_a_volume_is(now: Observed, expected: tuple[str, str, str] | None) -> None:
    assert told(now) == expected


def test_that_a_volume_was_let_go_says_of_which_pod() -> None:
    (volume,) = said(observed(machine(READY, is_wanted=False))).volume_status or []
    assert (volume.phase, volume.unmounted_pod_uid) == ("UnMountedFromPod", HOLDER_UID)
    (wanted,) = said(observed(machine(READY), ATTACHED, holders=HOLDERS)).volume_status or []
    assert wanted.unmounted_pod_uid == ""


def test_what_is_wrong_is_said_in_a_line() -> None:
    now = observed(machine(held()), AWAITED, holders=HOLDERS, message="bad\nformat\x00")
    (volume,) = said(now).volume_status or []
    assert volume.message == "bad format"


@pytest.mark.parametrize("is_wanted", [True, False])
def test_while_the_launcher_is_silent_all_stays_as_it_was_said(is_wanted: bool) -> None:
    of = machine(READY, is_wanted=is_wanted, phase="Running")
    silent = replace(
        observed(of),
        launcher=replace(
            observed(of).launcher, connection=Connection.UNRESPONSIVE, silent_for_s=60
        ),
    )
    assert told(silent) == ("Ready", "VolumeReady", "sda")


def after(now: Observed) -> v1.VirtualMachineInstanceStatus:
    """The status once the API server has taken it: the controller's words stay."""
    controllers = {volume.name: volume for volume in now.vmi.status.volume_status or ()}
    status = said(now)
    if status.volume_status is None:
        return status
    merged = []
    for volume in status.volume_status or ():
        entry: dict[str, Any] = msgspec.to_builtins(volume)
        if volume.name in controllers:
            kept = msgspec.to_builtins(controllers[volume.name])
            entry = {
                **{k: kept[k] for k in ("hotplugVolume", "persistentVolumeClaimInfo") if k in kept},
                **entry,
            }
        merged.append(entry)
    return msgspec.convert(
        {**msgspec.to_builtins(status), "volumeStatus": merged}, v1.VirtualMachineInstanceStatus
    )


@pytest.mark.parametrize(
    "now",
    [
        observed(machine(held()), AWAITED, holders=HOLDERS, last=TAKEN),
        observed(machine(held()), ATTACHED, holders=HOLDERS),
        observed(machine(held()), AWAITED, holders=HOLDERS, last=FAILED),
        observed(machine(READY, is_wanted=False), DETACHING),
        observed(machine(READY, is_wanted=False)),
    ],
    ids=["handed over", "attached", "failed", "detaching", "let go"],
)
def test_the_same_is_said_once(now: Observed) -> None:
    status = after(now)
    assert needs_write(now.vmi.status, said(now))
    again = replace(now, vmi=msgspec.structs.replace(now.vmi, status=status))
    assert not needs_write(status, said(again, LATER))
    assert events_of(status, said(again, LATER)) == []


def test_an_entry_goes_with_its_pod() -> None:
    """What is left of it is the handler's own."""
    before = after(observed(machine(is_wanted=False)))
    left = v1.VolumeStatus(name="extra", phase="UnMountedFromPod")
    status = msgspec.structs.replace(before, volume_status=[left])
    gone = msgspec.structs.replace(machine(is_wanted=False), status=status)
    desired = said(observed(gone), LATER)
    assert desired.volume_status is None
    assert needs_write(status, desired)
    assert not needs_write(before, desired)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(
            observed(machine(held()), AWAITED, holders=HOLDERS, last=TAKEN),
            [("Normal", "VolumeMountedToPod")],
            id="handed over",
        ),
        pytest.param(
            observed(machine(held()), ATTACHED), [("Normal", "VolumeReady")], id="attached"
        ),
        pytest.param(
            observed(machine(held()), AWAITED, holders=HOLDERS, last=FAILED),
            [("Warning", "HotplugFailed")],
            id="failed",
        ),
        pytest.param(
            observed(machine(READY, is_wanted=False)),
            [("Normal", "VolumeUnplugged"), ("Normal", "VolumeUnMountedFromPod")],
            id="let go",
        ),
        pytest.param(
            observed(machine(held(), is_wanted=False)),
            [("Normal", "VolumeUnMountedFromPod")],
            id="never attached",
        ),
        pytest.param(observed(machine(READY, is_wanted=False), DETACHING), [], id="detaching"),
        pytest.param(
            observed(machine(READY, is_wanted=False), None, settled=False),
            [],
            id="the launcher does not know whether all is over",
        ),
    ],
)
def test_events(now: Observed, expected: list[tuple[str, str]]) -> None:
    events = events_of(now.vmi.status, said(now))
    about_volumes = [event[:2] for event in events if "olume" in event[1] or "lug" in event[1]]
    assert about_volumes == expected


def test_what_a_guest_that_has_ended_had_stays_said() -> None:
    of = machine(READY, phase="Running")
    now = observations.observed(
        domain_pb2.DOMAIN_STATE_ENDED, machine=of, reason=domain_pb2.DOMAIN_REASON_SHUTDOWN
    )
    (volume,) = said(now).volume_status or []
    assert (volume.phase, volume.target, volume.hotplug_volume) == ("Ready", "sda", None)
