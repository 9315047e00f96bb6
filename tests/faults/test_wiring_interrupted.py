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
# It takes more calls than that to wire a pod, and each strike costs some seconds.
FEWEST_STEPS, SAMPLE = 10, 6
STEPS_BY = ("sendto",)

Step = tuple[str, int]  # the nth call of that name


def _vmi(name: str, binding: Binding) -> Json:
    return networked_vmi(name, {"default": {"pod": {}}}, {"default": {binding: {}}})


def _handler_traced(inject: str = "") -> AbstractAsyncContextManager[None]:
    """What the handler's threads ask of the kernel is written down, and some of it refused."""
    return traced(Victim.HANDLER, f"-e trace=setns,{','.join(STEPS_BY)}", inject)


async def _of_wiring() -> list[list[str]]:
    """The calls of threads that have entered a pod's namespace."""
    return [made for made in (await calls()).values() if any("setns(" in call for call in made)]


async def _is_struck(cluster: Cluster, name: str) -> bool:
    """Wait until a step of wiring was refused, or the machine runs, as it took a call less this time. Raises TimeoutError."""
    async with asyncio.timeout(STRUCK_WITHIN_S):
        while True:
            if any("INJECTED" in call for made in await _of_wiring() for call in made):
                return True
            if phase_is("Running")(await cluster.get("vmi", name)):
                return False


async def _steps_of_wiring(cluster: Cluster, binding: Binding) -> list[Step]:
    """The calls by which a pod is wired."""
    async with _handler_traced():
        await cluster.apply(_vmi("counted", binding))
        await Machine(cluster, "counted").running(within_s=60)
        made = max(await _of_wiring(), key=len)
    await cluster.kubectl("delete", "vmi", "counted", "--timeout=30s")
    names = [call.partition("(")[0] for call in made]
    steps = [(name, nth) for name in STEPS_BY for nth in range(1, names.count(name) + 1)]
    assert len(steps) >= FEWEST_STEPS, made
    return steps


def _refused(step: Step) -> AbstractAsyncContextManager[None]:
    name, nth = step
    return _handler_traced(f"-e inject={name}:error=ENOBUFS:when={nth}")


async def _goes_while_wired(cluster: Cluster, name: str, binding: Binding, step: Step) -> bool:
    """A pod whose wiring was refused a step is deleted at once. Whether it was refused."""
    async with _refused(step):
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
    steps = await _steps_of_wiring(cluster, binding)
    before = await node_at_rest()
    chosen = steps[:: len(steps) // SAMPLE] if is_sample else steps
    struck = [
        await _goes_while_wired(cluster, f"short-{number}", binding, step)
        for number, step in enumerate(chosen)
    ]
    # The last ones of a kind are not always there: routes come and go by themselves.
    assert struck.count(False) <= len(STEPS_BY), list(zip(chosen, struck, strict=True))
    await until_nothing_more(before, within_s=TIDY_UP_S)
    messages = [step for step in steps if step[0] == "sendto"]
    async with _refused(messages[len(messages) // 2]):
        await cluster.apply(_vmi("after", binding))
        assert await _is_struck(cluster, "after")
        machine = await booted(cluster, _vmi("after", binding))
    assert (await machine.ssh("hostname")).stdout.strip() == "after"
    await cluster.kubectl("delete", "vmi/after", "service/after-ssh", "--wait=false")
