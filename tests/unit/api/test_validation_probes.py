"""Probes of a machine: what the pod's own validation would refuse, and what a guest cannot have, is refused by path."""

from typing import Any

import pytest
from podvisor_controller.webhooks.defaults import default_virtual_machine_instance
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import changed, instance, is_refused
from tests.unit.controller.builders import Json, situations

PING: Json = {"guestAgentPing": {}}


def http(**change: Any) -> Json:
    return {"httpGet": {"port": 80} | change}


@pytest.mark.parametrize(
    ("probe", "field", "message"),
    situations(
        ("nothing to try", {}, "", "exactly one of exec, guestAgentPing, httpGet, tcpSocket"),
        ("two to try", PING | http(), "", "not guestAgentPing and httpGet"),
        ("no command", {"exec": {}}, ".exec.command", "must name a program"),
        ("an empty program", {"exec": {"command": [""]}}, ".exec.command", "must name a program"),
        ("a zero byte", {"exec": {"command": ["a\0b"]}}, ".exec.command", "zero bytes"),
        ("a long command", {"exec": {"command": ["a" * 60_000]}}, ".exec.command", "60000 bytes"),
        ("a port by name", http(port="web"), ".httpGet.port", "must be a number"),
        ("no port", {"tcpSocket": {"port": 0}}, ".tcpSocket.port", "between 1 and 65535"),
        ("a scheme", http(scheme="ftp"), ".httpGet.scheme", "must be one of: HTTP, HTTPS"),
        ("a header", http(httpHeaders=[{"name": "a b", "value": ""}]), ".httpGet.httpHeaders[0].name", "is no name"),
        ("a path", http(path="/\n"), ".httpGet.path", "control characters"),
        ("a host", http(host="a b"), ".httpGet.host", "is no host"),
        ("a negative pause", PING | {"periodSeconds": -1}, ".periodSeconds", "between 0 and"),
        ("an endless try", PING | {"timeoutSeconds": 90_000}, ".timeoutSeconds", "between 0 and"),
    ),
)  # fmt: skip
@pytest.mark.parametrize("kind", ["readinessProbe", "livenessProbe"])
def test_bad_probe(kind: str, probe: Json, field: str, message: str) -> None:
    is_refused(kind, probe, f"{kind}{field}", message)


def test_a_guest_that_is_alive_was_seen_so_once() -> None:
    twice = PING | {"successThreshold": 2}
    is_refused("livenessProbe", twice, "livenessProbe.successThreshold", "must be 1")
    assert validate_virtual_machine(changed("readinessProbe", twice)) == []


def test_a_guest_that_stands_still_is_not_alive() -> None:
    obj = changed("livenessProbe", PING)
    obj["spec"]["template"]["spec"]["startStrategy"] = "Paused"
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.startStrategy"
    assert "livenessProbe" in cause.message


@pytest.mark.parametrize(
    "probe",
    [
        PING,
        {"exec": {"command": ["/bin/check", "-x", ""]}, "timeoutSeconds": 5},
        http(path="/ready", scheme="HTTPS", httpHeaders=[{"name": "X-A", "value": "b"}]),
        {"tcpSocket": {"port": 22}, "initialDelaySeconds": 60, "failureThreshold": 10},
    ],
    ids=lambda probe: next(iter(probe)),
)
def test_good_probe(probe: Json) -> None:
    for kind in ("readinessProbe", "livenessProbe"):
        assert validate_virtual_machine(changed(kind, probe)) == []


def test_by_the_network_only_where_there_is_the_pods() -> None:
    for probe, is_fine in ((http(), False), ({"tcpSocket": {"port": 22}}, False), (PING, True)):
        obj = changed("readinessProbe", probe)
        spec = obj["spec"]["template"]["spec"]
        spec["networks"] = []
        spec["domain"]["devices"] |= {"interfaces": [], "autoattachPodInterface": False}
        causes = [cause.field for cause in validate_virtual_machine(obj)]
        assert (causes == []) is is_fine


def test_what_admission_fills_in() -> None:
    given = instance()
    given["spec"]["readinessProbe"] = PING | {"periodSeconds": 3, "timeoutSeconds": 0}
    operations = {
        each["path"]: each.get("value") for each in default_virtual_machine_instance(given)
    }
    filled = {
        path.rpartition("/")[2]: value
        for path, value in operations.items()
        if path.startswith("/spec/readinessProbe/")
    }
    assert filled == {"timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}
