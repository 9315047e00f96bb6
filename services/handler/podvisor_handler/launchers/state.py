"""Values that describe a launcher. No I/O, so that plans can be made of them."""

from dataclasses import dataclass
from enum import Enum, auto

CONTRACT_VERSION = 3  # the newest with launchers; all older ones are understood too
# From which on a launcher answers DHCPv6. One before it does not, so its guest must not be sent there by a router.
DHCPV6_SINCE = 2
# From which on a launcher builds all of the hardware of a DomainSpec. One before it would leave some out, and not say so.
HARDWARE_SINCE = 3
# Of a launcher that can ask the agent in its guest.
GUEST_AGENT_FEATURE = "guest-agent"


class Connection(Enum):
    """How the handler stands with a launcher."""

    WAITING = auto()  # never connected
    CONNECTED = auto()
    UNRESPONSIVE = auto()  # was connected, is not now


@dataclass(frozen=True, slots=True)
class LauncherPod:
    """Which pod a launcher is in, and which VirtualMachineInstance that pod belongs to."""

    namespace: str
    vmi_name: str
    vmi_uid: str
    name: str
    uid: str
