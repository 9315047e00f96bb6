"""What a launcher reports as missing or wrong, in words of the manifest.

Invariant: pure. Text that comes from a launcher is untrusted: it is shortened and made printable,
and it decides nothing but which of the manifest's own Secrets is named.
"""

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1

from podvisor_handler.vmi.plan import Problem

REASONS = {
    domain_pb2.DOMAIN_REASON_INVALID_DISK: "InvalidDisk",
    domain_pb2.DOMAIN_REASON_MISSING_SECRET: "MissingSecret",
    domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE: "LibvirtUnreachable",
    domain_pb2.DOMAIN_REASON_START_FAILED: "StartFailed",
    domain_pb2.DOMAIN_REASON_REJECTED: "DomainRejected",
    domain_pb2.DOMAIN_REASON_NO_SPACE: "NoSpace",
}
LAUNCHER_WAITING = "LauncherWaiting"
_UNKNOWN_WAIT = "The launcher waits for something that this version of virt-handler does not know."
_MESSAGE_LIMIT = 1024


def reported_problem(
    vmi: v1.VirtualMachineInstance, report: domain_pb2.DomainReport | None
) -> Problem | None:
    """Why the machine does not start or was refused, as its launcher says; None when it does not."""
    if report is None or report.state not in (
        domain_pb2.DOMAIN_STATE_WAITING,
        domain_pb2.DOMAIN_STATE_ENDED,
    ):
        return None
    reason = REASONS.get(report.reason)
    if reason is None:
        return _unknown_wait(report)
    message = printable(report.message)
    if report.reason == domain_pb2.DOMAIN_REASON_MISSING_SECRET:
        message = _missing_secret(vmi, message) or message
    return Problem(reason, message)


def _unknown_wait(report: domain_pb2.DomainReport) -> Problem | None:
    """A launcher of a later release may wait for what has no word here; it has said it in a sentence."""
    waits = report.state == domain_pb2.DOMAIN_STATE_WAITING
    if not waits or report.reason in domain_pb2.DomainReason.values():
        return None
    return Problem(LAUNCHER_WAITING, printable(report.message) or _UNKNOWN_WAIT)


def printable(text: str) -> str:
    """Untrusted text as one bounded, printable line."""
    line = "".join(
        character if character.isprintable() else " " for character in text[:_MESSAGE_LIMIT]
    )
    return line.strip()


def _missing_secret(vmi: v1.VirtualMachineInstance, said: str) -> str | None:
    """The launcher knows mounts only; which Secret belongs there stands in the manifest."""
    for volume in vmi.spec.volumes or ():
        source = volume.cloud_init_no_cloud
        if source is None or f'"{volume.name}"' not in said:
            continue
        wanted = [("userdata", source.secret_ref), ("networkdata", source.network_data_secret_ref)]
        named = [(key, secret) for key, secret in wanted if secret is not None]
        if not named:
            continue
        key, secret = next((pair for pair in named if pair[0] in said.lower()), named[0])
        return (
            f'Volume "{volume.name}": Secret "{secret.name}" does not exist in namespace'
            f' "{vmi.metadata.namespace}" or has no key {key}.'
            " The machine starts when it is there."
        )
    return None
