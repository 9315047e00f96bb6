"""What the status of a VirtualMachineExport says. Pure.

Invariant: nobody else writes this status, so it is always computed whole; two equal situations give equal statuses.
"""

from podvisor_common.api import meta
from podvisor_common.api.export import VirtualMachineExportStatus
from podvisor_common.api.export.names import ConditionType, Phase, Reason
from podvisor_common.kube.conditions import set_condition

from podvisor_controller.export.identity import expires_at, pod_name, token_secret_name
from podvisor_controller.export.links import links
from podvisor_controller.export.observed import Observed
from podvisor_controller.export.pod import findings_of, served_by
from podvisor_controller.export.sources import Finding


def status_of(now: Observed) -> VirtualMachineExportStatus:
    """The whole status."""
    export = now.export
    phase, ready = _ready(now)
    conditions = export.status.conditions
    for type_, finding in (
        (ConditionType.READY, ready),
        (now.source.condition, now.source.finding),
    ):
        conditions = set_condition(
            conditions,
            type_,
            str(finding.status),
            finding.reason,
            finding.message,
            meta.format_time(now.at),
        )
    pod = now.own_pod
    return VirtualMachineExportStatus(
        phase=phase,
        links=links(export, served_by(pod), findings_of(pod).disks, now.authority)
        if phase == Phase.READY and pod is not None
        else None,
        token_secret_ref=token_secret_name(export) if now.has_token else None,
        ttl_expiration_time=meta.format_time(expires_at(export)),
        service_name=pod_name(export),
        virtual_machine_name=now.source.machine,
        conditions=conditions,
    )


def _ready(now: Observed) -> tuple[str, Finding]:
    """The phase, and what the condition Ready says."""
    source = now.source
    if source.is_empty and source.hindrance is not None:
        return Phase.SKIPPED, source.hindrance
    pod = now.own_pod
    if pod is None or pod.metadata.is_being_deleted:
        return Phase.PENDING, _without_pod(now)
    if now.is_ready and now.authority:
        return Phase.READY, Finding(True, Reason.POD_READY)
    if pod.status.phase == "Succeeded":
        return Phase.TERMINATED, Finding(False, Reason.POD_COMPLETED)
    if pod.status.phase in ("", "Pending"):
        return Phase.PENDING, Finding(False, Reason.POD_PENDING, _pending(now))
    return Phase.PENDING, Finding(False, Reason.UNKNOWN, now.ended_because)


def _without_pod(now: Observed) -> Finding:
    if now.source.hindrance is not None and not (now.trouble and now.source.lacking):
        return now.source.hindrance
    if now.users:
        return Finding(False, Reason.IN_USE, now.users)
    if now.trouble:
        return Finding(False, Reason.POD_PENDING, now.trouble)
    if now.pod is not None and now.own_pod is None:
        name = now.pod.metadata.name
        told = f"A Pod named {name} exists and does not belong to this export."
        return Finding(False, Reason.POD_PENDING, told)
    return Finding(False, Reason.INITIALIZING)


def _pending(now: Observed) -> str:
    """What the pod waits for that only the user can see to."""
    if now.trouble:
        return now.trouble
    secret = now.export.spec.token_secret_ref
    if secret is None:
        return ""
    return f'The exporter pod needs the Secret "{secret}", whose key "token" holds the token, and starts when it is there.'
