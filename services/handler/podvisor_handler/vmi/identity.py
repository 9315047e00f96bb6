"""What a machine is called and recognised by, in itself and by its guest.

Invariant: pure, and the same over restarts of the machine.
"""

import uuid

from podvisor_common.api import v1
from podvisor_common.api.v1 import names

_IDENTITY_NAMESPACE = uuid.UUID("6f0f9a3e-52a0-4c5b-9a41-3ed4a1d3f2c7")
_HOSTNAME_LIMIT = 63


def machine_identity(vmi: v1.VirtualMachineInstance) -> str:
    """A UUID that stays the same over restarts of the machine: by its VirtualMachine when it has one."""
    owner = vmi.metadata.controller_reference()
    owned = owner is not None and owner.kind == names.VIRTUAL_MACHINE
    return str(uuid.uuid5(_IDENTITY_NAMESPACE, owner.uid if owner and owned else vmi.metadata.uid))


def guest_hostname(vmi: v1.VirtualMachineInstance) -> str:
    """The host name of the guest: one DNS label."""
    return (vmi.spec.hostname or vmi.metadata.name).split(".")[0][:_HOSTNAME_LIMIT].rstrip("-")
