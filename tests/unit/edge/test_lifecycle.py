"""start, stop and restart: what each of them makes of a machine as it is, and where it is refused."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_controller.subresources import lifecycle
from podvisor_controller.subresources.lifecycle import Writing
from podvisor_controller.subresources.statuses import StatusError

from tests.unit.controller.builders import UID, Json, situations, stamp, vm_body, vmi_body

START: Json = {"action": "Start"}
STOP: Json = {"action": "Stop", "uid": UID}
PAUSED = {"action": "Start", "data": {"paused": "true"}}
AGAIN = {"action": "Start", "uid": UID}  # our own: the instance has failed, and is to be run again
OLD_STOP = {"action": "Stop", "uid": "of-another"}
ANY_STOP = {"action": "Stop"}  # of whatever instance there is


def vm(strategy: str, *asked: Json, acted_upon: str = "") -> v1.VirtualMachine:
    status = {"stateChangeRequests": list(asked), "runStrategy": acted_upon or strategy}
    return msgspec.convert(vm_body(strategy, status=status), v1.VirtualMachine)


def vmi(phase: str = "Running", *, going: bool = False) -> v1.VirtualMachineInstance:
    metadata = {"deletionTimestamp": stamp(1)} if going else {}
    body = vmi_body(owned=True, status={"phase": phase}, metadata=metadata)
    return msgspec.convert(body, v1.VirtualMachineInstance)


def asking(*requests: Json, **changes: Any) -> Writing:
    asked = msgspec.convert(list(requests), list[v1.VirtualMachineStateChangeRequest])
    return Writing(requests=asked, **changes)


ALWAYS, HALTED = Writing(strategy="Always"), Writing(strategy="Halted")  # type: ignore[arg-type]
RUNS, RUNS_NOT = "VM is already running", "VM is not running"
UNDERWAY = (500, "Internal error occurred: unable to complete request: stop/start already underway")
Given = tuple[v1.VirtualMachine, v1.VirtualMachineInstance | None]


def outcome(decide: Any, given: Given, options: Any) -> Writing | tuple[int, str]:
    try:
        return decide(*given, options)  # type: ignore[no-any-return]
    except StatusError as error:
        return error.code, error.message.rpartition('"myvm": ')[2]


@pytest.mark.parametrize(
    ("given", "expected"),
    situations(
        ("halted", (vm("Halted"), None), ALWAYS),
        ("halted, its guest on its way out", (vm("Halted"), vmi(going=True)), asking(START)),
        ("halted a moment ago", (vm("Halted", acted_upon="Always"), vmi()), asking(START)),
        ("halted, its guest has ended", (vm("Halted"), vmi("Succeeded")), asking(START)),
        ("halted and started already", (vm("Halted", START), vmi()), UNDERWAY),
        ("runs", (vm("Always"), vmi()), (409, RUNS)),
        ("is about to run", (vm("Manual"), vmi("")), (409, RUNS)),
        ("always", (vm("Always"), None), (409, "Always does not support manual start requests")),
        ("once", (vm("Once"), vmi("Failed")), (409, "Once does not support manual start requests")),
        ("by request", (vm("Manual"), None), asking(START)),
        ("was started a moment ago", (vm("Manual", START), None), UNDERWAY),
        ("was stopped a moment ago", (vm("Manual", STOP), vmi()), asking(STOP, START)),
        ("is being stopped", (vm("Manual", STOP), vmi(going=True)), asking(STOP, START)),
        ("is being restarted", (vm("Manual", STOP, START), vmi()), UNDERWAY),
        ("a stop is over", (vm("Manual", OLD_STOP), None), asking(START)),
        ("has ended", (vm("Manual"), vmi("Failed")), asking(STOP, START)),
        ("has shut down", (vm("RerunOnFailure"), vmi("Succeeded")), asking(STOP, START)),
        ("its instance is deleted by hand", (vm("Manual"), vmi(going=True)), asking(START)),
        (
            "has failed and is stopped",
            (vm("RerunOnFailure", ANY_STOP), vmi("Failed")),
            asking(ANY_STOP, START),
        ),
        (
            "has failed and is run again",
            (vm("RerunOnFailure", AGAIN), vmi("Failed")),
            (409, "RerunOnFailure does not support starting VM from failed state"),
        ),
    ),
)
def test_start(given: Given, expected: Writing | tuple[int, str]) -> None:
    assert outcome(lifecycle.start, given, v1.StartOptions()) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    situations(
        ("halted", (vm("Halted"), None), asking(PAUSED)),
        ("halted a moment ago", (vm("Halted", acted_upon="Always"), vmi()), asking(PAUSED)),
        ("by request", (vm("Manual"), None), asking(PAUSED)),
        ("asked for already", (vm("Halted", PAUSED), None), UNDERWAY),
    ),
)
def test_start_paused(given: Given, expected: Writing | tuple[int, str]) -> None:
    assert outcome(lifecycle.start, given, v1.StartOptions(paused=True)) == expected


SHORTER = "Halted only supports manual stop requests with a shorter graceperiod"


@pytest.mark.parametrize(
    ("given", "grace_s", "expected"),
    situations(
        ("runs", (vm("Always"), vmi()), None, HALTED),
        ("is about to", (vm("Always"), None), None, HALTED),
        ("within that time", (vm("Always"), vmi()), 1, Writing("Halted", None, 1)),  # type: ignore[arg-type]
        ("has ended", (vm("Once"), vmi("Failed")), 1, HALTED),
        ("within more time than it has", (vm("Always"), vmi()), 60, HALTED),
        ("was asked before", (vm("Always", PAUSED), None), None, Writing("Halted", [])),  # type: ignore[arg-type]
        ("by request", (vm("Manual"), vmi()), None, asking(ANY_STOP)),
        ("at once", (vm("Manual"), vmi()), 0, asking(ANY_STOP, grace_period_s=0)),
        ("was started a moment ago", (vm("Manual", START), None), None, asking(ANY_STOP)),
        ("is being restarted", (vm("Manual", STOP, START), vmi()), None, asking(ANY_STOP)),
        ("is run again", (vm("RerunOnFailure", AGAIN), vmi("Failed")), None, asking(ANY_STOP)),
        ("failed just now", (vm("RerunOnFailure"), vmi("Failed")), None, asking(ANY_STOP)),
        ("runs not", (vm("Manual"), None), None, (409, RUNS_NOT)),
        ("has shut down", (vm("RerunOnFailure"), vmi("Succeeded")), None, (409, RUNS_NOT)),
        ("halted", (vm("Halted"), None), 0, (409, RUNS_NOT)),
        ("is to start paused", (vm("Halted", PAUSED), None), None, asking()),
        ("on its way out", (vm("Halted"), vmi(going=True)), None, (409, SHORTER)),
        ("the same time", (vm("Halted"), vmi(going=True)), 5, (409, SHORTER)),
        ("less time", (vm("Halted"), vmi(going=True)), 4, Writing(grace_period_s=4)),
        (
            "no time",
            (vm("Manual"), vmi()),
            -1,
            (400, "gracePeriod has to be between 0 and 31536000"),
        ),
        (
            "more than a year",
            (vm("Manual"), vmi()),
            31536001,
            (400, "gracePeriod has to be between 0 and 31536000"),
        ),
    ),
)
def test_stop(given: Given, grace_s: int | None, expected: Writing | tuple[int, str]) -> None:
    assert outcome(lifecycle.stop, given, v1.StopOptions(grace_period=grace_s)) == expected


@pytest.mark.parametrize(
    ("given", "grace_s", "expected"),
    situations(
        ("runs", (vm("Always"), vmi()), None, asking(STOP, START)),
        ("at once", (vm("Always"), vmi()), 0, asking(STOP, START, grace_period_s=1)),
        ("has ended", (vm("Always"), vmi("Failed")), 0, asking(STOP, START)),
        ("was started a moment ago", (vm("Manual", START), None), None, Writing()),
        ("is about to run", (vm("Always"), None), None, Writing()),
        ("runs not", (vm("Manual"), None), None, (409, f"{RUNS_NOT}: Halted")),
        ("is run again", (vm("RerunOnFailure", AGAIN), vmi("Failed")), None, asking(STOP, START)),
        ("is to start paused", (vm("Halted", PAUSED), None), None, Writing()),
        ("is being stopped", (vm("Manual", STOP), vmi()), None, UNDERWAY),
        ("takes too long", (vm("Manual", STOP, START), vmi()), 0, Writing(grace_period_s=1)),
        ("is being stopped, at once", (vm("Manual", STOP), vmi()), 0, UNDERWAY),
        ("is being restarted", (vm("Always", STOP, START), vmi()), None, UNDERWAY),
        (
            "halted",
            (vm("Halted"), vmi()),
            None,
            (409, "RunStategy Halted does not support manual restart requests"),
        ),
        (
            "once",
            (vm("Once"), vmi()),
            None,
            (409, "RunStategy Once does not support manual restart requests"),
        ),
        (
            "in that time",
            (vm("Always"), vmi()),
            1,
            (400, "For force restart, only gracePeriod=0 is supported for now"),
        ),
        (
            "no time",
            (vm("Always"), vmi()),
            -1,
            (400, "gracePeriod has to be greater or equal to 0"),
        ),
    ),
)
def test_restart(given: Given, grace_s: int | None, expected: Writing | tuple[int, str]) -> None:
    options = v1.RestartOptions(grace_period_seconds=grace_s)
    assert outcome(lifecycle.restart, given, options) == expected
