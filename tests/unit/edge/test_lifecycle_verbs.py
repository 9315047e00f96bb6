"""start, stop and restart, called as virtctl does: what they write, and what they answer where they do not."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import ObjectKey

from tests.unit.controller.builders import UID, Json, situations, vm_body, vmi_body
from tests.unit.edge.subresource_session import Authorizer, served
from tests.unit.edge.volume_calls import KEY, VM, VMI, ask, found

START: Json = {"action": "Start"}
PAUSED: Json = {"action": "Start", "data": {"paused": "true"}}
STOP: Json = {"action": "Stop", "uid": UID}
ANY_STOP = {"action": "Stop"}


@pytest.fixture
async def server() -> AsyncIterator[Authorizer]:
    async with Authorizer() as server:
        yield server


@pytest.fixture
async def proxy(server: Authorizer) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        KubeClient.for_url(server.url, user_agent="test") as client,
        served(client) as api,
        api.asked_by(api.proxy) as session,
    ):
        yield session


def put(server: Authorizer, strategy: str, phase: str | None = "Running") -> None:
    """A machine as its controller has left it, and its instance unless there is none."""
    server.put(VM, vm_body(strategy, status={"runStrategy": strategy}))
    if phase is not None:
        server.put(VMI, vmi_body(owned=True, status={"phase": phase}))


def asked(server: Authorizer) -> Any:
    return found(server, VM)["status"].get("stateChangeRequests")


def grace_period_s(server: Authorizer) -> Any:
    return found(server, VMI)["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
async def test_a_halted_machine_is_started_and_stopped_at_once(
    server: Authorizer, proxy: aiohttp.ClientSession, version: str
) -> None:
    put(server, "Halted", None)
    assert await ask(proxy, VM, "start", {}, version=version) == (202, "")
    assert found(server, VM)["spec"]["runStrategy"] == "Always"
    assert await ask(proxy, VM, "stop", b"", version=version) == (202, "")
    assert found(server, VM)["spec"]["runStrategy"] == "Halted"
    assert asked(server) is None


async def test_a_flag_stays_a_flag(server: Authorizer, proxy: aiohttp.ClientSession) -> None:
    body = vm_body(spec={"running": False})
    del body["spec"]["runStrategy"]
    server.put(VM, body)
    assert await ask(proxy, VM, "start", {}) == (202, "")
    spec = found(server, VM)["spec"]
    assert (spec["running"], "runStrategy" in spec) == (True, False)
    assert await ask(proxy, VM, "stop", {}) == (202, "")
    assert found(server, VM)["spec"]["running"] is False


async def test_a_machine_by_request_is_started_stopped_and_restarted_at_once(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    put(server, "Manual", None)
    assert await ask(proxy, VM, "start", {}) == (202, "")
    assert asked(server) == [START]
    assert await ask(proxy, VM, "restart", {}) == (202, "")
    assert asked(server) == [START]
    assert await ask(proxy, VM, "stop", {}) == (202, "")
    assert asked(server) == [ANY_STOP]
    server.put(VMI, vmi_body(owned=True, status={"phase": "Running"}))
    assert await ask(proxy, VM, "start", {"paused": True}) == (202, "")
    assert asked(server) == [ANY_STOP, START | {"data": {"paused": "true"}}]
    assert found(server, VM)["spec"]["runStrategy"] == "Manual"


@pytest.mark.parametrize("request_", [START, PAUSED], ids=["running", "paused"])
async def test_a_start_outlasts_the_halt_before_it(
    server: Authorizer, proxy: aiohttp.ClientSession, request_: Json
) -> None:
    """Which the controller has not acted upon yet, and which is the last word on what was asked before."""
    put(server, "Always")
    assert await ask(proxy, VM, "stop", {}) == (202, "")
    options = {"paused": True} if request_ == PAUSED else {}
    assert await ask(proxy, VM, "start", options) == (202, "")
    status = found(server, VM)["status"]
    assert (status["runStrategy"], status["stateChangeRequests"]) == ("Halted", [request_])
    assert await ask(proxy, VM, "restart", {}) == (202, "")
    assert asked(server) == [request_]
    assert await ask(proxy, VM, "stop", {}) == (202, "")
    assert asked(server) is None


async def test_a_guest_has_the_time_that_it_is_given(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    put(server, "Always")
    assert await ask(proxy, VM, "stop", {"gracePeriod": 3}) == (202, "")
    assert (grace_period_s(server), found(server, VM)["spec"]["runStrategy"]) == (3, "Halted")
    code, message = await ask(proxy, VM, "stop", {"gracePeriod": 3})
    assert (code, message.endswith("with a shorter graceperiod")) == (409, True)
    assert await ask(proxy, VM, "stop", {"gracePeriod": 0}) == (202, "")
    assert grace_period_s(server) == 0


async def test_a_restart_by_force(server: Authorizer, proxy: aiohttp.ClientSession) -> None:
    put(server, "Always")
    assert await ask(proxy, VM, "restart", {"gracePeriodSeconds": 0}) == (202, "")
    assert (grace_period_s(server), asked(server)) == (1, [STOP, START])
    code, message = await ask(proxy, VM, "restart", {})
    assert (code, message.endswith("stop/start already underway")) == (500, True)


async def test_a_guest_that_is_not_stopped_keeps_its_time(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    put(server, "Always")
    server.forbidden.add("virtualmachines")
    assert (await ask(proxy, VM, "stop", {"gracePeriod": 0}))[0] == 500
    assert grace_period_s(server) == 5


async def test_an_instance_that_goes_meanwhile_has_taken_its_time(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    put(server, "Always")
    # The second change is of the instance.
    server.before_change += [lambda: None, lambda: server.remove(VMI, KEY)]
    assert await ask(proxy, VM, "stop", {"gracePeriod": 0}) == (202, "")
    assert found(server, VM)["spec"]["runStrategy"] == "Halted"
    assert not server.before_change


async def test_what_was_asked_of_a_machine_goes_with_its_halt(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    """It was halted, started paused, and is stopped before the status tells that it runs always by now."""
    body = vm_body("Always", status={"runStrategy": "Halted", "stateChangeRequests": [PAUSED]})
    server.put(VM, body)
    assert await ask(proxy, VM, "stop", {}) == (202, "")
    assert (found(server, VM)["spec"]["runStrategy"], asked(server)) == ("Halted", None)


async def test_of_a_stranger_nothing_is_known(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    """An instance of that name which is not the machine's."""
    put(server, "Manual", None)
    server.put(VMI, vmi_body(status={"phase": "Running"}))
    code, message = await ask(proxy, VM, "stop", {"gracePeriod": 0})
    assert (code, message.endswith("VM is not running")) == (409, True)
    assert grace_period_s(server) == 5


