"""What is wrong with the resources, the memory and the processors of a machine. Pure."""

import re
from collections.abc import Iterator

from podvisor_common.api import v1
from podvisor_common.api.quantity import Quantity, parse_quantity

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    bad_quantity,
    invalid,
    is_label_key,
    quoted,
    word_causes,
)

_CPU_MODEL = re.compile(r"[A-Za-z0-9_.+-]+")
_LEAST_MEMORY = "1M"
# More than any board addresses. Near Kubernetes' own limit the pod's request, which is more, would overflow.
_MOST_MEMORY = "16Ti"
_MAX_VCPUS = 512
_POLICIES = ("force", "require", "optional", "disable", "forbid")
_PAGE_SIZES = ("2Mi", "1Gi")
# What every node has and containers may ask for in fractions.
_NATIVE = ("cpu", "memory", "ephemeral-storage")


def resource_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    """Checks the resources of the pod and the memory of the guest, each for itself and against the other."""
    resources = domain.resources or v1.ResourceRequirements()
    requests, limits = resources.requests or {}, resources.limits or {}
    guest = domain.memory.guest if domain.memory else None
    good = True
    for where, amounts in (("requests", requests), ("limits", limits)):
        for name, value in amounts.items():
            field = f"{path}.resources.{where}.{name}"
            cause = (
                _bad_name(field, name)
                or bad_quantity(field, value)
                or (_out_of_range(field, value) if name == "memory" else None)
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
    has_pages = domain.memory is not None and domain.memory.hugepages is not None
    if guest is None and not has_pages and "memory" not in requests and "memory" not in limits:
        yield Cause(
            f"{path}.memory",
            f"no memory requested, at least one of {path}.memory.guest, {path}.memory.hugepages.pageSize,"
            f" {path}.resources.requests.memory and {path}.resources.limits.memory must be set",
            CauseReason.REQUIRED,
        )
    if good:
        yield from _limit_causes(requests, limits, guest, path)
        yield from _extended_causes(requests, limits, f"{path}.resources")


def _bad_name(field: str, name: str) -> Cause | None:
    """The cause when no container can ask for a resource of that name."""
    domain, slash, _ = name.partition("/")
    if name in _NATIVE or (slash and is_label_key(name) and not domain.endswith("kubernetes.io")):
        return None
    if name.startswith("hugepages-"):
        return invalid(field, "is not supported yet", CauseReason.NOT_SUPPORTED)
    text = f"{quoted(name)} must be one of {', '.join(_NATIVE)}, or a resource of nodes such as example.com/device."
    return invalid(field, text)


def _extended_causes(
    requests: dict[str, Quantity], limits: dict[str, Quantity], path: str
) -> Iterator[Cause]:
    """Devices are whole, and their limit is what is requested. All quantities are known to be good."""
    for name, request in requests.items():
        if name not in _NATIVE and name not in limits:
            text = f"must be set to {quoted(request)}, what is requested of {name}."
            yield invalid(f"{path}.limits", text, CauseReason.REQUIRED)
    for name, limit in limits.items():
        if name in _NATIVE:
            continue
        amount = parse_quantity(limit)
        if amount != amount.to_integral_value():
            yield invalid(f"{path}.limits.{name}", f"{quoted(limit)} must be an integer.")
        if name in requests and parse_quantity(requests[name]) != amount:
            text = f"{quoted(limit)} must be equal to what is requested, {quoted(requests[name])}."
            yield invalid(f"{path}.limits.{name}", text)


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


def cpu_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    """Checks the topology and the model of the guest's processors."""
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
    yield from _feature_causes(domain.cpu.features or [], f"{path}.features")
    if domain.cpu.model and not _CPU_MODEL.fullmatch(domain.cpu.model):
        yield invalid(
            f"{path}.model", f"{quoted(domain.cpu.model)} is not the name of a CPU model."
        )


def _feature_causes(features: list[v1.CPUFeature], base: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, feature in enumerate(features):
        field = f"{base}[{index}]"
        if not _CPU_MODEL.fullmatch(feature.name):
            text = f"{quoted(feature.name)} is not the name of a processor feature."
            yield invalid(f"{field}.name", text)
        elif feature.name in seen:
            text = f"{quoted(feature.name)} is there already."
            yield invalid(f"{field}.name", text, CauseReason.DUPLICATE)
        seen.add(feature.name)
        yield from word_causes(feature.policy, f"{field}.policy", _POLICIES)


def hugepage_causes(domain: v1.Domain, path: str) -> Iterator[Cause]:
    """Checks the size of large pages, and that the guest's memory and what is requested for it are made of whole ones."""
    if domain.memory is None or domain.memory.hugepages is None:
        return
    field, size = f"{path}.memory.hugepages.pageSize", domain.memory.hugepages.page_size
    cause = bad_quantity(field, size)
    if cause is None and parse_quantity(size) not in map(parse_quantity, _PAGE_SIZES):
        text = f"{quoted(size)} must be one of: {', '.join(_PAGE_SIZES)}"
        cause = invalid(field, text, CauseReason.NOT_SUPPORTED)
    if cause is not None:
        yield cause
        return
    resources = domain.resources or v1.ResourceRequirements()
    asked = (resources.requests or {}).get("memory", (resources.limits or {}).get("memory"))
    for name, amount in (
        (f"{path}.memory.guest", domain.memory.guest),
        (f"{path}.resources.requests.memory", asked),
    ):
        if amount is None or bad_quantity(name, amount) is not None:
            continue
        if parse_quantity(amount) % parse_quantity(size):
            yield invalid(
                field, f"{quoted(size)}: {name} {quoted(amount)} is not a multiple of it."
            )
