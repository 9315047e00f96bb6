"""What a launcher reports as missing or wrong, in words of the manifest.

Invariant: pure. Text that comes from a launcher is untrusted: it is shortened and made printable,
and it decides nothing but which of the manifest's own objects is named.
"""

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1

from podvisor_handler.vmi.cloud_init import DataSource, public_key_secrets
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
    """The launcher knows mounts only; which object belongs there stands in the manifest."""
    for volume in vmi.spec.volumes or ():
        if f'"{volume.name}"' not in said:
            continue
        wanted = _wanted(vmi, volume, said)
        if wanted is None:
            continue
        thing, lacks = wanted
        return (
            f'Volume "{volume.name}": {thing} does not exist in namespace'
            f' "{vmi.metadata.namespace}" or {lacks}.'
            " The machine starts when it is there."
        )
    return None


def _wanted(vmi: v1.VirtualMachineInstance, volume: v1.Volume, said: str) -> tuple[str, str] | None:
    """The object of the cluster that a volume needs, and what it may lack if it is there; None where it needs none."""
    data = volume.cloud_init_no_cloud or volume.cloud_init_config_drive
    if data is not None:
        return _wanted_by_cloud_init(vmi, data, said)
    if volume.config_map is not None:
        return f'ConfigMap "{volume.config_map.name}"', "is empty"
    if volume.secret is not None:
        return f'Secret "{volume.secret.secret_name}"', "is empty"
    if volume.service_account is not None:
        name = volume.service_account.service_account_name
        return f'ServiceAccount "{name}"', "its token is not there yet"
    if volume.sysprep is not None:
        lacks = "has neither autounattend.xml nor unattend.xml"
        if volume.sysprep.secret is not None:
            return f'Secret "{volume.sysprep.secret.name}"', lacks
        if volume.sysprep.config_map is not None:
            return f'ConfigMap "{volume.sysprep.config_map.name}"', lacks
    return None


def _wanted_by_cloud_init(
    vmi: v1.VirtualMachineInstance, data: DataSource, said: str
) -> tuple[str, str] | None:
    """Of several Secrets the one that is spoken of."""
    for key, secret in (
        ("userdata", data.secret_ref),
        ("networkdata", data.network_data_secret_ref),
    ):
        if secret is not None and key in said.lower():
            return f'Secret "{secret.name}"', f"has no key {key}"
    for name in public_key_secrets(vmi, data):
        if f'Secret "{name}"' in said:
            return f'Secret "{name}"', "has no public key"
    return None
