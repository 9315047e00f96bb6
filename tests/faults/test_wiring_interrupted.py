"""A step of wiring fails, and the pod goes: nothing of it stays on the node, and the next one is wired.

The kernel refuses one message of each thread of the handler: strace, which counts a thread's calls from its first, makes it so. What wires
a pod is a thread of its own that sends to the kernel and to nobody else, so every message can be struck by its number; the other threads
lose one, too, and have to live with it. Taps and settings are no messages: their failure is tests/unit/handler/test_bridge_binding.py's.
"""

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from tests.faults.guest import booted
from tests.faults.strike import Victim
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, gone, phase_is
from tests.support.networks import Binding, networked_vmi
from tests.support.node import node_at_rest, until_nothing_more
from tests.support.tracing import calls, traced

pytestmark = pytest.mark.timeout(300)

TIDY_UP_S = 30
STRUCK_WITHIN_S = 20
# It takes more messages than that to wire a pod, and each strike costs some seconds.
FEWEST_MESSAGES, SAMPLE = 10, 4


def _vmi(name: str, binding: Binding) -> Json:
    return networked_vmi(name, {"default": {"pod": {}}}, {"default": {binding: {}}})


def _handler_traced(inject: str = "") -> AbstractAsyncContextManager[None]:
    """What the handler's threads send is written down, and some of it refused."""
    return traced(Victim.HANDLER, "-e trace=setns,sendto", inject)


async def _of_wiring() -> list[list[str]]:
    """The calls of threads that have entered a pod's namespace."""
    return [made for made in (await calls()).values() if any("setns(" in call for call in made)]


async def _is_struck(cluster: Cluster, name: str) -> bool:
    """Wait until a message of wiring was refused, or the machine runs, as it took one less this time. Raises TimeoutError."""
    async with asyncio.timeout(STRUCK_WITHIN_S):
        while True:
            if any("INJECTED" in call for made in await _of_wiring() for call in made):
                return True
            if phase_is("Running")(await cluster.get("vmi", name)):
                return False


async def _messages_of_wiring(cluster: Cluster, binding: Binding) -> int:
    """How many it takes to wire a pod."""
    async with _handler_traced():
        await cluster.apply(_vmi("counted", binding))
        await Machine(cluster, "counted").running(within_s=60)
        made = max(await _of_wiring(), key=len)
    await cluster.kubectl("delete", "vmi", "counted", "--timeout=30s")
    count = sum(call.startswith("sendto(") for call in made)
    assert count >= FEWEST_MESSAGES, made
    return count


def _refused(message: int) -> AbstractAsyncContextManager[None]:
    return _handler_traced(f"-e inject=sendto:error=ENOBUFS:when={message}")


async def _goes_while_wired(cluster: Cluster, name: str, binding: Binding, message: int) -> bool:
    """A pod whose wiring was refused its nth message is deleted at once. Whether it was refused."""
    async with _refused(message):
        await cluster.apply(_vmi(name, binding))
        is_struck = await _is_struck(cluster, name)
        pod = (await Machine(cluster, name).pod())["metadata"]["name"]
        await cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        await cluster.kubectl("delete", "vmi", name, "--wait=false")
    await cluster.until("vmi", name, gone, within_s=TIDY_UP_S, what="gone")
    return is_struck


@pytest.mark.parametrize(
    "is_sample",
    [pytest.param(True, id="some"), pytest.param(False, id="each", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("binding", ["masquerade", "bridge"])
async def test_pod_goes_at_any_step(cluster: Cluster, binding: Binding, is_sample: bool) -> None:
    """No process, namespace, link, table, mount or descriptor stays, whichever step failed. A step that fails is repeated: the next
    machine is reached although a message in the middle is refused."""
    count = await _messages_of_wiring(cluster, binding)
    before = await node_at_rest()
    struck = {
        message: await _goes_while_wired(cluster, f"short-{message}", binding, message)
        for message in range(1, count + 1, count // SAMPLE if is_sample else 1)
    }
    # The last one is not always there: what is right already is not done again.
    assert list(struck.values()).count(False) <= 1, struck
    await until_nothing_more(before, within_s=TIDY_UP_S)
    # What is read comes first, and each pass reads: with the fault there still, some would fail ever again.
    async with _refused(count // 2):
        await cluster.apply(_vmi("after", binding))
        assert await _is_struck(cluster, "after")
    machine = await booted(cluster, _vmi("after", binding))
    assert (await machine.ssh("hostname")).stdout.strip() == "after"
    await cluster.kubectl("delete", "vmi/after", "service/after-ssh", "--wait=false")
