"""What is wrong with the specification of a machine, in an instance or in a template. Pure."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from uuid import UUID

from podvisor_common.api import v1
from podvisor_common.api.v1 import names

from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.validation_board import board_causes
from podvisor_controller.webhooks.validation_credentials import credential_causes
from podvisor_controller.webhooks.validation_disks import boot_order_causes, disk_causes
from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    quoted,
    unsupported,
)
from podvisor_controller.webhooks.validation_filesystems import filesystem_causes
from podvisor_controller.webhooks.validation_network import network_causes
from podvisor_controller.webhooks.validation_peripherals import peripheral_causes
from podvisor_controller.webhooks.validation_placement import placement_causes
from podvisor_controller.webhooks.validation_probes import probe_causes
from podvisor_controller.webhooks.validation_resources import (
    cpu_causes,
    hugepage_causes,
    resource_causes,
)
from podvisor_controller.webhooks.validation_volumes import volume_causes

MAX_GRACE_PERIOD_S = 365 * 24 * 3600
# What SMBIOS tables hold, and what survives the way there.
_SERIAL = re.compile(r"[ -~]{0,256}")
_MACHINE_TYPE = re.compile(r"[A-Za-z0-9._-]*")
# Machine types by architecture, as glob patterns.
_MACHINE_TYPES = {"amd64": ("q35*", "pc-q35*"), "arm64": ("virt*",)}
_ANY_MACHINE_TYPE = tuple(pattern for patterns in _MACHINE_TYPES.values() for pattern in patterns)


def spec_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str, permitted: Permitted
) -> list[Cause]:
    """Everything wrong with a specification. `raw` is the same one before decoding, for the fields decoding drops; `permitted`
    is what the cluster's settings allow."""
    return [
        *unsupported(raw, v1.VirtualMachineInstanceSpec, path),
        *_life_causes(spec, path),
        *placement_causes(spec, path),
        *resource_causes(spec.domain, f"{path}.domain"),
        *cpu_causes(spec.domain, f"{path}.domain.cpu"),
        *hugepage_causes(spec.domain, f"{path}.domain"),
        *_firmware_causes(spec, path),
        *board_causes(spec.domain, f"{path}.domain"),
        *peripheral_causes(spec.domain, f"{path}.domain"),
        *disk_causes(spec, raw, path),
        *filesystem_causes(spec, path),
        *volume_causes(spec, raw, path, permitted),
        *credential_causes(spec, raw, path),
        *probe_causes(spec, raw, path),
        *network_causes(spec, raw, path, permitted),
        *boot_order_causes(spec, path),
    ]


def _life_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    if spec.architecture and spec.architecture not in _MACHINE_TYPES:
        yield invalid(
            f"{path}.architecture",
            f"{quoted(spec.architecture)} must be one of: {', '.join(_MACHINE_TYPES)}",
            CauseReason.NOT_SUPPORTED,
        )
    if spec.start_strategy not in ("", names.START_PAUSED):
        yield Cause(
            f"{path}.startStrategy",
            f"{path}.startStrategy is set with an unrecognized option: {spec.start_strategy}",
        )
    yield from _eviction_causes(spec.eviction_strategy, f"{path}.evictionStrategy")
    yield from grace_period_causes(spec, path)


def grace_period_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """What is wrong with the time that the guest has to shut down."""
    grace_period_s = spec.termination_grace_period_seconds
    if grace_period_s is not None and not 0 <= grace_period_s <= MAX_GRACE_PERIOD_S:
        yield invalid(
            f"{path}.terminationGracePeriodSeconds",
            f"must be between 0 and {MAX_GRACE_PERIOD_S}, which is a year.",
        )


def _eviction_causes(strategy: str, field: str) -> Iterator[Cause]:
    if not strategy or strategy in names.SUPPORTED_EVICTION_STRATEGIES:
        return
    if strategy in list(names.EvictionStrategy):
        yield invalid(field, f"{strategy} is not supported yet", CauseReason.NOT_SUPPORTED)
    else:
        yield Cause(field, f"{field} is set with an unrecognized option: {strategy}")


def _firmware_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    machine = spec.domain.machine.type if spec.domain.machine else ""
    allowed = _MACHINE_TYPES.get(spec.architecture, _ANY_MACHINE_TYPE)
    is_name = _MACHINE_TYPE.fullmatch(machine) is not None
    if machine and not (is_name and any(fnmatchcase(machine, pattern) for pattern in allowed)):
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
    if firmware and not _SERIAL.fullmatch(firmware.serial):
        yield invalid(
            f"{path}.domain.firmware.serial",
            "must be made up of at most 256 printable ASCII characters.",
        )
