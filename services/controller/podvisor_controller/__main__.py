"""`python -m podvisor_controller`: the virt-controller process. Exits 2 when its environment is not usable."""

import os
import sys

# Set before grpc is loaded: this process never forks without exec, and must not pay for it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from podvisor_common.aio.tasks import run_service
from podvisor_common.obs.logging import configure_logging

from podvisor_controller.app import run
from podvisor_controller.settings import Settings, SettingsError


def main() -> int:
    """Configure the process from its environment, then run until a stop signal."""
    try:
        settings = Settings.from_environment()
        configure_logging("virt-controller", settings.log_level)
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"virt-controller: {error}\n")
        return 2
    return run_service(lambda stop: run(settings, stop))


sys.exit(main())
