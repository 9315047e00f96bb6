"""What is wrong with the probes of a machine. Pure.

Invariant: what is accepted here, the API server accepts of a pod.
"""

import re
from collections.abc import Iterator

from podvisor_common.api import v1
from podvisor_common.api.unsupported import PROBE_HANDLERS

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    has_control,
    invalid,
    quoted,
    raw_at,
    word_causes,
)

_TIMINGS = (
    "initial_delay_seconds",
    "timeout_seconds",
    "period_seconds",
    "success_threshold",
    "failure_threshold",
)
_MAX_SECONDS = 24 * 3600
# As of the program that takes it to the launcher.
_COMMAND_LIMIT_BYTES = 60_000
_HEADER = re.compile(r"[-A-Za-z0-9!#$%&'*+.^_`|~]{1,256}")
_MAX_PORT = 65_535


def probe_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str
) -> Iterator[Cause]:
    """Checks `readinessProbe` and `livenessProbe`: exactly one handler each, and what that needs."""
    probes = {"readinessProbe": spec.readiness_probe, "livenessProbe": spec.liveness_probe}
    for name, probe in probes.items():
        if probe is None:
            continue
        field = f"{path}.{name}"
        yield from _handler_causes(raw_at(raw, name), field)
        yield from _timing_causes(probe, field, is_liveness=name == "livenessProbe")
        yield from _exec_causes(probe.exec, f"{field}.exec.command")
        yield from _http_causes(probe.http_get, f"{field}.httpGet")
        if probe.tcp_socket is not None:
            yield from _port_causes(probe.tcp_socket.port, f"{field}.tcpSocket.port")
            yield from _host_causes(probe.tcp_socket.host, f"{field}.tcpSocket.host")
        by_network = probe.http_get is not None or probe.tcp_socket is not None
        if by_network and not any(each.pod is not None for each in spec.networks or ()):
            yield invalid(
                field, "needs a network `pod`: the kubelet reaches the guest by no other."
            )
    if spec.liveness_probe is not None and spec.start_strategy:
        text = f"cannot be {quoted(spec.start_strategy)} with a livenessProbe, which a guest that stands still fails."
        yield invalid(f"{path}.startStrategy", text)


def _handler_causes(raw: dict[str, object], field: str) -> Iterator[Cause]:
    given = [name for name in PROBE_HANDLERS if raw.get(name) is not None]
    if not given:
        text = f"must have exactly one of {', '.join(PROBE_HANDLERS)}, not none."
        yield invalid(field, text, CauseReason.REQUIRED)
    elif len(given) > 1:
        yield invalid(field, f"must have exactly one of these, not {' and '.join(given)}.")


def _timing_causes(probe: v1.Probe, field: str, *, is_liveness: bool) -> Iterator[Cause]:
    for name in _TIMINGS:
        if not 0 <= getattr(probe, name) <= _MAX_SECONDS:
            first, *others = name.split("_")
            spelled = first + "".join(each.capitalize() for each in others)
            yield invalid(f"{field}.{spelled}", f"must be between 0 and {_MAX_SECONDS}.")
    if is_liveness and probe.success_threshold not in (0, 1):
        yield invalid(
            f"{field}.successThreshold", "must be 1: a guest is alive once it was seen so."
        )


def _exec_causes(action: v1.ExecAction | None, field: str) -> Iterator[Cause]:
    if action is None:
        return
    command = action.command or []
    if not command or not command[0]:
        yield invalid(field, "must name a program of the guest.", CauseReason.REQUIRED)
    elif any("\0" in each for each in command):
        yield invalid(field, "must not hold zero bytes.")
    elif sum(len(each.encode()) + 1 for each in command) > _COMMAND_LIMIT_BYTES:
        yield invalid(field, f"must not have more than {_COMMAND_LIMIT_BYTES} bytes.")


def _http_causes(action: v1.HTTPGetAction | None, field: str) -> Iterator[Cause]:
    if action is None:
        return
    yield from _port_causes(action.port, f"{field}.port")
    yield from _host_causes(action.host, f"{field}.host")
    yield from word_causes(action.scheme, f"{field}.scheme", ("HTTP", "HTTPS"))
    if has_control(action.path):
        yield invalid(f"{field}.path", "must not hold control characters.")
    for index, header in enumerate(action.http_headers or ()):
        if not _HEADER.fullmatch(header.name):
            yield invalid(
                f"{field}.httpHeaders[{index}].name", f"{quoted(header.name)} is no name."
            )


def _port_causes(port: int | str, field: str) -> Iterator[Cause]:
    if isinstance(port, str):
        yield invalid(field, f"{quoted(port)} must be a number: no port of the pod has a name.")
    elif not 1 <= port <= _MAX_PORT:
        yield invalid(field, f"must be between 1 and {_MAX_PORT}.")


def _host_causes(host: str, field: str) -> Iterator[Cause]:
    if has_control(host) or " " in host:
        yield invalid(field, f"{quoted(host)} is no host.")
