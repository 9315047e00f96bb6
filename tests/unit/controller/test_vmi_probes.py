"""Probes of a guest, as the kubelet makes them of its container."""

from typing import Any

import pytest
from podvisor_common.api import v1
from podvisor_controller.vmi.probes import container_probes
from podvisor_controller.vmi.resources import MIB, memory_overhead_bytes

from tests.unit.controller.builders import CONFIG, Json
from tests.unit.controller.test_pod_volumes import machine

PROBE = "/usr/libexec/podvisor/probe"


def probed(**probes: Json) -> v1.VirtualMachineInstance:
    return machine(**probes)


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (
            {"guestAgentPing": {}, "timeoutSeconds": 3, "periodSeconds": 5},
            {
                "exec": {"command": [PROBE, "3", "ping"]},
                "timeoutSeconds": 3,
                "periodSeconds": 5,
            },
        ),
        (
            {"exec": {"command": ["/bin/check", "--", ""]}, "failureThreshold": 2},
            {
                "exec": {"command": [PROBE, "1", "exec", "/bin/check", "--", ""]},
                "failureThreshold": 2,
            },
        ),
        (
            {"httpGet": {"port": 80, "path": "/a", "httpHeaders": [{"name": "b", "value": ""}]}},
            {"httpGet": {"port": 80, "path": "/a", "httpHeaders": [{"name": "b", "value": ""}]}},
        ),
        (
            {"tcpSocket": {"port": 22}, "initialDelaySeconds": 9},
            {"tcpSocket": {"port": 22}, "initialDelaySeconds": 9},
        ),
    ],
    ids=["ping", "exec", "http", "tcp"],
)
def test_how_a_probe_is_made(probe: Json, expected: dict[str, Any]) -> None:
    assert container_probes(probed(readinessProbe=probe)) == {"readinessProbe": expected}
    assert container_probes(probed(livenessProbe=probe)) == {"livenessProbe": expected}


def test_without_any_nothing_is_said() -> None:
    assert container_probes(machine()) == {}


def test_a_probe_by_the_agent_has_its_memory() -> None:
    ping: Json = {"guestAgentPing": {}}
    plain = memory_overhead_bytes(machine(), CONFIG)
    by_network = probed(readinessProbe={"tcpSocket": {"port": 22}})
    both = probed(readinessProbe=ping, livenessProbe=ping)
    assert memory_overhead_bytes(by_network, CONFIG) == plain
    assert memory_overhead_bytes(both, CONFIG) == plain + 20 * MIB
