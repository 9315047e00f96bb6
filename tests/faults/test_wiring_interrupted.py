"""A step of wiring fails, and the pod goes: nothing of it stays on the node, and the next one is wired.

The kernel refuses one message of each thread of the handler: strace, which counts a thread's calls from its first, makes it so. What
wires a pod is a thread of its own that talks to the kernel and to nobody else, so every one of its steps can be struck by its number;
the other threads lose a message, too, and have to live with it.
"""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from tests.faults.guest import booted
from tests.faults.strike import Victim
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, gone
from tests.support.networks import Binding, networked_vmi
from tests.support.node import node_at_rest, until_nothing_more
from tests.support.tracing import calls, traced

pytestmark = pytest.mark.timeout(300)

TIDY_UP_S = 30
STRUCK_WITHIN_S = 20


def _vmi(name: str, binding: Binding) -> Json:
    return networked_vmi(name, {"default": {"pod": {}}}, {"default": {binding: {}}})


def _handler_traced(inject: str = "") -> AbstractAsyncContextManager[None]:
    """All that the handler sends is written down, and some of it refused."""
    return traced(Victim.HANDLER, "-e trace=sendto", inject)


def _is_to_kernel(call: str) -> bool:
    return "nlmsg_len" in call


async def _struck() -> None:
    """Wait until a message to the kernel was refused. Raises TimeoutError."""
    async with asyncio.timeout(STRUCK_WITHIN_S):
        while not any(
            "INJECTED" in each and _is_to_kernel(each)
            for sent in (await calls()).values()
            for each in sent
        ):
            pass


async def _calls_of_wiring(cluster: Cluster, binding: Binding) -> int:
    """How many messages it takes to wire a pod."""
    async with _handler_traced():
        await cluster.apply(_vmi("counted", binding))
        await Machine(cluster, "counted").running(within_s=60)
        sent = await calls()
    await cluster.kubectl("delete", "vmi", "counted", "--timeout=30s")
    return max(sum(map(_is_to_kernel, each)) for each in sent.values())


async def _goes_while_wired(cluster: Cluster, name: str, binding: Binding, call: int) -> None:
    """A pod whose wiring was refused its nth message is deleted at once."""
    async with _handler_traced(f"-e inject=sendto:error=ENOBUFS:when={call}"):
        await cluster.apply(_vmi(name, binding))
        await _struck()
        pod = (await Machine(cluster, name).pod())["metadata"]["name"]
        await cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        await cluster.kubectl("delete", "vmi", name, "--wait=false")
    await cluster.until("vmi", name, gone, within_s=TIDY_UP_S, what="gone")


@pytest.mark.parametrize(
    "every", [pytest.param(5, id="every-fifth"), pytest.param(1, id="each", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("binding", ["masquerade", "bridge"])
async def test_pod_goes_at_any_step(cluster: Cluster, binding: Binding, every: int) -> None:
    """No process, namespace, link, table, mount or descriptor stays, whichever step failed, and the next machine is reached."""
    count = await _calls_of_wiring(cluster, binding)
    before = await node_at_rest()
    for call in range(1, count + 1, every):
        await _goes_while_wired(cluster, f"short-{call}", binding, call)
    await until_nothing_more(before, within_s=TIDY_UP_S)
    await booted(cluster, _vmi("after", binding))
    await cluster.kubectl("delete", "vmi", "after", "--wait=false")


@pytest.mark.parametrize("binding", ["masquerade", "bridge"])
async def test_step_that_fails_is_repeated(cluster: Cluster, binding: Binding) -> None:
    """What failed in the middle is done by the next pass, and the guest has its network."""
    count = await _calls_of_wiring(cluster, binding)
    async with _handler_traced(f"-e inject=sendto:error=ENOBUFS:when={count - 2}"):
        await cluster.apply(_vmi("again", binding))
        await _struck()
        await Machine(cluster, "again").running(within_s=60)
    machine = Machine(cluster, "again")
    await machine.console_shows("again login:")
    assert (await machine.ssh("hostname")).stdout.strip() == "again"
    await cluster.kubectl("delete", "vmi", "again", "--wait=false")
