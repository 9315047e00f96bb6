"""Data sources for cloud-init as ISO images: NoCloud, and ConfigDrive as OpenStack has it.

https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html, .../configdrive.html

The content is confidential. It goes from the specification or a mounted Secret into a file of this user alone and nowhere
else: not into a log, an argument list or the text of an error.
"""

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import InvalidDisk, MissingSecret, about_volume
from podvisor_launcher.storage.files import write_whole
from podvisor_launcher.storage.iso9660 import make_image
from podvisor_launcher.storage.resolve import resolve

_USER_DATA_KEYS = ("userdata", "userData")
_NETWORK_DATA_KEYS = ("networkdata", "networkData")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9.-]*")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_INSTANCE_NAMESPACE = uuid.UUID("5f8b2a0e-0d0c-4f57-9a4e-3c1d7a6c2b10")
_BUS_NAMES = {
    pb.DISK_BUS_VIRTIO: "pci",  # where OpenStack says that such a disk is
    pb.DISK_BUS_SATA: "sata",
    pb.DISK_BUS_SCSI: "scsi",
    pb.DISK_BUS_USB: "usb",
}


@dataclass(frozen=True, slots=True)
class Source:
    """What a data source says, with what stands in Secrets."""

    instance_id: str
    hostname: str
    user_data: bytes = field(repr=False)
    network_data: bytes = field(repr=False)  # empty for none
    public_keys: tuple[str, ...] = ()


def prepare_cloud_init(spec: pb.DomainSpec, disk: pb.DiskSpec, directory: Path) -> ResolvedDisk:
    """The ISO image behind `disk`, freshly made in `directory`. Raises MissingSecret and InvalidDisk, which name the disk."""
    path = directory / f"{disk.name}.iso"
    source = read_source(disk.name, disk.cloud_init)
    if disk.cloud_init.layout == pb.CLOUD_INIT_LAYOUT_CONFIG_DRIVE:
        devices = tagged_devices(spec, list(disk.cloud_init.tagged_devices))
        image = make_image("config-2", config_drive_files(source, devices))
    else:
        image = make_image("cidata", no_cloud_files(source))
    with about_volume(disk.name):
        write_whole(path, image)
        return resolve(disk, Image(str(path), "raw"), read_only=True)


def read_source(name: str, source: pb.CloudInitSource) -> Source:
    """The data of disk `name`, with what stands in Secrets. Raises MissingSecret and InvalidDisk."""
    user_data, network_data = source.user_data, source.network_data
    if source.user_data_secret_dir:
        user_data = _read_secret(name, Path(source.user_data_secret_dir), _USER_DATA_KEYS)
    if source.network_data_secret_dir:
        network_data = _read_secret(name, Path(source.network_data_secret_dir), _NETWORK_DATA_KEYS)
    return Source(
        instance_id=source.instance_id,
        hostname=source.hostname,
        user_data=user_data,
        network_data=network_data,
        public_keys=read_public_keys(name, [Path(each) for each in source.public_key_secret_dirs]),
    )


def no_cloud_files(source: Source) -> dict[str, bytes]:
    """The files of a NoCloud image, by path."""
    # One value a line: JSON strings are YAML, and simple readers look at lines.
    meta_data = f"instance-id: {_scalar(source.instance_id)}\n"
    meta_data += f"local-hostname: {_scalar(source.hostname)}\n"
    if source.public_keys:
        meta_data += "public-keys:\n"
        meta_data += "".join(f"  - {json.dumps(key)}\n" for key in source.public_keys)
    files = {"meta-data": meta_data.encode(), "user-data": source.user_data}
    if source.network_data:
        files["network-config"] = source.network_data
    return files


