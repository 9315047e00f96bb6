"""What the process is told by its environment. Read once, at start; must not be consulted anywhere else."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from podvisor_controller.webhooks.rotation import DEFAULT_LIVES, Lives

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Below these, a certificate could end before everybody has its successor.
SHORTEST_LEAF_S = 20
SHORTEST_AUTHORITY_S = 600


class SettingsError(ValueError):
    """A variable of the environment is missing or makes no sense; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The environment of one replica."""

    pod_name: str
    pod_namespace: str
    launcher_image: str
    exporter_image: str
    architecture: str
    log_level: str = "INFO"
    observability_port: int = 8080
    webhook_port: int = 8443
    subresource_port: int = 8444
    identity_port: int = 8445
    certificate_lives: Lives = DEFAULT_LIVES
    # How long webhooks and subresources are still answered after the stop signal.
    drain_s: float = 5.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """The settings in `environment`. Raises SettingsError."""
        return cls(
            pod_name=_required(environment, "POD_NAME"),
            pod_namespace=_required(environment, "POD_NAMESPACE"),
            launcher_image=_required(environment, "LAUNCHER_IMAGE"),
            exporter_image=_required(environment, "EXPORTER_IMAGE"),
            architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
            log_level=environment.get("LOG_LEVEL", "INFO"),
            observability_port=_port(environment, "OBSERVABILITY_PORT", 8080),
            webhook_port=_port(environment, "WEBHOOK_PORT", 8443),
            subresource_port=_port(environment, "SUBRESOURCE_PORT", 8444),
            identity_port=_port(environment, "IDENTITY_PORT", 8445),
            certificate_lives=Lives(
                authority=_life(
                    environment, "AUTHORITY_LIFE_S", DEFAULT_LIVES.authority, SHORTEST_AUTHORITY_S
                ),
                leaf=_life(environment, "CERTIFICATE_LIFE_S", DEFAULT_LIVES.leaf, SHORTEST_LEAF_S),
            ),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SettingsError(f"{name} is not set in the environment")
    return value


def _port(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise SettingsError(f"{name} is not a port: {text!r}")
    return int(text)


def _life(
    environment: Mapping[str, str], name: str, default: timedelta, shortest_s: int
) -> timedelta:
    text = environment.get(name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) < shortest_s:
        raise SettingsError(f"{name} is not a number of seconds from {shortest_s} on: {text!r}")
    return timedelta(seconds=int(text))
