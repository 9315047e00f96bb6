"""pause, unpause, reset and softreboot through the real server: what the handler of the guest's node says is what counts."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.errors import Retryable
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES
from podvisor_common.rpc.errors import FailedPrecondition, Internal, NotFound, Unavailable

from tests.unit.controller.builders import vm_body
from tests.unit.edge.guests import KEY, Guests, guests, instance

METHODS = {
    "pause": "PauseDomain",
    "unpause": "ResumeDomain",
    "reset": "ResetDomain",
    "softreboot": "RebootDomain",
}


@pytest.fixture
async def it() -> AsyncIterator[Guests]:
    async with guests() as made:
        yield made


@pytest.mark.parametrize("verb", METHODS)
async def test_the_handler_carries_it_out(it: Guests, verb: str) -> None:
    assert await it.put(verb) == (202, None)
    assert it.handler.asked == [METHODS[verb]]
    (reference,) = it.handler.references
    assert (reference.namespace, reference.name, reference.uid) == (*KEY, "vmi-1")


@pytest.mark.parametrize(
    ("verb", "reason", "words"),
    [
        ("pause", "NotRunning", "VM is not running"),
        ("pause", "AlreadyPaused", "VMI is already paused"),
        ("unpause", "NotRunning", "VMI is not running"),
        ("unpause", "NotPaused", "VMI is not paused"),
        ("reset", "NotRunning", "VM is not running"),
        ("softreboot", "NotRunning", "VM is not running"),
        ("softreboot", "AlreadyPaused", "VMI is paused"),
    ],
)
async def test_what_it_refuses(it: Guests, verb: str, reason: str, words: str) -> None:
    it.handler.refusal = FailedPrecondition("no", reason=reason)
    code, status = await it.put(verb)
    assert status is not None
    assert (code, status["code"], status["reason"]) == (409, 409, "Conflict")
    assert status["message"].endswith(words)
    assert status["details"]["name"] == "myvm"


@pytest.mark.parametrize("verb", METHODS)
async def test_a_guest_that_is_nowhere(it: Guests, verb: str) -> None:
    nowhere: list[dict[str, Any]] = [{"nodeName": ""}, {"phase": "Succeeded"}]
    for status in nowhere:
        it.set(**status)
        code, answer = await it.put(verb)
        assert answer is not None
        assert (code, answer["message"].rpartition(" is ")[2]) == (409, "not running")
    assert it.handler.asked == []
    it.set()
    it.handler.refusal = NotFound("not here", reason="DomainNotFound")
    assert (await it.put(verb))[0] == 409
    it.server.remove(VIRTUAL_MACHINE_INSTANCES, KEY)
    code, answer = await it.put(verb)
    assert answer is not None
    assert (code, answer["message"]) == (
        404, 'virtualmachineinstance.kubevirt.io "myvm" not found',
    )  # fmt: skip


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable("away", reason="LauncherUnreachable"), 503),
        (FailedPrecondition("too old; restart", reason="LauncherTooOld"), 409),
        (Internal("a bug"), 500),
    ],
)
async def test_what_goes_wrong_on_the_way(it: Guests, error: Exception, code: int) -> None:
    it.handler.refusal = error
    answer = await it.put("pause")
    assert (answer[0], (answer[1] or {})["code"]) == (code, code)


async def test_a_launcher_that_is_not_there_yet(it: Guests) -> None:
    it.set(phase="Scheduled")
    it.handler.refusal = Unavailable("away", reason="LauncherUnreachable")
    assert (await it.put("pause"))[0] == 409


async def test_a_handler_that_is_not_there(it: Guests) -> None:
    it.handler.unreachable = Retryable("the handler of node n1 does not answer")
    code, status = await it.put("pause")
    assert (code, (status or {})["reason"]) == (503, "ServiceUnavailable")
    assert "n1" in (status or {})["message"]


async def test_a_dry_run_only_looks(it: Guests) -> None:
    dry = {"dryRun": ["All"]}
    assert (await it.put("pause", dry))[0] == 202
    assert (await it.put("unpause", dry))[0] == 409
    it.handler.state = domain_pb2.DOMAIN_STATE_PAUSED
    assert (await it.put("unpause", dry))[0] == 202
    assert (await it.put("pause", dry))[0] == 409
    it.handler.state = domain_pb2.DOMAIN_STATE_PREPARING
    assert (await it.put("pause", dry))[0] == 409
    assert set(it.handler.asked) == {"GetDomain"}
    assert (await it.put("pause", {"dryRan": ["All"]}))[0] == 400


async def test_a_guest_stays_paused_while_its_snapshot_is_taken(it: Guests) -> None:
    it.server.put(VIRTUAL_MACHINES, vm_body(status={"snapshotInProgress": "snap"}))
    code, status = await it.put("unpause")
    assert (code, it.handler.asked) == (409, [])
    assert (status or {})["message"].endswith("VM snapshot is in progress")


async def test_what_a_pause_would_be_taken_for_the_death_of(it: Guests) -> None:
    body = instance()
    body["spec"]["livenessProbe"] = {"tcpSocket": {"port": 22}}
    it.server.put(VIRTUAL_MACHINE_INSTANCES, body)
    code, status = await it.put("pause")
    assert (code, it.handler.asked) == (403, [])
    assert "LivenessProbe" in (status or {})["message"]
    body["spec"]["livenessProbe"] = {"guestAgentPing": {}}
    it.server.put(VIRTUAL_MACHINE_INSTANCES, body)
    assert await it.put("pause") == (202, None)


async def test_a_guest_that_cannot_be_asked_to_reboot(it: Guests) -> None:
    body = instance()
    body["spec"]["domain"]["features"] = {"acpi": {"enabled": False}}
    it.server.put(VIRTUAL_MACHINE_INSTANCES, body)
    code, status = await it.put("softreboot")
    assert (code, it.handler.asked) == (409, [])
    assert "nor the ACPI feature enabled" in (status or {})["message"]
    body["status"]["conditions"] = [{"type": "AgentConnected", "status": "True"}]
    it.server.put(VIRTUAL_MACHINE_INSTANCES, body)
    assert await it.put("softreboot") == (202, None)
    it.handler.refusal = FailedPrecondition("no", reason="GuestAgentNotConnected")
    code, status = await it.put("softreboot")
    assert (code, "nor the ACPI" in (status or {})["message"]) == (409, True)
