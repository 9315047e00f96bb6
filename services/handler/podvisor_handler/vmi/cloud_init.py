"""Cloud-init volumes of a manifest → data sources.

Invariant: pure. The content is confidential: it is in what is returned and nowhere else, not even in the cause of an error.
"""

import base64

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_common.launcher_pod import CREDENTIALS_DIRECTORY, SECRETS_DIRECTORY

from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.identity import guest_hostname, machine_identity

DataSource = v1.CloudInitNoCloud | v1.CloudInitConfigDrive


def data_source(
    vmi: v1.VirtualMachineInstance, volume: str, source: DataSource
) -> domain_pb2.CloudInitSource:
    """What cloud-init finds on the disk of `volume`. Raises SpecRefused."""
    secrets = f"{SECRETS_DIRECTORY}/{volume}"
    spec = domain_pb2.CloudInitSource(
        instance_id=machine_identity(vmi),
        hostname=guest_hostname(vmi),
        user_data=_clear(volume, source.user_data, source.user_data_base64),
        user_data_secret_dir=f"{secrets}/user-data" if source.secret_ref else "",
        network_data=_clear(volume, source.network_data, source.network_data_base64),
        network_data_secret_dir=(
            f"{secrets}/network-data" if source.network_data_secret_ref else ""
        ),
        layout=domain_pb2.CLOUD_INIT_LAYOUT_NOCLOUD,
        public_key_secret_dirs=[
            f"{CREDENTIALS_DIRECTORY}/{secret}" for secret in public_key_secrets(vmi, source)
        ],
    )
    if isinstance(source, v1.CloudInitConfigDrive):
        spec.layout = domain_pb2.CLOUD_INIT_LAYOUT_CONFIG_DRIVE
        devices = vmi.spec.domain.devices
        spec.tagged_devices.extend(
            domain_pb2.TaggedDevice(name=disk.name, tag=disk.tag)
            for disk in devices.disks or ()
            if disk.tag
        )
        spec.tagged_devices.extend(
            domain_pb2.TaggedDevice(name=interface.name, tag=interface.tag, is_interface=True)
            for interface in devices.interfaces or ()
            if interface.tag
        )
    return spec


def public_key_secrets(vmi: v1.VirtualMachineInstance, source: DataSource) -> list[str]:
    """Names of the Secrets whose public keys reach the guest by such a data source, each once."""
    found: dict[str, None] = {}
    for credential in vmi.spec.access_credentials or ():
        keys = credential.ssh_public_key
        if keys is None or keys.source.secret is None:
            continue
        is_config_drive = isinstance(source, v1.CloudInitConfigDrive)
        ways = keys.propagation_method
        if (ways.config_drive if is_config_drive else ways.no_cloud) is not None:
            found[keys.source.secret.secret_name] = None
    return list(found)


def _clear(volume: str, text: str, encoded: str) -> bytes:
    if not encoded:
        return text.encode()
    try:
        # As `base64` writes it: in lines, which admission allows.
        return base64.b64decode(encoded.replace("\n", "").replace("\r", ""), validate=True)
    except ValueError:
        # The cause would quote the data.
        raise SpecRefused(f"spec.volumes: the volume {volume!r} holds invalid base64") from None
