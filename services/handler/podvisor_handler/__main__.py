"""`python -m podvisor_handler`: one virt-handler process. Exits 2 when its environment is not usable."""

import os
import sys

# Set before grpc is loaded: this process never forks without exec, and must not pay for it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from podvisor_common.aio.tasks import run_service
from podvisor_common.obs.logging import configure_logging

from podvisor_handler.app import main
from podvisor_handler.settings import Settings


def start() -> int:
    """Configure the process from its environment, then run until a stop signal."""
    try:
        settings = Settings.from_environment()
        configure_logging("virt-handler", settings.log_level)
    except ValueError as error:
        sys.stderr.write(f"virt-handler: {error}\n")
        return 2
    return run_service(lambda stop: main(settings, stop))


if __name__ == "__main__":
    sys.exit(start())
