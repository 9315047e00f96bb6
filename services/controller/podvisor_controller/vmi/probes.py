"""Probes of the guest as probes of the container `compute`. Pure.

By the network they are what they are: what reaches the pod's address reaches the guest. By the agent they run a small program beside
the launcher, which asks it.
"""

import msgspec
from podvisor_common.api import v1

from podvisor_controller.vmi.container import PROGRAMS_DIRECTORY, Manifest

_PROGRAM = f"{PROGRAMS_DIRECTORY}/probe"
_TIMINGS = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)


def container_probes(vmi: v1.VirtualMachineInstance) -> Manifest:
    """The fields of the container that the instance's probes make."""
    fields = {"readinessProbe": vmi.spec.readiness_probe, "livenessProbe": vmi.spec.liveness_probe}
    return {name: _rendered(probe) for name, probe in fields.items() if probe is not None}


def agent_probes(vmi: v1.VirtualMachineInstance) -> int:
    """How many of the probes are made by the guest's agent."""
    probes = (vmi.spec.readiness_probe, vmi.spec.liveness_probe)
    return sum(probe is not None and probe.asks_agent for probe in probes)


def _rendered(probe: v1.Probe) -> Manifest:
    body: Manifest = msgspec.to_builtins(probe)
    timings = {name: body[name] for name in _TIMINGS if body.get(name)}
    timeout_s = str(probe.timeout_seconds or 1)
    if probe.exec is not None:
        command = [_PROGRAM, timeout_s, "exec", *(probe.exec.command or ())]
        return {"exec": {"command": command}, **timings}
    if probe.guest_agent_ping is not None:
        return {"exec": {"command": [_PROGRAM, timeout_s, "ping"]}, **timings}
    kinds = ("httpGet", "tcpSocket")
    return {**{kind: body[kind] for kind in kinds if body.get(kind) is not None}, **timings}
