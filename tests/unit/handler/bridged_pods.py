"""A pod whose guest takes over its interface, the guest and a neighbour on its link, and the frames they send. Needs root."""

import contextlib
import socket
import struct
import subprocess
from collections.abc import Iterator

from podvisor_common.launcher_pod import secondary_interface_name
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.network.attachments import Attachment, Bridge

from tests.unit.handler.namespaces import neighbour, plug_guest, within

MAC = "0a:58:0a:f4:01:05"
POD = f"""
ip link add eth0 mtu 1400 address {MAC} type veth peer name uplink
ip addr add 10.244.1.5/24 dev eth0
ip addr add 2001:db8::5/64 dev eth0 nodad
ip link set eth0 up
ip link set uplink up
ip route add default via 10.244.1.1
ip route add 10.96.0.0/12 via 10.244.1.2
"""
BLUE = secondary_interface_name("blue")
STEM = BLUE.removeprefix("pod")
WITH_BLUE = f"""
{POD}
ip link add {BLUE} type veth peer name blue
ip link set {BLUE} up
ip link set blue up
"""
BRIDGED = (Attachment("default", Bridge()),)
ON_BLUE = Attachment("blue", Bridge(), BLUE)


@contextlib.contextmanager
def neighbours(process: PinnedProcess) -> Iterator[tuple[int, int]]:
    """A guest on the bridge and a neighbour before eth0, as processes."""
    plug_guest(process, "k6t-eth0")
    addresses = ["10.244.1.5/24", "2001:db8::5/64"]
    with (
        neighbour(process, "guest0", addresses, ["10.244.1.1"], mac=MAC) as guest,
        neighbour(process, "uplink", ["10.244.1.1/24", "2001:db8::1/64"]) as other,
    ):
        yield guest, other


LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
listener.bind((sys.argv[1], 0))
listener.settimeout(5)
print("ready", flush=True)
while True:
    frame = listener.recv(2048)
    if frame.endswith(b"honest"):
        break
    if b"forged" in frame:
        print(frame[-8:].decode())
"""
SEND = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind(("guest0", 0))
for frame in sys.argv[1:]:
    sender.send(bytes.fromhex(frame))
"""
OTHER_MAC = "0a:58:0a:f4:01:06"
OWN, NEIGHBOUR, OWN6, NEIGHBOUR6 = "10.244.1.5", "10.244.1.6", "2001:db8::5", "2001:db8::6"


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(type_: int, payload: bytes, *, source: str = MAC, mark: bytes) -> bytes:
    """A frame to everybody whose last bytes tell what it is."""
    return b"\xff" * 6 + octets(source) + type_.to_bytes(2, "big") + payload + mark


def arp(
    sender: str, mark: bytes, *, mac: str = MAC, target: str = "10.244.1.1", operation: int = 2
) -> bytes:
    """An ARP packet; by default a reply."""
    header = struct.pack("!HHBBH", 1, 0x800, 6, 4, operation)
    sent = octets(mac) + socket.inet_aton(sender) + bytes(6) + socket.inet_aton(target)
    return ethernet(0x806, header + sent, mark=mark)


def ipv4(source: str, mark: bytes, *, mac: str = MAC, port: int = 9) -> bytes:
    """A UDP packet."""
    udp = struct.pack("!HHHH", 68, port, 8 + len(mark), 0)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(mark), 0, 0, 64, 17, 0)
    addresses = socket.inet_aton(source) + socket.inet_aton("10.244.1.1")
    total = sum(struct.unpack("!10H", header + addresses))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    header = header[:10] + checksum.to_bytes(2, "big")
    return ethernet(0x800, header + addresses + udp, source=mac, mark=mark)


def icmp6(source: str, kind: int, target: str, mark: bytes, *, mac: str = MAC) -> bytes:
    """A packet of neighbour discovery."""
    message = struct.pack("!BBHI", kind, 0, 0, 0) + socket.inet_pton(socket.AF_INET6, target)
    header = struct.pack("!IHBB", 0x60000000, len(message) + len(mark), 58, 255)
    ends = [socket.inet_pton(socket.AF_INET6, each) for each in (source, "ff02::1")]
    return ethernet(0x86DD, header + b"".join(ends) + message, source=mac, mark=mark)


def vlan(frame: bytes) -> bytes:
    """The frame in a virtual LAN."""
    return frame[:12] + b"\x81\x00\x00\x00" + frame[12:]


def marks_seen(
    listener_pid: int, sender_pid: int, frames: list[bytes], *, device: str = "uplink"
) -> list[str]:
    """The last bytes of the frames that a listener sees at its `device` which are marked as forged, until the one marked as
    honest."""
    listener = subprocess.Popen(
        ["nsenter", "-t", str(listener_pid), "-n", "python3", "-c", LISTEN, device],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == "ready\n"
    within(sender_pid, "python3", "-c", SEND, *(frame.hex() for frame in frames))
    return listener.communicate(timeout=10)[0].split()
