"""Where the launcher finds its files and its libvirt. Read once, at the start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that differs between a pod and a test."""

    run_dir: Path = Path("/run/podvisor")
    libvirt_uri: str = "qemu:///session"
    log_level: str = "INFO"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """PODVISOR_RUN_DIR, LIBVIRT_DEFAULT_URI and LOG_LEVEL; the defaults are right for a pod."""
        default = cls()
        return cls(
            run_dir=Path(environment.get("PODVISOR_RUN_DIR", default.run_dir)),
            libvirt_uri=environment.get("LIBVIRT_DEFAULT_URI", default.libvirt_uri),
            log_level=environment.get("LOG_LEVEL", default.log_level),
        )

    @property
    def socket(self) -> Path:
        """The socket clients dial."""
        return self.run_dir / "sockets/launcher.sock"

    @property
    def unpublished_socket(self) -> Path:
        """What it is called until it is served."""
        return self.run_dir / "sockets/.launcher.sock"

    @property
    def volumes_socket(self) -> Path:
        """The socket that takes open files."""
        return self.run_dir / "sockets/volumes.sock"

    @property
    def serial_socket(self) -> Path:
        """QEMU's serial console."""
        return self.run_dir / "sockets/serial0.sock"

    @property
    def vnc_socket(self) -> Path:
        """QEMU's VNC server."""
        return self.run_dir / "sockets/vnc.sock"

    @property
    def serial_log(self) -> Path:
        """What the guest printed on its serial console."""
        return self.run_dir / "console/serial0.log"

    @property
    def record(self) -> Path:
        """What must survive the launcher: see lifecycle.record."""
        return self.run_dir / "private/state.json"

    @property
    def spec(self) -> Path:
        """The accepted specification."""
        return self.run_dir / "private/spec.pb"

    @property
    def stop_order(self) -> Path:
        """Written by the supervisor when the container was told to end."""
        return self.run_dir / "private/stop.json"

    @property
    def qemu_end(self) -> Path:
        """Written by the supervisor when a QEMU has ended."""
        return self.run_dir / "private/qemu-end.json"

    @property
    def disks(self) -> Path:
        """Overlays."""
        return self.run_dir / "private/disks"

    @property
    def cloud_init(self) -> Path:
        """ISO images with cloud-init data."""
        return self.run_dir / "private/cloud-init"

    @property
    def agent_socket(self) -> Path:
        """QEMU's end of the channel to the guest's agent; libvirt speaks with it, and nobody else."""
        return self.run_dir / "private/agent.sock"

    @property
    def freeze(self) -> Path:
        """That the guest's file systems stand still, and until when: see lifecycle.freezing."""
        return self.run_dir / "private/freeze.json"

    @property
    def probe_socket(self) -> Path:
        """The socket that takes the kubelet's probes of the guest."""
        return self.run_dir / "private/probe.sock"

    @property
    def guest_keys(self) -> Path:
        """The public keys that the guest was given: see lifecycle.credentials."""
        return self.run_dir / "private/guest-keys.json"

    @property
    def shares(self) -> Path:
        """Sockets of the trees of files that the guest shares."""
        return self.run_dir / "private/virtiofs"

    @property
    def nvram(self) -> Path:
        """Variables of a UEFI firmware."""
        return self.run_dir / "private/nvram.fd"
