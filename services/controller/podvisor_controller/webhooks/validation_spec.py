"""What is wrong with the specification of a machine, in an instance or in a template. Pure."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from uuid import UUID

from podvisor_common.api import v1
from podvisor_common.api.quantity import Quantity, parse_quantity

from podvisor_controller.webhooks.validation_devices import (
    boot_order_causes,
    disk_causes,
    volume_causes,
)
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    bad_quantity,
    invalid,
    quoted,
    unsupported,
)
from podvisor_controller.webhooks.validation_network import network_causes
from podvisor_controller.webhooks.validation_placement import placement_causes

_MAX_GRACE_PERIOD_S = 365 * 24 * 3600
_CPU_MODEL = re.compile(r"[A-Za-z0-9_.+-]+")
_LEAST_MEMORY = "1M"
# More than any board addresses. Near Kubernetes' own limit the pod's request, which is more, would overflow.
_MOST_MEMORY = "16Ti"
_MAX_VCPUS = 512
# Machine types by architecture, as glob patterns.
_MACHINE_TYPES = {"amd64": ("q35*", "pc-q35*"), "arm64": ("virt*",)}
_ANY_MACHINE_TYPE = tuple(pattern for patterns in _MACHINE_TYPES.values() for pattern in patterns)


def spec_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str
) -> list[Cause]:
    """Everything wrong with a specification. `raw` is the same one before decoding, for the fields decoding drops."""
    return [
        *unsupported(raw, v1.VirtualMachineInstanceSpec, path),
        *_life_causes(spec, path),
        *placement_causes(spec, path),
        *_resource_causes(spec.domain, f"{path}.domain"),
        *_cpu_causes(spec.domain, f"{path}.domain.cpu"),
        *_firmware_causes(spec, path),
        *disk_causes(spec, raw, path),
        *volume_causes(spec, raw, path),
        *network_causes(spec, raw, path),
        *boot_order_causes(spec, path),
    ]


def _life_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    if spec.architecture and spec.architecture not in _MACHINE_TYPES:
        yield invalid(
            f"{path}.architecture",
            f"{quoted(spec.architecture)} must be one of: {', '.join(_MACHINE_TYPES)}",
            CauseReason.NOT_SUPPORTED,
        )
    grace_period_s = spec.termination_grace_period_seconds
    if grace_period_s is not None and not 0 <= grace_period_s <= _MAX_GRACE_PERIOD_S:
        yield invalid(
            f"{path}.terminationGracePeriodSeconds",
            f"must be between 0 and {_MAX_GRACE_PERIOD_S}, which is a year.",
        )


def _resource_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    resources = domain.resources or v1.ResourceRequirements()
    requests, limits = resources.requests or {}, resources.limits or {}
    guest = domain.memory.guest if domain.memory else None
    good = True
    for where, amounts in (("requests", requests), ("limits", limits)):
        for name, value in amounts.items():
            field = f"{path}.resources.{where}.{name}"
            cause = bad_quantity(field, value) or (
                _out_of_range(field, value) if name == "memory" else None
            )
            if cause:
                good = False
                yield cause
    if guest is not None and not _repeats(guest, requests, limits):
        field = f"{path}.memory.guest"
        cause = bad_quantity(field, guest) or _out_of_range(field, guest)
        if cause:
            good = False
            yield cause
    if guest is None and "memory" not in requests and "memory" not in limits:
        yield Cause(
            f"{path}.memory",
            f"no memory requested, at least one of {path}.memory.guest,"
            f" {path}.resources.requests.memory and {path}.resources.limits.memory must be set",
            CauseReason.REQUIRED,
        )
    if good:
        yield from _limit_causes(requests, limits, guest, path)


def _repeats(guest: Quantity, requests: dict[str, Quantity], limits: dict[str, Quantity]) -> bool:
    """The guest's memory is what the pod's was: most likely admission's own default, and one error is enough."""
    return guest == requests.get("memory", limits.get("memory"))


def _out_of_range(field: str, value: Quantity) -> Cause | None:
    if parse_quantity(value) < parse_quantity(_LEAST_MEMORY):
        return invalid(field, f"{quoted(value)}: must be greater than or equal to {_LEAST_MEMORY}.")
    if parse_quantity(value) > parse_quantity(_MOST_MEMORY):
        return invalid(field, f"{quoted(value)}: must be less than or equal to {_MOST_MEMORY}.")
    return None


def _limit_causes(
    requests: dict[str, Quantity], limits: dict[str, Quantity], guest: Quantity | None, path: str
) -> Iterator[Cause]:
    """Nothing exceeds its limit. All quantities are known to be good."""
    for name, limit in limits.items():
        request = requests.get(name)
        if request is not None and parse_quantity(request) > parse_quantity(limit):
            yield invalid(
                f"{path}.resources.requests.{name}",
                f"{quoted(request)} is greater than {path}.resources.limits.{name} {quoted(limit)}",
            )
    if "memory" not in limits or guest is None or _repeats(guest, requests, limits):
        return
    limit = limits["memory"]
    if parse_quantity(guest) > parse_quantity(limit):
        yield invalid(
            f"{path}.memory.guest",
            f"{quoted(guest)} must be equal to or less than the memory limit {quoted(limit)}",
        )


def _cpu_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    if domain.cpu is None:
        return
    vcpus = 1
    for name in ("cores", "sockets", "threads"):
        count = getattr(domain.cpu, name)
        if count is not None and count < 1:
            yield invalid(f"{path}.{name}", "must be greater than 0.")
        vcpus *= count or 1
    if vcpus > _MAX_VCPUS:
        yield invalid(path, f"asks for {vcpus} processors, at most {_MAX_VCPUS} are possible.")
    if domain.cpu.model and not _CPU_MODEL.fullmatch(domain.cpu.model):
        yield invalid(
            f"{path}.model", f"{quoted(domain.cpu.model)} is not the name of a CPU model."
        )


def _firmware_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    machine = spec.domain.machine.type if spec.domain.machine else ""
    allowed = _MACHINE_TYPES.get(spec.architecture, _ANY_MACHINE_TYPE)
    if machine and not any(fnmatchcase(machine, pattern) for pattern in allowed):
        yield invalid(
            f"{path}.domain.machine.type",
            f"is not supported: {machine} (allowed values: [{' '.join(allowed)}])",
            CauseReason.NOT_SUPPORTED,
        )
    firmware = spec.domain.firmware
    if firmware and firmware.uuid:
        try:
            UUID(firmware.uuid)
        except ValueError:
            yield invalid(f"{path}.domain.firmware.uuid", f"{quoted(firmware.uuid)} is not a UUID.")
