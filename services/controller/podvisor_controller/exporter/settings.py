"""What an exporter is told by its environment, and where things are in its pod; the controller, who renders the pod, reads it here.

Invariant: names and values only. A pod outlives releases of the controller, but its image does not change: both sides are of one release.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from podvisor_common.api.meta import parse_time

PROGRAM = "podvisor_controller.exporter"
LOOK = "look"  # its argument where it only looks at what there is

PORT = 8443
READY_PATH = "/exportready"

VOLUMES_VARIABLE = "EXPORT_VOLUMES"
DEADLINE_VARIABLE = "EXPORT_DEADLINE"

# Each has one entry for every volume, by its number in the list.
DIRECTORIES = "/export-volumes"
DEVICES = "/dev/export-volumes"
TOKEN_DIRECTORY = "/token"
# Certificate, key and what manifests are made of: the keys of the Secret that is mounted there.
IDENTITY_DIRECTORY = "/identity"
CERTIFICATE, KEY, MANIFESTS = "tls.crt", "tls.key", "manifests.json"


class SettingsError(ValueError):
    """A variable of the environment is missing or makes no sense; the message names it."""


class Volume(msgspec.Struct, frozen=True):
    """A claim that is served: by which name, and which form it has."""

    name: str
    block: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment of one exporter."""

    volumes: tuple[Volume, ...]
    deadline: datetime
    port: int = PORT
    log_level: str = "INFO"
    # The parts of the pod's file system; tests have them elsewhere.
    directories: str = DIRECTORIES
    devices: str = DEVICES
    token_directory: str = TOKEN_DIRECTORY
    identity_directory: str = IDENTITY_DIRECTORY

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings in `environment`. Raises SettingsError."""
        try:
            volumes = msgspec.json.decode(
                environment.get(VOLUMES_VARIABLE, ""), type=tuple[Volume, ...]
            )
        except msgspec.MsgspecError as error:
            raise SettingsError(f"{VOLUMES_VARIABLE} is no list of volumes: {error}") from error
        try:
            deadline = parse_time(environment.get(DEADLINE_VARIABLE, ""))
        except ValueError as error:
            raise SettingsError(f"{DEADLINE_VARIABLE} is no time: {error}") from error
        return cls(volumes, deadline, log_level=environment.get("LOG_LEVEL", "INFO"))

    def path_of(self, number: int) -> str:
        """Where the volume of that number is: a directory, or a device."""
        parent = self.devices if self.volumes[number].block else self.directories
        return f"{parent}/{number}"
