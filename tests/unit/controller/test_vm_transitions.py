"""Every transition of a machine: run strategy, state of its instance, requests, and what went wrong."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_controller.vm.observed import Observed
from podvisor_controller.vm.plan import (
    AdoptInstance,
    BeginAlways,
    CreateInstance,
    DeleteInstance,
    ReleaseFinalizer,
    plan,
)

from tests.unit.controller.builders import (
    NOW,
    UID,
    Json,
    instance,
    ran,
    situations,
    stamp,
    vm,
    vm_observed,
    vmi,
)

DELETED = {"deletionTimestamp": stamp(1)}
START, STOP, STALE = (
    {"action": "Start"},
    {"action": "Stop", "uid": UID},
    {"action": "Stop", "uid": "0"},
)
ANY = {"action": "Stop"}  # whatever instance there is
REQUESTS: dict[str, list[Json]] = {
    "-": [],
    "start": [START],
    "paused": [START | {"data": {"paused": "true"}}],
    "stop": [STOP],
    "stale": [STALE],
    "restart": [STOP, START],
    "restarted": [STALE, START],
    "own": [START | {"uid": UID}],
    "any": [ANY],
    "any-start": [ANY, START],
}
# `new` and `none` have no instance; the status of `new` tells of no run strategy yet. What has failed ran for long; what
# has crashed did not, and its status does not say so yet; of the last two it does, and they wait or need not any more.
INSTANCES: dict[str, v1.VirtualMachineInstance | None] = {
    "new": None,
    "none": None,
    "starting": instance("Scheduled"),
    "running": instance("Running"),
    "leaving": instance("Running", metadata=DELETED),
    "ended": instance("Succeeded"),
    "failed": ran("Failed", began_ago=50, ended_ago=1),
    "crashed": instance("Failed"),
    "waiting": instance("Failed"),
    "due": instance("Failed"),
}
RETRIES_S = {"waiting": 9, "due": -1}

# What is done (C create, P create with a guest that does not run, D delete the instance, A run always from now on, . nothing)
# and which requests the status then holds (s start, x stop, o start in place of the instance that failed).
TRANSITIONS = """
Always           -      start   paused  stop    stale   restart restarted own     any     any-start
  new            C      C:s     P:s     C       C       C:s     C:s       C       .       .:s
  none           C      C:s     P:s     C       C       C:s     C:s       C       .       .:s
  starting       .      .       .       D:x     .       D:xs    .         .       D:x     D:xs
  running        .      .       .       D:x     .       D:xs    .         .       D:x     D:xs
  leaving        .      .:s     .:s     .:x     .       .:xs    .:s       .       .:x     .:xs
  ended          D      D:s     D:s     D:x     .       D:xs    .:s       .       D:x     D:xs
  failed         D      D:s     D:s     D:x     .       D:xs    .:s       .       D:x     D:xs
  crashed        .      .:s     .:s     D:x     .       D:xs    .:s       .       D:x     D:xs
  waiting        .      .:s     .:s     .:x     .       .:xs    .:s       .       .:x     .:xs
  due            D      D:s     D:s     .:x     .       .:xs    .:s       .       .:x     .:xs

Halted           -      start   paused  stop    stale   restart restarted own     any     any-start
  new            .      A:s     A:s     .       .       A:s     A:s       .       .       .:s
  none           .      A:s     A:s     .       .       A:s     A:s       .       .       .:s
  starting       D      D:s     D:s     D:x     D       D:xs    D:s       D       D:x     D:xs
  running        D      D:s     D:s     D:x     D       D:xs    D:s       D       D:x     D:xs
  leaving        .      .:s     .:s     .:x     .       .:xs    .:s       .       .:x     .:xs
  ended          D      D:s     D:s     D:x     D       D:xs    D:s       D       D:x     D:xs
  failed         D      D:s     D:s     D:x     D       D:xs    D:s       D       D:x     D:xs
  crashed        D      D:s     D:s     D:x     D       D:xs    D:s       D       D:x     D:xs
  waiting        D      D:s     D:s     D:x     D       D:xs    D:s       D       D:x     D:xs
  due            D      D:s     D:s     D:x     D       D:xs    D:s       D       D:x     D:xs

Manual           -      start   paused  stop    stale   restart restarted own     any     any-start
  new            .      C:s     P:s     .       .       C:s     C:s       .       .       .:s
  none           .      C:s     P:s     .       .       C:s     C:s       .       .       .:s
  starting       .      .       .       D:x     .       D:xs    .         .       D:x     D:xs
  running        .      .       .       D:x     .       D:xs    .         .       D:x     D:xs
  leaving        .      .:s     .:s     .:x     .       .:xs    .:s       .       .:x     .:xs
  ended          .      D:s     D:s     D:x     .       D:xs    .:s       .       D:x     D:xs
  failed         .      D:s     D:s     D:x     .       D:xs    .:s       .       D:x     D:xs
  crashed        .      D:s     D:s     D:x     .       D:xs    .:s       .       D:x     D:xs
  waiting        .      .:s     .:s     .:x     .       .:xs    .:s       .       .:x     .:xs
  due            .      .:s     .:s     .:x     .       .:xs    .:s       .       .:x     .:xs

