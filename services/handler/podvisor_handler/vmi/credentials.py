"""Access credentials that the guest's agent takes → what the launcher gives it.

Invariant: pure. Names of Secrets only: what is in them stays between the kubelet, the launcher and the guest.
"""

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_common.launcher_pod import CREDENTIALS_DIRECTORY


def build_credentials(vmi: v1.VirtualMachineInstance) -> list[domain_pb2.AccessCredentialSpec]:
    """Those of the manifest that travel by the agent, in its order."""
    found = []
    for credential in vmi.spec.access_credentials or ():
        keys, passwords = credential.ssh_public_key, credential.user_password
        if keys is not None and keys.source.secret is not None:
            agent = keys.propagation_method.qemu_guest_agent
            if agent is not None:
                spec = _spec(keys.source.secret, domain_pb2.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS)
                spec.users.extend(agent.users or ())
                found.append(spec)
        if passwords is not None and passwords.source.secret is not None:
            kind = domain_pb2.ACCESS_CREDENTIAL_KIND_PASSWORDS
            found.append(_spec(passwords.source.secret, kind))
    return found


def _spec(
    secret: v1.SecretReference, kind: domain_pb2.AccessCredentialKind.ValueType
) -> domain_pb2.AccessCredentialSpec:
    directory = f"{CREDENTIALS_DIRECTORY}/{secret.secret_name}"
    return domain_pb2.AccessCredentialSpec(secret_dir=directory, kind=kind)
