"""What is wrong with the data that cloud-init is given, by whichever data source. Pure; the data itself is never quoted."""

import base64
import binascii
from collections.abc import Iterator

from podvisor_common.api import v1

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    object_name_causes,
)

_MAX_CLOUD_INIT_BYTES = 2048


def cloud_init_causes(
    data: v1.CloudInitNoCloud | v1.CloudInitConfigDrive, field: str
) -> Iterator[Cause]:
    """Checks what cloud-init is given: at most one source of each kind, and at least one at all."""
    user = {
        "userData": data.user_data,
        "userDataBase64": data.user_data_base64,
        "secretRef": data.secret_ref,
    }
    network = {
        "networkData": data.network_data,
        "networkDataBase64": data.network_data_base64,
        "networkDataSecretRef": data.network_data_secret_ref,
    }
    user_sources = [name for name, value in user.items() if value]
    network_sources = [name for name, value in network.items() if value]
    if len(user_sources) > 1:
        yield invalid(
            field, f"must have only one userdatasource set, not {' and '.join(user_sources)}."
        )
    if len(network_sources) > 1:
        yield invalid(
            field, f"must have only one networkdatasource set, not {' and '.join(network_sources)}."
        )
    if not user_sources and not network_sources:
        yield invalid(
            field,
            "must have at least one userdatasource or one networkdatasource set.",
            CauseReason.REQUIRED,
        )
    for what, text, encoded in (
        ("userData", data.user_data, data.user_data_base64),
        ("networkData", data.network_data, data.network_data_base64),
    ):
        yield from _payload_causes(field, what, text, encoded)
    for name, reference in (
        ("secretRef", data.secret_ref),
        ("networkDataSecretRef", data.network_data_secret_ref),
    ):
        if reference is not None:
            yield from object_name_causes(reference.name, f"{field}.{name}.name", "Secret")


def _payload_causes(field: str, what: str, text: str, encoded: str) -> Iterator[Cause]:
    """Size and encoding of clear text and of base64."""
    secret = "secretRef" if what == "userData" else "networkDataSecretRef"
    for name, payload in ((what, text.encode()), (f"{what}Base64", _decoded(encoded))):
        if payload is None:
            yield invalid(f"{field}.{name}", "is not a valid base64 value.")
        elif len(payload) > _MAX_CLOUD_INIT_BYTES:
            yield invalid(
                f"{field}.{name}",
                f"exceeds {_MAX_CLOUD_INIT_BYTES} byte limit (it has {len(payload)}). Should use"
                f" {secret} for larger data.",
            )


def _decoded(encoded: str) -> bytes | None:
    """The bytes; line breaks are allowed in base64. None when it is not base64."""
    try:
        return base64.b64decode(encoded.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        return None
