"""What a handler may observe of an instance, and readers of what it says about it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, meta, v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.plan import Launcher, Observed, Problem
from podvisor_handler.vmi.status import status_of

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.fake_launcher import VMI_UID
from tests.unit.handler.networks import WIRED

AT = datetime(2026, 1, 2, 3, 4, 8, tzinfo=UTC)
LATER = AT + timedelta(minutes=5)
# A value of a later release, which no type checker lets through.
UNHEARD_OF: Any = 1000


def observed(
    state: domain_pb2.DomainState.ValueType | None = domain_pb2.DOMAIN_STATE_RUNNING,
    *,
    machine: v1.VirtualMachineInstance | None = None,
    carrier: core.Pod | None = None,
    connection: Connection = Connection.CONNECTED,
    silent_for_s: float = 0.0,
    network: PodNetwork | None = WIRED,
    problem: Problem | None = None,
    **report: Any,
) -> Observed:
    said = None
    if state is not None:
        report.setdefault("machine_type", "pc-q35-10.0")
        said = domain_pb2.DomainReport(
            epoch=1, sequence=1, uid=VMI_UID, state=state, applied_generation=1, **report
        )
    return Observed(
        vmi=machine or vmi(),
        pod=carrier or pod(),
        launcher=Launcher(connection, said, silent_for_s),
        network=network,
        problem=problem,
    )


def said(now: Observed, at: datetime = AT) -> v1.VirtualMachineInstanceStatus:
    status = status_of(now, at)
    assert status is not None
    return status


def condition(status: v1.VirtualMachineInstanceStatus, type_: str) -> tuple[str, str]:
    found = meta.find_condition(status.conditions, type_)
    return (found.status, found.reason) if found else ("", "")


def written(status: v1.VirtualMachineInstanceStatus) -> v1.VirtualMachineInstance:
    """The instance after the API server has taken the status."""
    content = msgspec.to_builtins(status)
    return vmi(phase=content.pop("phase", "Scheduled"), status=content)


RUNNING_MACHINE = written(said(observed()))
