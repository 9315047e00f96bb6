"""When a launcher's volumes are prepared, and when it is told what its claims have, as a table."""

from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.storage.plan import Image
from podvisor_handler.vmi.build import build_domain, digest_of
from podvisor_handler.vmi.plan import Action, ApplyDomain, Launcher, Observed, PrepareVolumes, plan

from tests.unit.handler.builders import pod, vmi

EPOCH = 7
NONE, WAITING = domain_pb2.DOMAIN_STATE_NONE, domain_pb2.DOMAIN_STATE_WAITING
RUNNING, PAUSED = domain_pb2.DOMAIN_STATE_RUNNING, domain_pb2.DOMAIN_STATE_PAUSED
INVALID_DISK = domain_pb2.DOMAIN_REASON_INVALID_DISK
IMAGE = Image("d", "/run/podvisor/volumes/d", "disk.img", create=True)
PREPARED = PrepareVolumes((IMAGE,))
CLAIM: dict[str, Any] = {"persistentVolumeClaim": {"claimName": "c"}}
READ_ONLY: dict[str, Any] = {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}
EPHEMERAL: dict[str, Any] = {"ephemeral": CLAIM}
GIB = 1 << 30


def machine(capacity: str = "", source: dict[str, Any] = CLAIM) -> v1.VirtualMachineInstance:
    info = {"claimName": "c", "capacity": {"storage": capacity}}
    devices = {"disks": [{"name": "d"}], "autoattachPodInterface": False}
    return vmi(
        spec={
            "domain": {"memory": {"guest": "64M"}, "devices": devices},
            "volumes": [{"name": "d", **source}],
        },
        status={"volumeStatus": [{"name": "d", "persistentVolumeClaimInfo": info}]}
        if capacity
        else {},
    )


def push(of: v1.VirtualMachineInstance) -> ApplyDomain:
    return ApplyDomain(build_domain(of, pod(), None))


def pushed(of: v1.VirtualMachineInstance) -> tuple[int, str]:
    return EPOCH, digest_of(push(of).spec)


def observed(
    of: v1.VirtualMachineInstance,
    state: domain_pb2.DomainState.ValueType = NONE,
    *,
    reason: domain_pb2.DomainReason.ValueType = domain_pb2.DOMAIN_REASON_UNSPECIFIED,
    applied: int = 0,
    seen_bytes: int | None = None,
    sequence: int = 1,
    given: tuple[int, str] | None = None,
    volumes: PrepareVolumes | None = None,
) -> Observed:
    report = domain_pb2.DomainReport(
        epoch=EPOCH, sequence=sequence, state=state, reason=reason, applied_generation=applied
    )
    if seen_bytes is not None:
        report.disks.add(name="d", target="vda", capacity_bytes=seen_bytes)
    launcher = Launcher(Connection.CONNECTED, report, pushed=given)
    return Observed(of, pod(), launcher=launcher, volumes=volumes)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(observed(machine()), [PREPARED, push(machine())], id="first sight"),
        pytest.param(
            observed(machine(), volumes=PREPARED), [push(machine())], id="prepared, not pushed yet"
        ),
        pytest.param(
            observed(machine(), given=pushed(machine()), volumes=PREPARED), [], id="all is done"
        ),
        pytest.param(
            observed(machine(source=READ_ONLY)), [push(machine(source=READ_ONLY))], id="only read"
        ),
        pytest.param(
            observed(
                machine(), WAITING, reason=INVALID_DISK, given=pushed(machine()), volumes=PREPARED
            ),
            [PrepareVolumes((IMAGE,), complaint=(EPOCH, 1))],
            id="the launcher complains",
        ),
        pytest.param(
            observed(
                machine(),
                WAITING,
                reason=INVALID_DISK,
                given=pushed(machine()),
                volumes=PrepareVolumes((IMAGE,), complaint=(EPOCH, 1)),
            ),
            [],
            id="a complaint is answered once",
        ),
        pytest.param(
            observed(
                machine(),
                WAITING,
                reason=INVALID_DISK,
                sequence=2,
                given=pushed(machine()),
                volumes=PrepareVolumes((IMAGE,), complaint=(EPOCH, 1)),
            ),
            [PrepareVolumes((IMAGE,), complaint=(EPOCH, 2))],
            id="it complains again",
        ),
        pytest.param(
            observed(
                machine(source=READ_ONLY),
                WAITING,
                reason=INVALID_DISK,
                given=pushed(machine(source=READ_ONLY)),
            ),
            [],
            id="it complains of what is only read",
        ),
        pytest.param(
            observed(
                machine(),
                WAITING,
                reason=domain_pb2.DOMAIN_REASON_MISSING_SECRET,
                given=pushed(machine()),
                volumes=PREPARED,
            ),
            [],
            id="it waits for something else",
        ),
        pytest.param(
            observed(
                machine("2Gi"),
                RUNNING,
                applied=1,
                seen_bytes=GIB,
                given=pushed(machine("1Gi")),
                volumes=PREPARED,
            ),
            [push(machine("2Gi"))],
            id="the claim has grown",
        ),
        pytest.param(
            observed(machine("1Gi"), WAITING, given=pushed(machine()), volumes=PREPARED),
            [push(machine("1Gi"))],
            id="what the claim has becomes known",
        ),
        pytest.param(
            observed(
                machine("2Gi"),
                RUNNING,
                applied=1,
                seen_bytes=GIB,
                given=pushed(machine("2Gi")),
                volumes=PREPARED,
            ),
            [],
            id="the launcher knows that the claim has grown",
        ),
        pytest.param(
            observed(machine("1Gi"), RUNNING, applied=1, seen_bytes=GIB),
            [],
            id="restarted, the guest sees all of the claim",
        ),
        pytest.param(
            observed(machine("2Gi"), RUNNING, applied=1, seen_bytes=GIB),
            [push(machine("2Gi"))],
            id="restarted, the claim may have grown meanwhile; a guest that runs has its volumes",
        ),
        pytest.param(
            observed(machine("2Gi"), PAUSED, applied=0),
            [push(machine("2Gi"))],
            id="restarted, the machine is changed while the guest stands still",
        ),
        pytest.param(
            observed(machine(), RUNNING, applied=1, seen_bytes=GIB),
            [],
            id="restarted, what the claim has is not known",
        ),
        pytest.param(
            observed(machine("2Gi", READ_ONLY), RUNNING, applied=1, seen_bytes=GIB),
            [],
            id="restarted, what is only read does not grow",
        ),
        pytest.param(
            observed(machine("2Gi", EPHEMERAL), RUNNING, applied=1, seen_bytes=GIB),
            [],
            id="restarted, what is below an overlay does not grow",
        ),
    ],
)
def test_plan(now: Observed, expected: list[Action]) -> None:
    assert plan(now) == expected


def test_what_is_confidential_shows_nowhere() -> None:
    secret = vmi(
        spec={
            "domain": {
                "memory": {"guest": "64M"},
                "devices": {"disks": [{"name": "d"}], "autoattachPodInterface": False},
            },
            "volumes": [{"name": "d", "cloudInitConfigDrive": {"userData": "hunter2"}}],
        }
    )
    now = observed(secret)
    (action,) = plan(now)
    assert isinstance(action, ApplyDomain)
    assert action.spec.disks[0].cloud_init.user_data == b"hunter2"
    assert "hunter2" not in repr(action)
    assert "hunter2" not in repr(now)
