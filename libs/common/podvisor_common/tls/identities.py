"""Who is who on the connections between podvisor's own services: the names in their certificates.

Invariant: a name says one thing alone. No certificate for one of these names is made for anything else, and none of podvisor's other
certificates (those of Services end in `.svc`) has such a name.
"""

import re

from podvisor_common.errors import Terminal

# Of the token with which a handler asks for its certificate: good for nothing else, and nothing else is good for that.
AUDIENCE = "podvisor.io/handler-identity"
# In the certificate that a controller shows to handlers.
CONTROLLER = "virt-controller.podvisor.io"
# The ConfigMap in the install namespace in which controllers say by which authority they are known.
TRUST_CONFIG_MAP = "podvisor-ca"
TRUST_FIELD = "ca.crt"
_HANDLERS = "virt-handler.podvisor.io"

# The most that fits into the TLS extension in which a client says whom it wants.
_NAME_LIMIT = 255
_NODE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class BadNodeName(Terminal):
    """What should name a node cannot, or is too long for a certificate."""

    reason = "BadNodeName"


def handler_of(node: str) -> str:
    """The name of the handler of a node, as in `node1.virt-handler.podvisor.io`. Raises BadNodeName."""
    name = f"{node}.{_HANDLERS}"
    if len(name) > _NAME_LIMIT or _NODE.fullmatch(node) is None:
        raise BadNodeName(f"no certificate can be made for a node of this name: {node[:63]!r}")
    return name
