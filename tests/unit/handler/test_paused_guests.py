"""What is said of a guest that stands still, and for how long."""

from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import meta, v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.vmi.status import events_of

from tests.unit.handler.observations import (
    LATER,
    RUNNING_MACHINE,
    UNHEARD_OF,
    condition,
    observed,
    said,
    written,
)


def pause_of(status: v1.VirtualMachineInstanceStatus) -> meta.Condition:
    found = meta.find_condition(status.conditions, "Paused")
    assert found is not None
    return found


def test_a_pause_and_its_end_are_told_once() -> None:
    paused = said(observed(domain_pb2.DOMAIN_STATE_PAUSED, machine=RUNNING_MACHINE))
    assert events_of(RUNNING_MACHINE.status, paused) == [
        ("Normal", "Paused", "VMI was paused by user")
    ]
    assert events_of(written(paused).status, paused) == []
    goes_on = said(observed(machine=written(paused)))
    assert events_of(written(paused).status, goes_on) == [
        ("Normal", "Unpaused", "VirtualMachineInstance unpaused.")
    ]
    assert events_of(written(goes_on).status, goes_on) == []


def test_a_guest_that_its_disk_has_stopped_is_a_warning() -> None:
    io_error: dict[str, Any] = {"reason": domain_pb2.DOMAIN_REASON_IO_ERROR, "message": "no space"}
    now = observed(domain_pb2.DOMAIN_STATE_PAUSED, machine=RUNNING_MACHINE, **io_error)
    message = "VMI was paused, low-level IO error detected: no space"
    assert events_of(RUNNING_MACHINE.status, said(now)) == [("Warning", "Paused", message)]


def test_a_paused_guest_that_ends_does_not_go_on() -> None:
    paused = written(said(observed(domain_pb2.DOMAIN_STATE_PAUSED, machine=RUNNING_MACHINE)))
    shut_down: dict[str, Any] = {"reason": domain_pb2.DOMAIN_REASON_SHUTDOWN}
    ended = said(observed(domain_pb2.DOMAIN_STATE_ENDED, machine=paused, **shut_down))
    reasons = [reason for _, reason, _ in events_of(paused.status, ended)]
    assert reasons == ["Stopped"]


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param(
            {"state": None, "connection": Connection.UNRESPONSIVE, "silent_for_s": 60.0},
            id="the launcher does not answer a restarted handler",
        ),
        pytest.param(
            {"reason": domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE},
            id="libvirt does not answer a restarted launcher",
        ),
        pytest.param(
            {
                "state": domain_pb2.DOMAIN_STATE_PAUSED,
                "reason": domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE,
                "message": "libvirt does not answer.",
            },
            id="libvirt does not answer",
        ),
        pytest.param({"state": UNHEARD_OF}, id="a later release's state"),
    ],
)
def test_a_pause_lasts_while_nobody_knows_what_the_guest_does(unknown: dict[str, Any]) -> None:
    io_error: dict[str, Any] = {"reason": domain_pb2.DOMAIN_REASON_IO_ERROR}
    paused = said(observed(domain_pb2.DOMAIN_STATE_PAUSED, machine=RUNNING_MACHINE, **io_error))
    now = said(observed(machine=written(paused), **unknown), LATER)
    assert condition(now, "Ready")[0] == "Unknown"
    assert pause_of(now) == pause_of(paused)
    assert events_of(written(paused).status, now) == []


def test_whose_pause_it_is_is_not_made_up_while_libvirt_does_not_answer() -> None:
    silent: dict[str, Any] = {"reason": domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE}
    now = said(observed(domain_pb2.DOMAIN_STATE_PAUSED, machine=RUNNING_MACHINE, **silent))
    assert condition(now, "Paused") == ("True", "Paused")


def test_a_guest_that_ran_is_not_paused_because_its_launcher_is_silent() -> None:
    silent: dict[str, Any] = {"connection": Connection.UNRESPONSIVE, "silent_for_s": 60.0}
    now = said(observed(None, machine=RUNNING_MACHINE, **silent))
    assert condition(now, "Paused") == ("", "")