@pytest.mark.parametrize("query", ["", "?dryRun=All"], ids=["body", "query"])
@pytest.mark.parametrize(
    ("strategy", "verb", "body"),
    situations(
        ("start", "Halted", "start", {"paused": True}),
        ("stop", "Always", "stop", {"gracePeriod": 0}),
        ("restart", "Manual", "restart", {"gracePeriodSeconds": 0}),
    ),
)
async def test_a_dry_run_only_checks(
    server: Authorizer,
    proxy: aiohttp.ClientSession,
    strategy: str,
    verb: str,
    body: Json,
    query: str,
) -> None:
    put(server, strategy)
    version = server.version
    options = body if query else body | {"dryRun": ["All"]}
    assert await ask(proxy, VM, verb + query, options) == (202, "")
    assert server.version == version
    patches = [r.query for r in server.requests if r.method == "PATCH"]
    assert patches == [{"dryRun": "All"}] * (1 if verb == "start" else 2)
    assert grace_period_s(server) == 5


@pytest.mark.parametrize(
    ("verb", "body", "text"),
    situations(
        ("no JSON", "start", b"{", "Can not unmarshal Request body to struct, error: "),
        ("no number", "stop", {"gracePeriod": "1"}, "Can not unmarshal Request body to struct"),
        ("a typing error", "stop", {"dryrun": ["All"]}, "StopOptions.dryrun is not a field"),
        (
            "another's",
            "start",
            {"gracePeriodSeconds": 0},
            "StartOptions.gracePeriodSeconds is not a",
        ),
        ("no dry run", "restart", {"dryRun": ["Some"]}, "dryRun must be empty or All"),
    ),
)
async def test_bad_requests(
    server: Authorizer, proxy: aiohttp.ClientSession, verb: str, body: Any, text: str
) -> None:
    put(server, "Always")
    code, message = await ask(proxy, VM, verb, body)
    assert (code, message[: len(text)]) == (400, text)
    assert not [r for r in server.requests if r.method == "PATCH"]


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
async def test_what_is_not_there(proxy: aiohttp.ClientSession, verb: str) -> None:
    expected = 'virtualmachine.kubevirt.io "nobody" not found'
    assert await ask(proxy, VM, verb, {}, key=ObjectKey("shop", "nobody")) == (404, expected)


async def test_whoever_writes_in_between_is_heeded(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    """The machine is started by somebody else, which is what the verb finds when it reads again."""
    put(server, "Manual", None)

    def start() -> None:
        vm = found(server, VM)
        server.put(VM, vm | {"status": vm["status"] | {"stateChangeRequests": [START]}})

    server.before_change.append(start)
    code, message = await ask(proxy, VM, "start", {})
    assert (code, message.endswith("stop/start already underway")) == (500, True)
    assert asked(server) == [START]
