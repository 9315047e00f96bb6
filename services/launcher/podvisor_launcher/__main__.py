"""`python -m podvisor_launcher`. Exit code 0: the guest ended cleanly or was never started; 10: it crashed, was refused or had to
be destroyed; anything else: the launcher failed and is to be started again."""

# ruff: noqa: E402 (the imports below must find the process prepared)

import os
import sys

# libvirt forks in its daemon, we only exec: gRPC's fork handlers would abort such a child. Must precede the import of grpc.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# Every connection of a launcher is a unix socket. asyncio does without ssl, which is 0.7 MiB of memory in every pod.
sys.modules["ssl"] = None  # type: ignore[assignment]

import asyncio

import structlog
from podvisor_common.obs.logging import configure_logging

from podvisor_launcher.app import run
from podvisor_launcher.settings import Settings

_EXIT_FAULT = 1


def main() -> int:
    """Run to the end of the guest."""
    settings = Settings.from_environment()
    configure_logging("launcher", settings.log_level)
    try:
        return asyncio.run(run(settings))
    except Exception:
        structlog.stdlib.get_logger(__name__).exception("launcher failed")
        return _EXIT_FAULT


if __name__ == "__main__":
    # Not sys.exit(): that waits for every thread, and one may hang in a libvirt call that was given up.
    os._exit(main())
