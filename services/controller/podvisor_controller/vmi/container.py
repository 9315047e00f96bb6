"""What the containers of a launcher pod have in common. Pure."""

import hashlib
from typing import Any

COMPUTE = "compute"

PROGRAMS_DIRECTORY = "/usr/libexec/podvisor"  # of the launcher's image

NAME_MAX = 63

Manifest = dict[str, Any]


def unprivileged() -> Manifest:
    """The security context of every container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def shortened(name: str, limit: int = NAME_MAX) -> str:
    """`name`, or when it is too long its beginning and a hash of all of it. Ends in a letter or digit."""
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9].rstrip('-._')}-{digest}"
