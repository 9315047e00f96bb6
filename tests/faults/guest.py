"""A machine whose guest bears witness: it counts, and it knows how long it has been up.

A guest that went on undisturbed has the same boot, an uptime that grew with the clock on the wall, and the same counting
process, which has counted on.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, user_data, vm, vmi, vmi_spec

_COUNTER = (
    "  - (i=0; while sleep 0.2; do i=$((i+1)); echo $i >/tmp/counter; done) >/dev/null 2>&1 &"
)
_TESTIMONY = "cat /proc/sys/kernel/random/boot_id /proc/uptime /tmp/counter"
# What a testimony may be off by: an ssh login under emulation on a busy machine.
_TOLERANCE_S = 4.0


@dataclass(frozen=True, slots=True)
class Witness:
    """What a guest said of itself."""

    at_s: float  # monotonic, when it was asked
    boot_id: str
    uptime_s: float
    counter: int


def counting(name: str, **changes: Any) -> Json:
    """A spec of a small machine whose guest counts."""
    spec = vmi_spec(name, **changes)
    seed = user_data(name, "runcmd:", _COUNTER)
    spec["volumes"][1]["cloudInitNoCloud"]["userData"] = seed
    return spec


def counting_vmi(name: str, **changes: Any) -> Json:
    """A VirtualMachineInstance whose guest counts."""
    return vmi(name) | {"spec": counting(name, **changes)}


def counting_vm(name: str, *, run_strategy: str = "Always", **changes: Any) -> Json:
    """A VirtualMachine whose guest counts."""
    manifest = vm(name, run_strategy=run_strategy)
    manifest["spec"]["template"]["spec"] = counting(name, **changes)
    return manifest


async def booted(cluster: Cluster, manifest: Mapping[str, Any]) -> Machine:
    """Apply a manifest and wait for its login prompt."""
    await cluster.apply(manifest)
    machine = Machine(cluster, manifest["metadata"]["name"])
    await machine.console_shows(rf"{machine.name} login:")
    return machine


async def witness_of(machine: Machine) -> Witness:
    """Ask the guest."""
    boot_id, uptime, counter = (await machine.ssh(_TESTIMONY)).stdout.strip().splitlines()
    return Witness(time.monotonic(), boot_id, float(uptime.split()[0]), int(counter))


async def lived_on(machine: Machine, before: Witness) -> Witness:
    """Assert that the guest went on undisturbed since `before`; its present testimony."""
    now = await witness_of(machine)
    assert now.boot_id == before.boot_id, "the guest has booted again"
    passed_s = now.at_s - before.at_s
    grown_s = now.uptime_s - before.uptime_s
    assert abs(grown_s - passed_s) < _TOLERANCE_S, f"{passed_s:.1f} s passed, {grown_s:.1f} s there"
    assert now.counter > before.counter, "the guest does not count on"
    return now
