"""What is wrong with the credentials that a guest is to take. Pure."""

import re
from collections.abc import Iterator

from podvisor_common.api import v1
from podvisor_common.api.unsupported import (
    CREDENTIAL_TYPES,
    KEY_PROPAGATIONS,
    PASSWORD_PROPAGATIONS,
)

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    object_name_causes,
    raw_at,
)

# The volume that public keys travel by, for each way that needs one.
_DATA_SOURCES = {"noCloud": "cloudInitNoCloud", "configDrive": "cloudInitConfigDrive"}

# Of Windows they may begin with a domain and a backslash.
_USER = re.compile(r"[^\s/:\x00-\x1f]{1,64}")


def credential_causes(
    spec: v1.VirtualMachineInstanceSpec, raw: dict[str, object], path: str
) -> Iterator[Cause]:
    """Checks `accessCredentials`: exactly one type, source and way each, and the volume that the way needs."""
    for index, credential in enumerate(spec.access_credentials or ()):
        field = f"{path}.accessCredentials[{index}]"
        item = raw_at(raw, "accessCredentials", index)
        yield from _one_of(item, CREDENTIAL_TYPES, field)
        if (keys := credential.ssh_public_key) is not None:
            yield from _key_causes(
                keys, raw_at(item, "sshPublicKey"), spec, f"{field}.sshPublicKey"
            )
        if (passwords := credential.user_password) is not None:
            field = f"{field}.userPassword"
            yield from _source_causes(passwords.source, f"{field}.source")
            ways = raw_at(item, "userPassword", "propagationMethod")
            yield from _one_of(ways, PASSWORD_PROPAGATIONS, f"{field}.propagationMethod")


def _key_causes(
    keys: v1.SSHPublicKeyCredential,
    raw: dict[str, object],
    spec: v1.VirtualMachineInstanceSpec,
    field: str,
) -> Iterator[Cause]:
    yield from _source_causes(keys.source, f"{field}.source")
    field = f"{field}.propagationMethod"
    yield from _one_of(raw_at(raw, "propagationMethod"), KEY_PROPAGATIONS, field)
    yield from _volume_causes(keys.propagation_method, spec.volumes or [], field)
    agent = keys.propagation_method.qemu_guest_agent
    if agent is None:
        return
    field = f"{field}.qemuGuestAgent.users"
    if not agent.users:
        yield invalid(field, "must name at least one account of the guest.", CauseReason.REQUIRED)
    for index, user in enumerate(agent.users or ()):
        if not _USER.fullmatch(user):
            text = "must be the name of an account: 1 to 64 characters without spaces and slashes."
            yield invalid(f"{field}[{index}]", text)


def _source_causes(
    source: v1.SSHPublicKeySource | v1.UserPasswordSource, field: str
) -> Iterator[Cause]:
    if source.secret is None:
        yield invalid(field, "must have exactly one source, not none.", CauseReason.REQUIRED)
    else:
        name = source.secret.secret_name
        yield from object_name_causes(name, f"{field}.secret.secretName", "Secret")


def _one_of(raw: dict[str, object], names: tuple[str, ...], field: str) -> Iterator[Cause]:
    """Exactly one of the names is given, whether it is served or not."""
    given = [name for name in names if raw.get(name) is not None]
    if not given:
        text = f"must be exactly one of {', '.join(names)}, not none."
        yield invalid(field, text, CauseReason.REQUIRED)
    elif len(given) > 1:
        yield invalid(field, f"must be exactly one of these, not {' and '.join(given)}.")


def _volume_causes(
    way: v1.SSHPublicKeyPropagation, volumes: list[v1.Volume], field: str
) -> Iterator[Cause]:
    """What public keys travel by is there."""
    has_volume = {
        "noCloud": any(volume.cloud_init_no_cloud is not None for volume in volumes),
        "configDrive": any(volume.cloud_init_config_drive is not None for volume in volumes),
    }
    for name, wanted in (("noCloud", way.no_cloud), ("configDrive", way.config_drive)):
        if wanted is not None and not has_volume[name]:
            text = f"requires a {_DATA_SOURCES[name]} volume, and there is none."
            yield invalid(f"{field}.{name}", text, CauseReason.NOT_FOUND)
