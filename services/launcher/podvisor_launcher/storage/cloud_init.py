"""NoCloud data sources: an ISO image labelled `cidata` with meta-data, user-data and network-config.

The content is confidential. It goes from the specification or a mounted Secret into a file of this user alone and nowhere
else: not into a log, an argument list or the text of an error.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.build import Image, ResolvedDisk
from podvisor_launcher.storage.errors import InvalidDisk, MissingSecret
from podvisor_launcher.storage.files import write_whole
from podvisor_launcher.storage.iso9660 import make_image

_USER_DATA_KEYS = ("userdata", "userData")
_NETWORK_DATA_KEYS = ("networkdata", "networkData")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9.-]*")
_YAML_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


@dataclass(frozen=True, slots=True)
class NoCloud:
    """The files of a data source."""

    meta_data: bytes
    user_data: bytes = field(repr=False)
    network_config: bytes = field(repr=False)  # empty for none


def prepare_cloud_init(disk: pb.DiskSpec, directory: Path) -> ResolvedDisk:
    """The ISO image behind `disk`, freshly made in `directory`. Raises MissingSecret and InvalidDisk, which name the disk."""
    path = directory / f"{disk.name}.iso"
    image = make_iso(read_source(disk.name, disk.cloud_init))
    try:
        write_whole(path, image)
    except OSError as error:
        raise InvalidDisk(f'Volume "{disk.name}": {error.strerror}.') from error
    return ResolvedDisk(Image(str(path), "raw"), read_only=True)


def read_source(name: str, source: pb.CloudInitSource) -> NoCloud:
    """The data of disk `name`, with what stands in Secrets. Raises MissingSecret."""
    user_data, network_config = source.user_data, source.network_data
    if source.user_data_secret_dir:
        user_data = _read_secret(name, Path(source.user_data_secret_dir), _USER_DATA_KEYS)
    if source.network_data_secret_dir:
        network_config = _read_secret(
            name, Path(source.network_data_secret_dir), _NETWORK_DATA_KEYS
        )
    meta_data = {"instance-id": source.instance_id, "local-hostname": source.hostname}
    return NoCloud(
        # One value a line: JSON strings are YAML, and simple readers look at lines.
        meta_data="".join(
            f"{key}: {_scalar(value)}\n" for key, value in meta_data.items()
        ).encode(),
        user_data=user_data,
        network_config=network_config,
    )


def make_iso(content: NoCloud) -> bytes:
    """The image by whose label cloud-init recognises a data source."""
    files = {"meta-data": content.meta_data, "user-data": content.user_data}
    if content.network_config:
        files["network-config"] = content.network_config
    return make_image("cidata", files)


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
