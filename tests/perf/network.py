"""What the network between a pod and a guest carries, by each binding, and between two pods as the limit: throughput by iperf3, both ways,
and the time that a line takes there and back over a connection that is there.

Invariant: who is measured has the cluster for itself, and the same pod is the other end of all.
"""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.perf.measure import Figure, can_virtualise, percentile
from tests.perf.programs import programs
from tests.perf.wiring import wiring
from tests.support.cluster import Cluster, namespace
from tests.support.machine import Machine
from tests.support.networks import (
    BINDINGS,
    ECHOES,
    Binding,
    networked_vmi,
    reachable_by,
    serve,
    serving_pod,
)
from tests.support.talk import Place, guest, pod

SAMPLES, SECONDS = 3, 3
ROUND_TRIPS = 500
_IPERF, _NEAR, _FAR = 5201, "near", "far"
# iperf3's client sends, unless it is told to receive.
_WAYS: Mapping[str, str] = {"from_pod": "", "to_pod": "--reverse"}
# bash, since whoever starts a process for each line measures that.
_PINGS = (
    "exec 3<>/dev/tcp/{address}/{port}; for _ in $(seq {count}); do b=$EPOCHREALTIME; echo x >&3; read -r _ <&3;"
    " e=$EPOCHREALTIME; echo $((${{e/./}} - ${{b/./}})); done"
)


@dataclass(frozen=True, slots=True)
class Carried:
    """What was measured at one address."""

    mbit_per_s: Mapping[str, Sequence[float]]  # by the way, of _WAYS
    round_trips_ms: Sequence[float]


async def network(samples: int = SAMPLES) -> list[Figure]:
    """Set-up, then another pod, then one guest after another."""
    found: dict[str, Carried] = {}
    async with namespace(f"perf-network-{int(time.time())}") as cluster:
        for name in (_NEAR, _FAR):
            await cluster.apply(serving_pod(name))
        for name in (_NEAR, _FAR):
            ready = (f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
            await cluster.kubectl("wait", *ready, timeout_s=70)
        state = await cluster.get("pod", _FAR)
        assert state is not None
        found["pod"] = await _measured(
            cluster, pod(cluster, _FAR), state["status"]["podIP"], samples
        )
        _show("pod", found["pod"])
        for binding in BINDINGS:
            found[binding] = await _of_guest(cluster, binding, samples)
            _show(binding, found[binding])
    return [*await wiring(), *await programs(), *figures(found)]


def figures(found: Mapping[str, Carried]) -> list[Figure]:
    """By what is at the other end: a pod, or a guest by one of the bindings."""
    by, listed = "KVM" if can_virtualise() else "TCG", []
    for what, carried in found.items():
        other = "pod" if what == "pod" else f"guest ({by}, {what})"
        for way, rates in carried.mbit_per_s.items():
            title = f"throughput, {way.replace('_', ' ')}, {other}"
            listed.append(Figure(f"network_{way}_{what}", title, "Mbit/s", rates))
        for share in (50, 99):
            value = percentile(carried.round_trips_ms, share / 100)
            title = f"round trip p{share}, pod to {other}"
            listed.append(Figure(f"network_rtt_p{share}_{what}", title, "ms", [value]))
    return listed


def mbit_per_s(printed: str) -> float:
    """What arrived, as iperf3 --json says it. Raises ValueError with iperf3's words when it failed."""
    report = json.loads(printed)
    if "error" in report:
        raise ValueError(report["error"])
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6


async def _of_guest(cluster: Cluster, binding: Binding, samples: int) -> Carried:
    name = binding.lower()
    interface = {"default": reachable_by(binding, _IPERF)}
    await cluster.apply(networked_vmi(name, {"default": {"pod": {}}}, interface))
    machine = Machine(cluster, name)
    await machine.console_shows(rf"{name} login:")
    await serve(machine)
    address = (await machine.pod())["status"]["podIP"]
    measured = await _measured(cluster, guest(machine), address, samples)
    await cluster.kubectl("delete", f"vmi/{name}", "--timeout=60s", timeout_s=70)
    return measured


async def _measured(cluster: Cluster, other: Place, address: str, samples: int) -> Carried:
    await other.run(f"iperf3 --server --daemon --port {_IPERF}")
    near = pod(cluster, _NEAR)
    rates: dict[str, list[float]] = {way: [] for way in _WAYS}
    for way, flag in _WAYS.items():
        command = f"iperf3 --json --time {SECONDS} --client {address} --port {_IPERF} {flag}"
        for _ in range(samples):
            rates[way].append(mbit_per_s(await near.run(command)))
    pings = _PINGS.format(address=address, port=ECHOES, count=ROUND_TRIPS)
    microseconds = (await near.run(pings)).split()
    return Carried(rates, [int(text) / 1000 for text in microseconds])


def _show(what: str, carried: Carried) -> None:
    rates = ", ".join(
        f"{way} {statistics.median(rates):.0f} Mbit/s" for way, rates in carried.mbit_per_s.items()
    )
    usual = statistics.median(carried.round_trips_ms)
    print(f"» {what}: {rates}, round trip {usual:.2f} ms", flush=True)
