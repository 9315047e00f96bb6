"""What is wrong with a machine's disks, volumes and cloud-init data. Pure; values of cloud-init data are never quoted."""

import base64
import binascii
import re
from collections.abc import Iterator

from podvisor_common.api import v1
from podvisor_common.api.unsupported import DISK_TARGETS, VOLUME_SOURCES

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_label,
    is_dns_subdomain,
    quoted,
)

_BUSES = ("virtio", "sata", "scsi", "usb")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]*")
_MAX_SERIAL_LENGTH = 256
# What the emulator counts with.
_MOST_BOOT_ORDER = 2**31 - 1
# What the one SATA controller has, and what there are slots for besides controllers and interfaces.
_MOST_DISKS = {"sata": 6, "virtio": 100}
_MAX_CLOUD_INIT_BYTES = 2048
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,})?"
)
_LABEL_RULE = "must be at most 63 lower-case letters, digits or dashes, and start and end with one of the first two"


def disk_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str
) -> Iterator[Cause]:
    """Checks `domain.devices.disks`, each for itself and against the volumes."""
    volumes = {volume.name for volume in spec.volumes or ()}
    first_use: dict[str, int] = {}
    base = f"{path}.domain.devices.disks"
    for index, disk in enumerate(spec.domain.devices.disks or ()):
        field = f"{base}[{index}]"
        if disk.name in first_use:
            other = f"{base}[{first_use[disk.name]}]"
            message = f"{other} and {field} must not have the same Name ({quoted(disk.name)})."
            yield Cause(f"{field}.name", message, CauseReason.DUPLICATE)
            continue
        first_use[disk.name] = index
        if not is_dns_label(disk.name):
            yield invalid(f"{field}.name", f"{quoted(disk.name)}: {_LABEL_RULE}.")
        elif disk.name not in volumes:
            yield invalid(
                f"{field}.name",
                f"{quoted(disk.name)} not found: there is no volume of that name.",
                CauseReason.NOT_FOUND,
            )
        yield from _target_causes(disk, _raw_item(raw, "domain", "devices", "disks", index), field)
        if not _SERIAL.fullmatch(disk.serial):
            yield invalid(
                f"{field}.serial",
                "must be made up of the following characters [A-Za-z0-9_.+-], if specified",
            )
        elif len(disk.serial) > _MAX_SERIAL_LENGTH:
            text = f"must be less than or equal to {_MAX_SERIAL_LENGTH} in length, if specified"
            yield invalid(f"{field}.serial", text)
    yield from _room_causes(spec, base)


def _room_causes(spec: v1.VirtualMachineInstanceSpec, base: str) -> Iterator[Cause]:
    """No bus has more disks than places. Disks that name none are on virtio on arm64 and on sata elsewhere."""
    default = "virtio" if spec.architecture == "arm64" else "sata"
    disks = spec.domain.devices.disks or ()
    buses = [((disk.disk or disk.cdrom or v1.DiskTarget()).bus or default) for disk in disks]
    for bus, most in _MOST_DISKS.items():
        if buses.count(bus) > most:
            yield invalid(base, f"has {buses.count(bus)} disks on bus {bus}, which takes {most}.")


def _target_causes(disk: v1.Disk, raw: dict[str, object], field: str) -> Iterator[Cause]:
    targets = [name for name in DISK_TARGETS if raw.get(name) is not None]
    if len(targets) > 1:
        yield invalid(field, f"must have only a single target, not {' and '.join(targets)}.")
    for name, target in (("disk", disk.disk), ("cdrom", disk.cdrom)):
        if target is None or not target.bus:
            continue
        if target.bus == "ide":
            yield invalid(f"{field}.{name}.bus", "is ide: IDE bus is not supported")
        elif target.bus not in _BUSES:
            yield invalid(
                f"{field}.{name}.bus",
                f"is set with an unrecognized bus {quoted(target.bus)}, must be one of: {', '.join(_BUSES)}",
                CauseReason.NOT_SUPPORTED,
            )
        elif name == "cdrom" and target.bus == "virtio":
            yield invalid(f"{field}.cdrom.bus", "is virtio, which is invalid for a CD-ROM drive")
        elif name == "disk" and target.bus == "sata" and target.readonly:
            yield invalid(
                f"{field}.disk.readonly", "is true: hard disks on bus sata cannot be read-only"
            )