RerunOnFailure   -      start   paused  stop    stale   restart restarted own     any     any-start
  new            C      C:s     P:s     C       C       C:s     C:s       C:o     .       .:s
  none           .      C:s     P:s     .       .       C:s     C:s       C:o     .       .:s
  starting       .      .       .       D:x     .       D:xs    .         .:o     D:x     D:xs
  running        .      .       .       D:x     .       D:xs    .         .:o     D:x     D:xs
  leaving        .      .:s     .:s     .:x     .       .:xs    .:s       .:o     .:x     .:xs
  ended          D      D:s     D:s     D:x     .       D:xs    .:s       D:o     D:x     D:xs
  failed         .:o    D:s     D:s     D:x     .:o     D:xs    .:s       D:o     D:x     D:xs
  crashed        .:o    .:s     .:s     D:x     .:o     D:xs    .:s       .:o     D:x     D:xs
  waiting        .:o    .:s     .:s     .:x     .:o     .:xs    .:s       .:o     .:x     .:xs
  due            .:o    D:s     D:s     .:x     .:o     .:xs    .:s       D:o     .:x     .:xs

Once             -      start   paused  stop    stale   restart restarted own     any     any-start
  new            C      C:s     P:s     C       C       C:s     C:s       C       .       .:s
  none           .      C:s     P:s     .       .       C:s     C:s       .       .       .:s
  starting       .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
  running        .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
  leaving        .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
  ended          .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
  failed         .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
  crashed        .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
  waiting        .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
  due            .      .       .       .:x     .       .:xs    .         .       .:x     .:xs
