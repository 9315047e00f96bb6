"""What the objects of an export are called. Pure.

Invariant: names are KubeVirt's, for clients know some of them by heart; a name that is too long becomes shorter the way it does there.
"""

import hashlib
from datetime import datetime, timedelta

from podvisor_common.api import meta
from podvisor_common.api.duration import DurationError, parse_duration
from podvisor_common.api.export import VirtualMachineExport, names
from podvisor_common.kube.resources import EXPORTS

LABEL_MAX = 63
NAME_MAX = 253

_PREFIX = "virt-export"
_TOKEN_PREFIX = "export-token"
# Between the parts of a name, with a dash on either side.
_HASH_LENGTH = 8


def joined(base: str, suffix: str, limit: int = LABEL_MAX) -> str:
    """`base-suffix`; where that is too long with a hash, in place of the suffix if there is no room for it, else of some of the base."""
    name = f"{base}-{suffix}"
    if len(name) <= limit:
        return name
    room = limit - _HASH_LENGTH - 2 - len(suffix)
    # Without any of the base it would begin with a dash.
    if room < 1:
        return f"{base[: limit - _HASH_LENGTH - 1]}-{_fnv(name)}"[:limit]
    return f"{base[:room]}-{_fnv(base)}-{suffix}"


def pod_name(export: VirtualMachineExport) -> str:
    """The name of the pod that serves the volumes, and of the Service in front of it."""
    return joined(_PREFIX, export.metadata.name)


def host(export: VirtualMachineExport) -> str:
    """The host under which the Service is reached from inside of the cluster."""
    return f"{pod_name(export)}.{export.metadata.namespace}.svc"


def token_secret_name(export: VirtualMachineExport) -> str:
    """The Secret with the token."""
    return export.spec.token_secret_ref or joined(_TOKEN_PREFIX, export.metadata.name)


def service_label(export: VirtualMachineExport) -> str:
    """The value of the label by which the Service finds the pod."""
    name = export.metadata.name
    return name if len(name) <= LABEL_MAX else pod_name(export)


def identity_secret_name(export: VirtualMachineExport, at: datetime) -> str:
    """The Secret with the certificate of a pod that is made at that moment: another for each, since they go with their pods."""
    digest = hashlib.sha256(f"{export.metadata.uid}/{at.timestamp()}".encode()).hexdigest()
    return f"{_PREFIX}-{digest[:16]}"


def restored_claim_name(export: VirtualMachineExport, claim: str) -> str:
    """The claim that is made for an export of what a snapshot has of `claim`."""
    return joined(export.metadata.name, claim, NAME_MAX)


def expires_at(export: VirtualMachineExport) -> datetime:
    """When the export is over."""
    created = meta.parse_time(export.metadata.creation_timestamp or "")
    default = timedelta(seconds=names.DEFAULT_TTL_S)
    try:
        text = export.spec.ttl_duration
        return created + (default if text is None else parse_duration(text))
    except DurationError:
        return created + default


def owner_reference(export: VirtualMachineExport) -> dict[str, object]:
    """What says of an object that it goes with the export."""
    return {
        "apiVersion": EXPORTS.api_version,
        "kind": EXPORTS.kind,
        "name": export.metadata.name,
        "uid": export.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _fnv(text: str) -> str:
    """FNV-1a of 32 bits, in hexadecimal digits."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08x}"
