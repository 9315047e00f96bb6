"""Talk between guests, pods, nodes and this machine: questions that are asked with socat and ping, and the answers they have to have.

Invariant: what is asked of one place is asked in one go, since a login costs an emulated guest a second; every answer is compared, and
all that is wrong is said at once.
"""

import asyncio
import shlex
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tests.support.cluster import Cluster, on_node
from tests.support.machine import Machine
from tests.support.networks import ANSWERS, ECHOES

Protocol = Literal["TCP", "UDP"]

_BULK_BYTES, _DATAGRAM_BYTES = 300_000, 4000


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, the command that asks it, and what it has to print."""

    what: str
    command: str
    answer: str


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere with a shell."""

    name: str
    run: Callable[[str], Awaitable[str]]

    async def wrong_answers(self, questions: Sequence[Question]) -> list[str]:
        """Ask all of them; a line for each that is not answered as it has to be."""
        script = "".join(
            f"echo '== {n}'; {{ {question.command}\n}} 2>&1\n"
            for n, question in enumerate(questions)
        )
        answers = {
            int(number): answer.strip()
            for number, _, answer in (
                part.partition("\n") for part in f"\n{await self.run(script)}".split("\n== ")[1:]
            )
        }
        return [
            f"{self.name}: {question.what}: {answers.get(n)!r} instead of {question.answer!r}"
            for n, question in enumerate(questions)
            if answers.get(n) != question.answer
        ]


def guest(machine: Machine) -> Place:
    """A guest that serves."""

    async def shell(script: str) -> str:
        return (await machine.ssh(script, check=False, timeout_s=120)).stdout

    return Place(f"guest {machine.name}", shell)


def pod(cluster: Cluster, name: str) -> Place:
    """A pod with the toolbox."""

    async def shell(script: str) -> str:
        done = await cluster.kubectl(
            "exec", name, "--", "bash", "-c", script, check=False, timeout_s=120
        )
        return done.stdout

    return Place(f"pod {name}", shell)


def node(name: str = "node1") -> Place:
    """A node itself, from which the kubelet's probes come."""

    async def shell(script: str) -> str:
        return (await on_node("bash", "-c", script, node=name, check=False, timeout_s=120)).stdout

    return Place(name, shell)


def network_of_pod(pid: int) -> Place:
    """The network of the pod that has a process, as its other containers see it."""

    async def shell(script: str) -> str:
        inside = f"nsenter -t {pid} -n bash -c {shlex.quote(script)}"
        return (await on_node("bash", "-c", inside, check=False, timeout_s=60)).stdout

    return Place("loopback", shell)


def asks(address: str, who: str, *, port: int = ANSWERS, ipv6: bool = False) -> list[Question]:
    """Who answers there, by TCP and by UDP. Asked three times, a second apart: a Service's rules come a moment after its pods."""
    target = _target(address, port, ipv6)
    return [
        Question(
            f"{protocol} to {address} port {port}",
            f"for _ in 1 2 3; do a=$(echo hello | socat -t{waits_s} - {protocol}{target}{options} 2>&1);"
            ' case $a in *" hello") break ;; esac; sleep 1; done; echo "$a"',
            f"{who} hello",
        )
        for protocol, options, waits_s in (("TCP", ",connect-timeout=5", 5), ("UDP", "", 1))
    ]


def asks_in_vain(address: str, *, port: int = ANSWERS, ipv6: bool = False) -> list[Question]:
    """Nobody answers there, by TCP and by UDP. Asked until that is so, five times at most, and then twice more: a policy's rules come
    a moment after it."""
    target = _target(address, port, ipv6)
    return [
        Question(
            f"{protocol} to {address} port {port}",
            f"ask() {{ echo hello | socat -t{waits_s} - {protocol}{target}{options} 2>/dev/null; }};"
            ' for _ in 1 2 3 4 5; do a=$(ask); [ -n "$a" ] || break; sleep 1; done;'
            ' a=$a$(ask)$(ask); echo "${a:-no answer}"',
            "no answer",
        )
        for protocol, options, waits_s in (("TCP", ",connect-timeout=3", 5), ("UDP", "", 2))
    ]


def sends_much(address: str, *, port: int = ECHOES, ipv6: bool = False) -> list[Question]:
    """What is longer than a frame comes back as it was: a stream of many segments, and one datagram in fragments. Both directions stay
    open until all has come back: passt may stop in the middle where one is closed (ADR 14)."""
    target = _target(address, port, ipv6)
    return [
        Question(
            f"{size} bytes by {protocol} to {address} port {port}",
            f"f=$(mktemp); head -c {size} /dev/urandom >$f;"
            f" socat -b 65536 -T{waits_s} {protocol}{target}"
            f' SYSTEM:"cat $f & head -c {size} | cmp - $f >&2 && echo same >&2"; rm $f',
            "same",
        )
        for protocol, size, waits_s in (("TCP", _BULK_BYTES, 5), ("UDP", _DATAGRAM_BYTES, 1))
    ]


def pings(address: str, nic: str = "eth0") -> list[Question]:
    """Echo requests are answered: one as long as the interface's MTU lets it be, and one that has to be cut in pieces."""
    return [
        Question(
            f"{what} to {address}",
            f"ping -c 1 -W 5 -s {size} {address} >/dev/null && echo answered",
            "answered",
        )
        for what, size in (
            ("a packet of the MTU's size", f"$(($(cat /sys/class/net/{nic}/mtu) - 28))"),
            ("a packet in fragments", str(_DATAGRAM_BYTES)),
        )
    ]


def is_refused(address: str, port: int) -> Question:
    """Nobody listens there, and that is said at once."""
    return Question(
        f"TCP to {address} port {port}",
        f"socat -t2 - TCP{_target(address, port)},connect-timeout=5 </dev/null 2>&1"
        " | grep -o 'Connection refused' | uniq",
        "Connection refused",
    )


def _target(address: str, port: int, ipv6: bool = False) -> str:
    return (
        f"6:[{address}]:{port}"
        if ipv6 and ":" in address
        else f"{6 if ipv6 else 4}:{address}:{port}"
    )


async def ask_from_host(
    address: str, port: int, protocol: Protocol, *, within_s: float = 10
) -> str:
    """What ANSWERS behind an address of the cluster says to this machine. Raises TimeoutError when that is nothing."""
    async with asyncio.timeout(within_s):
        if protocol == "TCP":
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"hello\n")
            answer = await reader.readline()
            writer.close()
        else:
            received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Receives(received), remote_addr=(address, port)
            )
            transport.sendto(b"hello\n")
            answer = await received
            transport.close()
    return answer.decode().strip()


class _Receives(asyncio.DatagramProtocol):
    def __init__(self, received: asyncio.Future[bytes]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if not self._received.done():
            self._received.set_result(data)