"""


def transitions() -> Iterator[Any]:
    """The cells of the table."""
    for block in TRANSITIONS.strip().split("\n\n"):
        head, *lines = block.splitlines()
        strategy, *columns = head.split()
        for line in lines:
            state, *cells = line.split()
            for request, cell in zip(columns, cells, strict=True):
                action, _, rest = cell.partition(":")
                yield pytest.param(
                    strategy, state, request, action, rest, id=f"{strategy}-{state}-{request}"
                )


def counted_once(retry_in_s: float) -> Json:
    """The status of a machine whose instance was the first of its failures."""
    retry = stamp(-retry_in_s)
    return {
        "startFailure": {
            "consecutiveFailCount": 1,
            "lastFailedVMIUID": UID,
            "retryAfterTimestamp": retry,
        }
    }


def status_in(strategy: str, state: str, request: str) -> Json:
    """The status of a machine in that row and column."""
    status: Json = {} if state == "new" else {"runStrategy": strategy}
    if REQUESTS[request]:
        status["stateChangeRequests"] = REQUESTS[request]
    if state in RETRIES_S:
        status |= counted_once(RETRIES_S[state])
    return status


def done(now: Observed) -> str:
    """The letter of what the plan does."""
    actions = plan(now)
    assert plan(now) == actions
    match actions:
        case []:
            return "."
        case [CreateInstance(manifest)]:
            return "P" if manifest["spec"].get("startStrategy") == "Paused" else "C"
        case [DeleteInstance(uid)] if uid == UID:
            return "D"
        case [BeginAlways()]:
            return "A"
    raise AssertionError(actions)


def letters(now: Observed) -> str:
    """The letters of the requests that stay."""
    return "".join(
        "x" if request.action == "Stop" else "o" if request.uid else "s"
        for request in now.requests_to_record
    )


@pytest.mark.parametrize(("strategy", "state", "request_", "action", "rest"), list(transitions()))
def test_transition(strategy: str, state: str, request_: str, action: str, rest: str) -> None:
    status = status_in(strategy, state, request_)
    machines = [vm(strategy, status=status)]
    if strategy in ("Always", "Halted"):
        machines.append(vm("", spec={"running": strategy == "Always"}, status=status))
    for machine in machines:
        now = vm_observed(machine, INSTANCES[state])
        assert (done(now), letters(now)) == (action, rest)


def test_the_table_is_complete() -> None:
    rows = {tuple(cell.values[:3]) for cell in transitions()}
    strategies = sorted(names.SUPPORTED_RUN_STRATEGIES)
    assert rows == {(s, i, r) for s in strategies for i in INSTANCES for r in REQUESTS}


def requested(*requests: Json, **status: Any) -> Json:
    return {"stateChangeRequests": list(requests), **status}


@pytest.mark.parametrize(
    ("now", "rest"),
    situations(
        (
            "halted in the middle of a restart",
            vm_observed(
                vm("Halted", status=requested(STOP, START, runStrategy="Always")),
                INSTANCES["leaving"],
            ),
            "",
        ),
        (
            "halted while a start was due",
            vm_observed(vm("Halted", status=requested(START, runStrategy="Manual"))),
            "",
        ),
        (
            "halted while a failed one was to be replaced",
            vm_observed(
                vm("Halted", status=requested(*REQUESTS["own"], runStrategy="RerunOnFailure"))
            ),
            "",
        ),
        (
            "a stop without a uid of what there is not",
            vm_observed(vm("Manual", status=requested(ANY, START))),
            "s",
        ),
        (
            "the failed one has its successor",
            vm_observed(
                vm("RerunOnFailure", status=requested(*REQUESTS["own"])),
                instance("Scheduled", metadata={"uid": "2"}),
            ),
            "",
        ),
        (
            "a start waits for the stop of a later instance",
            vm_observed(
                vm("Manual", status=requested(STALE, START, STOP)),
                instance("Running"),
            ),
            "x",
        ),
        (
            "failed because it was deleted",
            vm_observed(
                vm("RerunOnFailure", status={"runStrategy": "RerunOnFailure"}),
                instance("Failed", metadata=DELETED),
            ),
            "",
        ),
    ),
)
def test_requests(now: Observed, rest: str) -> None:
    assert letters(now) == rest


LATER = NOW + timedelta(seconds=5)
STRANGER = vmi(
    metadata={"ownerReferences": [{"kind": "X", "name": "x", "uid": "x", "controller": True}]}
)
ORPHAN = vmi(status={"phase": "Running"})


@pytest.mark.parametrize(
    ("now", "expected"),
    situations(
        ("somebody else's instance", vm_observed(vm(), STRANGER), []),
        ("an orphan", vm_observed(vm(), ORPHAN), [AdoptInstance]),
        ("an orphan of a halted machine", vm_observed(vm("Halted"), ORPHAN), [AdoptInstance]),
        ("an orphan that is leaving", vm_observed(vm(), vmi(metadata=DELETED)), []),
        (
            "an orphan, and the machine goes",
            vm_observed(vm(metadata=DELETED), ORPHAN),
            [ReleaseFinalizer],
        ),
        ("refused a moment ago", vm_observed(vm(), failure="no", retry_at=LATER), []),
        (
            "refused, and the clock was set back since",
            vm_observed(vm(), failure="no", retry_at=NOW + timedelta(hours=1)),
            [CreateInstance],
        ),
        (
            "its node does not answer",
            vm_observed(
                vm(),
                instance(
                    "Running",
                    status={
                        "conditions": [
                            {"type": "Ready", "status": "False", "reason": "NodeUnresponsive"}
                        ]
                    },
                ),
            ),
            [],
        ),
        (
            "failed, counted, and the clock was set back since",
            vm_observed(vm(status=counted_once(3600)), instance("Failed")),
            [DeleteInstance],
        ),
        ("deleted, running", vm_observed(vm(metadata=DELETED), instance()), [DeleteInstance]),
        ("deleted, stopping", vm_observed(vm(metadata=DELETED), instance(metadata=DELETED)), []),
        ("deleted, nothing left", vm_observed(vm(metadata=DELETED)), [ReleaseFinalizer]),
        (
            "deleted, released already, and somebody else holds it",
            vm_observed(vm(metadata=DELETED | {"finalizers": ["other/one"]})),
            [],
        ),
        (
            "deleted, and somebody else holds it too",
            vm_observed(vm(metadata=DELETED | {"finalizers": ["other/one", names.VM_FINALIZER]})),
            [ReleaseFinalizer],
        ),
        (
            "deleted, its instance to be orphaned",
            vm_observed(
                vm(metadata=DELETED | {"finalizers": [names.VM_FINALIZER, "orphan"]}), instance()
            ),
            [ReleaseFinalizer],
        ),
        (
            "deleted, somebody else's instance",
            vm_observed(vm(metadata=DELETED), STRANGER),
            [ReleaseFinalizer],
        ),
        (
            "deleted, and a start is asked for",
            vm_observed(vm("Manual", metadata=DELETED, status=requested(START))),
            [ReleaseFinalizer],
        ),
    ),
)
def test_plan(now: Observed, expected: list[Any]) -> None:
    assert [type(action) for action in plan(now)] == expected


def test_a_halted_machine_that_may_not_be_started_is_tried_again() -> None:
    halted = vm("Halted", status=requested(START))
    now = vm_observed(halted, failure="no", retry_at=LATER)
    assert (plan(now), now.look_again_in_s) == ([], 5)


def test_an_instance_is_deleted_with_its_machine_only_as_it_was_seen() -> None:
    [delete] = plan(vm_observed(vm(metadata=DELETED), instance()))
    assert delete == DeleteInstance(UID, resource_version="7")
