"""Which pods hold volumes, and when a volume is handed over, as tables."""

from dataclasses import replace
from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.storage.plan import HandOver, Image
from podvisor_handler.vmi.build import build_domain, digest_of
from podvisor_handler.vmi.hotplug import select_holders
from podvisor_handler.vmi.plan import (
    Action,
    ApplyDomain,
    Attempt,
    HandOverVolume,
    Launcher,
    Observed,
    plan,
)

from tests.unit.handler.builders import HOLDER_UID, held, holder, pod, vmi

EPOCH = 7
GIB = 1 << 30
AWAITED = domain_pb2.DISK_ATTACHMENT_AWAITED
ATTACHED = domain_pb2.DISK_ATTACHMENT_ATTACHED
CLAIM: dict[str, Any] = {"claimName": "c", "hotpluggable": True}
IMAGE = Image("extra", "/run/podvisor/volumes/extra", "disk.img", create=True)
ORDER = HandOver(IMAGE, False, GIB, HOLDER_UID, EPOCH)
HAND_OVER = HandOverVolume(ORDER)


def machine(
    entry: dict[str, Any] | None = None, *, is_wanted: bool = True, **arguments: Any
) -> v1.VirtualMachineInstance:
    disks = [{"name": "extra", "disk": {"bus": "scsi"}}] if is_wanted else []
    volumes = [{"name": "extra", "persistentVolumeClaim": CLAIM}] if is_wanted else []
    devices = {"disks": disks, "autoattachPodInterface": False}
    return vmi(
        spec={"domain": {"memory": {"guest": "64M"}, "devices": devices}, "volumes": volumes},
        status={"volumeStatus": [entry or held()]},
        **arguments,
    )


MACHINE = machine()


def observed(
    of: v1.VirtualMachineInstance = MACHINE,
    attachment: domain_pb2.DiskAttachment.ValueType | None = AWAITED,
    *,
    holders: dict[str, core.Pod] | None = None,
    last: Attempt | None = None,
    epoch: int = EPOCH,
    given: bool = True,
    settled: bool = True,
    handing_over: frozenset[str] = frozenset(),
) -> Observed:
    state = domain_pb2.DOMAIN_STATE_RUNNING
    report = domain_pb2.DomainReport(
        epoch=epoch,
        sequence=1,
        state=state,
        applied_generation=1,
        accepted_generation=1,
        devices_settled=settled,
    )
    if attachment is not None:
        report.disks.add(name="extra", attachment=attachment)
    pushed = (epoch, digest_of(build_domain(of, pod(), None))) if given else None
    return Observed(
        of,
        pod(),
        launcher=Launcher(Connection.CONNECTED, report, pushed=pushed),
        holders={"extra": holder()} if holders is None else holders,
        handovers={"extra": last} if last is not None else {},
        handing_over=handing_over,
    )


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(observed(), [HAND_OVER], id="the launcher waits for it"),
        pytest.param(observed(attachment=ATTACHED), [], id="the guest has it"),
        pytest.param(observed(attachment=None), [], id="the guest does not run yet"),
        pytest.param(observed(holders={}), [], id="no pod holds it"),
        pytest.param(
            observed(holders={"extra": holder(is_device=True)}), [], id="it is a device after all"
        ),
        pytest.param(
            observed(last=Attempt(ORDER, is_taken=True)), [], id="it was handed over just now"
        ),
        pytest.param(observed(last=Attempt(ORDER, is_taken=False)), [], id="it failed just now"),
        pytest.param(
            observed(
                last=Attempt(ORDER, is_taken=False, is_due=True),
                handing_over=frozenset({"extra"}),
            ),
            [],
            id="it is on its way still",
        ),
        pytest.param(
            observed(handing_over=frozenset({"other"})), [HAND_OVER], id="another is on its way"
        ),
        pytest.param(
            observed(last=Attempt(ORDER, is_taken=True, is_due=True)),
            [HAND_OVER],
            id="it was handed over long ago and is waited for again",
        ),
        pytest.param(
            observed(last=Attempt(replace(ORDER, epoch=6), is_taken=True)),
            [HAND_OVER],
            id="it was handed over to a launcher that is no more",
        ),
        pytest.param(
            observed(last=Attempt(replace(ORDER, holder="other"), is_taken=False)),
            [HAND_OVER],
            id="another pod held it",
        ),
        pytest.param(
            observed(machine(held(phase="UnMountedFromPod", unmountedPodUID=HOLDER_UID))),
            [],
            id="its pod may be about to be removed",
        ),
        pytest.param(
            observed(machine(held(phase="UnMountedFromPod", unmountedPodUID="another"))),
            [HAND_OVER],
            id="the pod before it may be about to be removed",
        ),
        pytest.param(observed(machine(deleted=True), ATTACHED), ["shutdown"], id="deleted"),
        pytest.param(observed(machine(is_wanted=False)), [], id="it is not wanted, and waited for"),
    ],
)
def test_plan(now: Observed, expected: list[Action | str]) -> None:
    actions = plan(now)
    if expected == ["shutdown"]:
        assert [type(action).__name__ for action in actions] == ["ShutdownDomain"]
    else:
        assert actions == expected


def test_a_launcher_is_told_of_the_disk_first() -> None:
    apply, hand_over = plan(observed(given=False, attachment=AWAITED, of=machine(generation=2)))
    assert isinstance(apply, ApplyDomain)
    assert apply.spec.disks[0].hotpluggable
    assert hand_over == HAND_OVER


@pytest.mark.parametrize("attachment", [None, ATTACHED])
def test_a_restarted_handler_tells_of_the_disk_if_the_launcher_does_not_know_it(
    attachment: domain_pb2.DiskAttachment.ValueType | None,
) -> None:
    """What the controller says of a claim changes the disk without a new generation."""
    unsized = held()
    del unsized["persistentVolumeClaimInfo"]["capacity"]
    actions = plan(observed(machine(unsized), attachment, given=False))
    assert [type(action) for action in actions] == ([ApplyDomain] if attachment is None else [])


@pytest.mark.parametrize(
    ("entry", "found", "expected"),
    [
        pytest.param(held(), holder(), True, id="the controller's own"),
        pytest.param(held(), None, False, id="not on this node"),
        pytest.param(held(), holder(uid="stranger"), False, id="somebody else's of that name"),
        pytest.param({"name": "extra"}, holder(), False, id="nobody vouches for it"),
        pytest.param(held(), holder(phase="Pending"), False, id="it does not run yet"),
        pytest.param(held(), holder(phase="Succeeded"), False, id="it has ended"),
        pytest.param(held(), holder(deleted=True), False, id="it is being removed"),
    ],
)
def test_holders(entry: dict[str, Any], found: core.Pod | None, expected: bool) -> None:
    asked: list[str] = []

    def pod_named(name: str) -> core.Pod | None:
        asked.append(name)
        return found

    holders = select_holders(machine(entry), pod_named)
    assert holders == ({"extra": found} if expected else {})
    assert set(asked) <= {"hp-volume-0123456789"}
