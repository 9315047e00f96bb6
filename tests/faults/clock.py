"""A replica of the controller, from this checkout, whose wall clock jumps when it is told to.

    python -m tests.faults.clock OFFSET_FILE

OFFSET_FILE holds the seconds by which the clock is off, and is read whenever the time is asked for. The monotonic clock and
the TLS library's, which checks the API server's certificate, stay right, as they do when somebody sets the time of a machine
by hand and it is corrected for these.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from podvisor_common.aio.tasks import run_service
from podvisor_common.api import meta
from podvisor_common.obs.logging import configure_logging

from tests.support.cluster import ROOT, Cluster
from tests.support.process import end

IDENTITY = "clock-test"


class JumpingClock:
    """The clock of the replica, and the hand that moves it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def jump(self, offset_s: float) -> None:
        """Be off by so much from now on."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(offset_s))
        fresh.replace(self._file)


@asynccontextmanager
async def replica(
    directory: Path, kubeconfig: Path, launcher_image: str
) -> AsyncIterator[JumpingClock]:
    """The replica runs for the body."""
    clock = JumpingClock(directory / "offset")
    clock.jump(0)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "KUBECONFIG": str(kubeconfig),
        "POD_NAME": IDENTITY,
        "POD_NAMESPACE": Cluster("kubevirt").namespace,
        "LAUNCHER_IMAGE": launcher_image,
        "EXPORTER_IMAGE": launcher_image,
        "OBSERVABILITY_PORT": "0",
        "WEBHOOK_PORT": "0",
        "SUBRESOURCE_PORT": "0",
        "IDENTITY_PORT": "0",
    }
    with (directory / "controller.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.clock", str(directory / "offset"),
            cwd=ROOT, env=environment, stderr=log,
        )  # fmt: skip
    try:
        yield clock
        assert process.returncode is None, (directory / "controller.log").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            await end(process)


def main(offset_file: str) -> int:
    """Run the controller on the jumping clock until a stop signal; its exit code."""
    right_now = meta.now

    def now() -> datetime:
        return right_now() + timedelta(seconds=float(Path(offset_file).read_text()))

    # Before anything that takes it as its clock is imported.
    meta.now = now
    from podvisor_controller.app import run
    from podvisor_controller.settings import Settings

    configure_logging("virt-controller", "info")
    settings = Settings.from_environment()
    return run_service(lambda stop: run(settings, stop))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