def config_drive_files(source: Source, devices: list[dict[str, object]]) -> dict[str, bytes]:
    """The files of a ConfigDrive image, by path."""
    # cloud-init takes `uuid` for the instance's identity; other readers look for it under a name of its own.
    meta_data: dict[str, object] = {
        "uuid": instance_uuid(source.instance_id),
        "instance_id": source.instance_id,
        "instance-id": source.instance_id,
        "hostname": source.hostname,
        "local_hostname": source.hostname,
        "local-hostname": source.hostname,
        "name": source.hostname,
    }
    if source.public_keys:
        meta_data["public_keys"] = {
            str(number): key for number, key in enumerate(source.public_keys)
        }
    if devices:
        meta_data["devices"] = devices
    files = {
        "openstack/latest/meta_data.json": json.dumps(meta_data, indent=1).encode(),
        "openstack/latest/user_data": source.user_data,
    }
    if source.network_data:
        files["openstack/latest/network_data.json"] = source.network_data
    return files


def instance_uuid(instance_id: str) -> str:
    """The instance's identity as a UUID: itself, or one that follows from it."""
    try:
        return str(uuid.UUID(instance_id))
    except ValueError:
        return str(uuid.uuid5(_INSTANCE_NAMESPACE, instance_id))


def tagged_devices(spec: pb.DomainSpec, tagged: list[pb.TaggedDevice]) -> list[dict[str, object]]:
    """The devices of `spec` that have a tag, as OpenStack describes them. A guest finds them by hardware address or serial
    number: where libvirt puts them is not known yet, unless the specification says it."""
    disks = {disk.name: disk for disk in spec.disks}
    interfaces = {each.name: each for each in spec.interfaces}
    found: list[dict[str, object]] = []
    for each in tagged:
        named = interfaces.get(each.name) if each.is_interface else disks.get(each.name)
        if named is None:
            continue
        if isinstance(named, pb.InterfaceSpec):
            device: dict[str, object] = {"type": "nic", "bus": "pci", "mac": named.mac}
        else:
            device = {"type": "disk", "bus": _BUS_NAMES.get(named.bus, "none")}
            if named.serial:
                device["serial"] = named.serial
        if named.pci_address:
            device["address"] = named.pci_address
        found.append(device | {"tags": [each.tag]})
    return found


def read_public_keys(name: str, directories: list[Path]) -> tuple[str, ...]:
    """The lines of all files in the Secrets mounted at `directories`, each once. Raises MissingSecret and InvalidDisk."""
    keys = (key for directory in directories for key in _keys_in(name, directory))
    return tuple(dict.fromkeys(keys))


def _keys_in(name: str, directory: Path) -> Iterator[str]:
    try:
        paths = sorted(each for each in directory.iterdir() if not each.name.startswith(".."))
        contents = [path.read_bytes() for path in paths if path.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        contents = []
    except OSError as error:
        raise MissingSecret(f'Volume "{name}": {error.strerror}.') from error
    if not contents:
        raise MissingSecret(
            f'Volume "{name}": the Secret "{directory.name}" with public keys does not exist or is empty. '
            "The machine starts when it is there."
        )
    for content in contents:
        try:
            lines = content.decode().splitlines()
        except UnicodeDecodeError:
            lines = []  # the error would carry the content
        if content and not lines:
            raise InvalidDisk(
                f'Volume "{name}": the Secret "{directory.name}" holds what is no public key.'
            )
        yield from (line.strip() for line in lines if line.strip())


def _scalar(value: str) -> str:
    """Quoted unless every reader of YAML sees a string without: a machine may be called 123, 2026-01-01 or no."""
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS
    return value if is_plain else json.dumps(value)


def _read_secret(name: str, directory: Path, keys: tuple[str, ...]) -> bytes:
    for key in keys:
        try:
            return (directory / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise MissingSecret(f'Volume "{name}": {error.strerror}.') from error
    wanted = " or ".join(f'"{key}"' for key in keys)
    raise MissingSecret(
        f'Volume "{name}": its Secret does not exist or has no key {wanted}. '
        "The machine starts when it is there."
    )