def boot_order_causes(spec: v1.VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """Boot orders are positive and unique among disks and interfaces."""
    devices = spec.domain.devices
    places = [
        (f"{path}.domain.devices.disks[{i}]", d.boot_order)
        for i, d in enumerate(devices.disks or ())
    ]
    places += [
        (f"{path}.domain.devices.interfaces[{i}]", n.boot_order)
        for i, n in enumerate(devices.interfaces or ())
    ]
    first_use: dict[int, str] = {}
    for field, order in places:
        if order is None:
            continue
        if order < 1:
            yield invalid(f"{field}.bootOrder", "must have a boot order > 0, if supplied")
        elif order > _MOST_BOOT_ORDER:
            text = f"{order} must be less than or equal to {_MOST_BOOT_ORDER}."
            yield invalid(f"{field}.bootOrder", text)
        elif order in first_use:
            text = f"{order} is already set for {first_use[order]}."
            yield invalid(f"{field}.bootOrder", text, CauseReason.DUPLICATE)
        else:
            first_use[order] = field


def volume_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str
) -> Iterator[Cause]:
    """Checks `volumes`: names, exactly one source each, and the source itself."""
    first_use: dict[str, int] = {}
    for index, volume in enumerate(spec.volumes or ()):
        field = f"{path}.volumes[{index}]"
        if volume.name in first_use:
            other = f"{path}.volumes[{first_use[volume.name]}]"
            message = f"{other} and {field} must not have the same Name ({quoted(volume.name)})."
            yield Cause(f"{field}.name", message, CauseReason.DUPLICATE)
            continue
        first_use[volume.name] = index
        if not is_dns_label(volume.name):
            yield invalid(f"{field}.name", f"{quoted(volume.name)}: {_LABEL_RULE}.")
        item = _raw_item(raw, "volumes", index)
        sources = [name for name in VOLUME_SOURCES if item.get(name) is not None]
        if len(sources) != 1:
            given = " and ".join(sources) if sources else "none"
            yield invalid(field, f"must have exactly one source, not {given}.")
        if volume.container_disk is not None:
            yield from _container_disk_causes(volume.container_disk, f"{field}.containerDisk")
        if volume.cloud_init_no_cloud is not None:
            yield from _cloud_init_causes(volume.cloud_init_no_cloud, f"{field}.cloudInitNoCloud")


def _container_disk_causes(disk: v1.ContainerDisk, field: str) -> Iterator[Cause]:
    if not disk.image:
        yield invalid(f"{field}.image", "is empty: it must name an image.", CauseReason.REQUIRED)
    elif not _IMAGE.fullmatch(disk.image):
        yield invalid(f"{field}.image", f"{quoted(disk.image)} is not a valid image reference.")
    if disk.image_pull_policy and disk.image_pull_policy not in _PULL_POLICIES:
        yield invalid(
            f"{field}.imagePullPolicy",
            f"{quoted(disk.image_pull_policy)} must be one of: {', '.join(_PULL_POLICIES)}",
            CauseReason.NOT_SUPPORTED,
        )
    if disk.image_pull_secret and not is_dns_subdomain(disk.image_pull_secret):
        yield invalid(
            f"{field}.imagePullSecret", f"{quoted(disk.image_pull_secret)} is not a name."
        )
    if disk.path and (
        not disk.path.startswith("/")
        or disk.path.endswith("/")
        or any(part in ("", ".", "..") for part in disk.path.split("/")[1:])
        or _CONTROL.search(disk.path)
    ):
        yield invalid(
            f"{field}.path",
            f"{quoted(disk.path)} must be an absolute path to a file without relative elements or control characters.",
        )


def _cloud_init_causes(data: v1.CloudInitNoCloud, field: str) -> Iterator[Cause]:
    user = {
        "userData": data.user_data,
        "userDataBase64": data.user_data_base64,
        "secretRef": data.secret_ref,
    }
    network = {
        "networkData": data.network_data,
        "networkDataBase64": data.network_data_base64,
        "networkDataSecretRef": data.network_data_secret_ref,
    }
    user_sources = [name for name, value in user.items() if value]
    network_sources = [name for name, value in network.items() if value]
    if len(user_sources) > 1:
        yield invalid(
            field, f"must have only one userdatasource set, not {' and '.join(user_sources)}."
        )
    if len(network_sources) > 1:
        yield invalid(
            field, f"must have only one networkdatasource set, not {' and '.join(network_sources)}."
        )
    if not user_sources and not network_sources:
        yield invalid(
            field,
            "must have at least one userdatasource or one networkdatasource set.",
            CauseReason.REQUIRED,
        )
    for what, text, encoded in (
        ("userData", data.user_data, data.user_data_base64),
        ("networkData", data.network_data, data.network_data_base64),
    ):
        yield from _payload_causes(field, what, text, encoded)
    for name, reference in (
        ("secretRef", data.secret_ref),
        ("networkDataSecretRef", data.network_data_secret_ref),
    ):
        if reference is not None and not is_dns_subdomain(reference.name):
            yield invalid(
                f"{field}.{name}.name", f"{quoted(reference.name)} is not the name of a Secret."
            )


def _payload_causes(field: str, what: str, text: str, encoded: str) -> Iterator[Cause]:
    """Size and encoding of clear text and of base64."""
    secret = "secretRef" if what == "userData" else "networkDataSecretRef"
    for name, payload in ((what, text.encode()), (f"{what}Base64", _decoded(encoded))):
        if payload is None:
            yield invalid(f"{field}.{name}", "is not a valid base64 value.")
        elif len(payload) > _MAX_CLOUD_INIT_BYTES:
            yield invalid(
                f"{field}.{name}",
                f"exceeds {_MAX_CLOUD_INIT_BYTES} byte limit (it has {len(payload)}). Should use"
                f" {secret} for larger data.",
            )


def _decoded(encoded: str) -> bytes | None:
    """The bytes; line breaks are allowed in base64. None when it is not base64."""
    try:
        return base64.b64decode(encoded.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def _raw_item(raw: object, *path: str | int) -> dict[str, object]:
    """The object at a path of keys and indexes, empty when there is none."""
    for key in path:
        if isinstance(raw, dict) and isinstance(key, str):
            raw = raw.get(key)
        elif isinstance(raw, list) and isinstance(key, int) and key < len(raw):
            raw = raw[key]
        else:
            return {}
    return raw if isinstance(raw, dict) else {}
