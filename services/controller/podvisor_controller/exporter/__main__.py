"""`python -m podvisor_controller.exporter`: serves volumes until its deadline; with `look` it only looks at them.

Exits 2 when its environment is not usable, and with `look` 1 when a volume is not readable.
"""

import sys

from podvisor_common.aio.tasks import run_service
from podvisor_common.obs.logging import configure_logging

from podvisor_controller.exporter.look import look, report
from podvisor_controller.exporter.serving import run
from podvisor_controller.exporter.settings import LOOK, Settings, SettingsError


def main(arguments: list[str]) -> int:
    """Configure the process from its environment and do what the arguments say."""
    try:
        settings = Settings.from_environment()
        configure_logging("virt-exporter", settings.log_level)
    except (SettingsError, ValueError) as error:
        sys.stderr.write(f"virt-exporter: {error}\n")
        return 2
    if arguments == [LOOK]:
        findings = look(settings)
        report(findings)
        return 1 if findings.trouble else 0
    return run_service(lambda stop: run(settings, stop))


sys.exit(main(sys.argv[1:]))
