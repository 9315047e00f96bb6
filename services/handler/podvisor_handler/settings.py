"""The handler's settings, read once from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingMissing(ValueError):
    """A setting without a default is not in the environment."""


@dataclass(frozen=True)
class Settings:
    """Everything that differs from one installation or node to another."""

    node_name: str
    pod_name: str
    log_level: str = "INFO"
    # The kubelet's pods directory, mounted under a short name: a socket address holds 107 bytes.
    pods_directory: str = "/pods"
    run_directory: Path = Path("/run/podvisor")
    device_plugin_directory: str = "/var/lib/kubelet/device-plugins"
    metrics_port: int = 8080
    # Of HandlerService for the controllers; 0 takes any.
    rpc_port: int = 8443
    # By which controllers know this handler, as the kubelet keeps it.
    identity_token: Path = Path("/var/run/secrets/podvisor.io/identity/token")
    pod_namespace: str = "kubevirt"
    # Where the controllers issue certificates; empty means their Service.
    identity_address: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Reads NODE_NAME and POD_NAME, and with defaults LOG_LEVEL, PODS_DIRECTORY, RUN_DIRECTORY,
        DEVICE_PLUGIN_DIRECTORY, METRICS_PORT, RPC_PORT, IDENTITY_TOKEN, POD_NAMESPACE and IDENTITY_ADDRESS. Raises
        SettingMissing or ValueError.
        """
        return cls(
            node_name=_required(environment, "NODE_NAME"),
            pod_name=_required(environment, "POD_NAME"),
            log_level=environment.get("LOG_LEVEL", cls.log_level),
            pods_directory=environment.get("PODS_DIRECTORY", cls.pods_directory),
            run_directory=Path(environment.get("RUN_DIRECTORY", str(cls.run_directory))),
            device_plugin_directory=environment.get(
                "DEVICE_PLUGIN_DIRECTORY", cls.device_plugin_directory
            ),
            metrics_port=int(environment.get("METRICS_PORT", cls.metrics_port)),
            rpc_port=int(environment.get("RPC_PORT", cls.rpc_port)),
            identity_token=Path(environment.get("IDENTITY_TOKEN", str(cls.identity_token))),
            pod_namespace=environment.get("POD_NAMESPACE", cls.pod_namespace),
            identity_address=environment.get("IDENTITY_ADDRESS", cls.identity_address),
        )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise SettingMissing(f"{name} is not set in the environment")
    return value
