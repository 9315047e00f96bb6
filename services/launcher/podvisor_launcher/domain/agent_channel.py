"""The channel by which the guest's agent is spoken to. Pure.

Every machine has it, as KubeVirt's have: whether its guest has an agent, nobody can tell before.
"""

from podvisor_launcher.domain import elements as xml
from podvisor_launcher.domain.pci import PciBus

# What agents look for, and libvirt.
AGENT_CHANNEL = "org.qemu.guest_agent.0"
# QEMU keeps the first for a console. Each has queues that the guest makes room for when it boots: 31, the default, are 64 of them.
_PORTS = 2


def build_controller(model: str, *, shares_slot: bool) -> xml.Controller:
    """What the channel goes through. It has no root port, which costs time, and leaves all other devices where they are. Where it
    `shares_slot`, the guest looks for more behind it."""
    return xml.Controller(
        type="virtio-serial",
        index=0,
        model=model,
        ports=_PORTS,
        address=PciBus.SHARED_CHANNELS_ADDRESS if shares_slot else PciBus.CHANNELS_ADDRESS,
    )


def build_channel(socket: str) -> xml.Channel:
    """The channel; libvirt is at the other end of the socket with that path."""
    return xml.Channel(
        type="unix",
        source=xml.SocketSource(mode="bind", path=socket),
        target=xml.ChannelTarget(type="virtio", name=AGENT_CHANNEL),
    )


def is_connected(live: xml.Domain) -> bool:
    """Whether an agent has opened the channel."""
    return any(
        each.target.name == AGENT_CHANNEL and each.target.state == "connected"
        for each in live.devices.channels
    )
