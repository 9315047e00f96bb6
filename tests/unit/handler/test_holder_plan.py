"""When the process that holds a volume is ended before its pod's grace period is over, as a table."""

from dataclasses import replace
from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core
from podvisor_handler.holders.plan import EndHolder, Launcher, Observed, plan
from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi import plan as machine

from tests.unit.handler import observations
from tests.unit.handler.builders import HOLDER_UID, held, holder, pod, vmi
from tests.unit.handler.fake_launcher import OTHER_POD_UID, POD_UID

ATTACHED = domain_pb2.DISK_ATTACHMENT_ATTACHED
DETACHING = domain_pb2.DISK_ATTACHMENT_DETACHING
SAID = held(phase="UnMountedFromPod", unmountedPodUID=HOLDER_UID)
LET_GO = EndHolder(HOLDER_UID)
ENDED = EndHolder(HOLDER_UID, (POD_UID,))
LEAVING = holder(deleted=True)
RUNS = Launcher(POD_UID, pod())
DELETED = Launcher(POD_UID, pod(deletion_grace_s=65))
OVER = Launcher(POD_UID, pod(phase="Succeeded"))


def guest(
    entry: dict[str, Any] = SAID,
    attachment: domain_pb2.DiskAttachment.ValueType | None = None,
    *,
    carrier: core.Pod | None = None,
    connection: Connection = Connection.CONNECTED,
    state: domain_pb2.DomainState.ValueType | None = domain_pb2.DOMAIN_STATE_RUNNING,
    handing_over: frozenset[str] = frozenset(),
    settled: bool = True,
    generation: int = 1,
) -> machine.Observed:
    """A guest that has let go of its volume, as was said, but for what the arguments say."""
    disks = (
        [] if attachment is None else [domain_pb2.DiskReport(name="extra", attachment=attachment)]
    )
    now = observations.observed(
        state,
        machine=vmi(status={"volumeStatus": [entry]}, generation=generation),
        carrier=carrier,
        connection=connection,
        disks=disks,
        devices_settled=settled,
        accepted_generation=1,
    )
    return replace(now, handing_over=handing_over)


def observed(
    of: core.Pod = LEAVING,
    launchers: tuple[Launcher, ...] = (RUNS,),
    guests: tuple[machine.Observed | None, ...] = (),
) -> Observed:
    return Observed(of, launchers, guests)


def let_go(now: machine.Observed | None) -> Observed:
    return observed(guests=(now,))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(let_go(guest()), LET_GO, id="the guest has let go"),
        pytest.param(
            observed(LEAVING, (DELETED,), (guest(),)), LET_GO, id="so it has, and is being ended"
        ),
        pytest.param(
            observed(holder(), (RUNS,), (guest(),)), None, id="its pod is not being deleted"
        ),
        pytest.param(
            observed(holder(deleted=True, phase="Failed"), (OVER,)), None, id="its pod has ended"
        ),
        pytest.param(let_go(guest(held(phase="Ready"), ATTACHED)), None, id="the guest has it"),
        pytest.param(
            let_go(guest(held(phase="Detaching"), DETACHING)), None, id="the guest has it still"
        ),
        pytest.param(let_go(guest(attachment=ATTACHED)), None, id="the guest has it again"),
        pytest.param(let_go(guest(held(phase="Detaching"))), None, id="it was not said yet"),
        pytest.param(
            let_go(guest(held(phase="UnMountedFromPod", unmountedPodUID="another"))),
            None,
            id="it was said of the pod before",
        ),
        pytest.param(
            let_go(guest(held(uid="another", phase="UnMountedFromPod", unmountedPodUID="another"))),
            None,
            id="the instance names another pod by now",
        ),
        pytest.param(let_go(guest(handing_over=frozenset({"extra"}))), None, id="it is on its way"),
        pytest.param(
            let_go(guest(handing_over=frozenset({"other"}))), LET_GO, id="another is on its way"
        ),
        pytest.param(let_go(guest(settled=False)), None, id="the launcher does not know all disks"),
        pytest.param(let_go(guest(generation=2)), None, id="the launcher knows an older manifest"),
        pytest.param(let_go(None), None, id="the handler was restarted"),
        pytest.param(
            let_go(guest(connection=Connection.WAITING, state=None)),
            None,
            id="a restarted handler waits for the launcher",
        ),
        pytest.param(
            let_go(guest(connection=Connection.UNRESPONSIVE)), None, id="the launcher is silent"
        ),
        pytest.param(let_go(guest(state=None)), None, id="its report is missing"),
        pytest.param(observed(guests=(guest(), guest())), None, id="two instances name the pod"),
        pytest.param(
            let_go(guest(carrier=pod(uid=OTHER_POD_UID))), None, id="the guest is in another pod"
        ),
        pytest.param(
            observed(LEAVING, (RUNS, Launcher(OTHER_POD_UID, None)), (guest(),)),
            None,
            id="another pod of the machine may have it",
        ),
        pytest.param(observed(), None, id="no instance names the pod, and its owner runs"),
        pytest.param(observed(LEAVING, (DELETED,)), None, id="its owner is to end"),
        pytest.param(observed(LEAVING, (OVER,)), ENDED, id="its owner has ended"),
        pytest.param(
            observed(LEAVING, (Launcher(POD_UID, pod(phase="Failed")),)),
            ENDED,
            id="its owner crashed",
        ),
        pytest.param(observed(LEAVING, (Launcher(POD_UID, None),)), ENDED, id="its owner is gone"),
        pytest.param(
            observed(LEAVING, (replace(DELETED, has_lost_container=True),)),
            ENDED,
            id="nothing is left where the launcher was",
        ),
        pytest.param(
            observed(LEAVING, (OVER,), (guest(held(phase="Ready"), ATTACHED),)),
            ENDED,
            id="its owner has ended before anything was said",
        ),
        pytest.param(observed(holder(), (OVER,)), None, id="its owner has ended, its pod stays"),
        pytest.param(
            observed(LEAVING, (OVER, replace(RUNS, uid=OTHER_POD_UID))),
            None,
            id="its owner has ended, another pod of the machine not",
        ),
        pytest.param(
            observed(LEAVING, (OVER, Launcher(OTHER_POD_UID, None))),
            EndHolder(HOLDER_UID, (POD_UID, OTHER_POD_UID)),
            id="all pods of the machine have ended",
        ),
        pytest.param(observed(LEAVING, ()), None, id="nobody knows whose it is"),
    ],
)
def test_plan(now: Observed, expected: EndHolder | None) -> None:
    assert plan(now) == expected
