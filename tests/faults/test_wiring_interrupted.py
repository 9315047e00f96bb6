"""A step of wiring fails, and the pod goes: nothing of it stays on the node, and the next one is wired.

The kernel refuses one call of each thread of the handler: strace, which counts a thread's calls from its first, makes it so. What wires
a pod is a thread of its own that asks nothing of anybody but the kernel, by netlink (sendto), of taps (ioctl) and of settings (write),
so every one of its steps can be struck by its number; the other threads are struck, too, and have to live with it.
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
# It takes more calls than that to wire a pod, and each strike costs some seconds.
FEWEST_STEPS, SAMPLE = 20, 6
STEPS_BY = ("sendto", "ioctl", "write")

Step = tuple[str, int]  # the nth call of that name


def _vmi(name: str, binding: Binding) -> Json:
    return networked_vmi(name, {"default": {"pod": {}}}, {"default": {binding: {}}})


def _handler_traced(inject: str = "") -> AbstractAsyncContextManager[None]:
    """What the handler's threads ask of the kernel is written down, and some of it refused."""
    return traced(Victim.HANDLER, f"-e trace=setns,{','.join(STEPS_BY)}", inject)


async def _of_wiring() -> list[list[str]]:
    """The calls of threads that have entered a pod's namespace."""
    return [made for made in (await calls()).values() if any("setns(" in call for call in made)]


async def _struck() -> None:
    """Wait until a step of wiring was refused. Raises TimeoutError."""
    async with asyncio.timeout(STRUCK_WITHIN_S):
        while not any("INJECTED" in call for made in await _of_wiring() for call in made):
            pass


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


async def _goes_while_wired(cluster: Cluster, name: str, binding: Binding, step: Step) -> None:
    """A pod whose wiring was refused a step is deleted at once."""
    async with _refused(step):
        await cluster.apply(_vmi(name, binding))
        await _struck()
        pod = (await Machine(cluster, name).pod())["metadata"]["name"]
        await cluster.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
        await cluster.kubectl("delete", "vmi", name, "--wait=false")
    await cluster.until("vmi", name, gone, within_s=TIDY_UP_S, what="gone")


@pytest.mark.parametrize(
    "is_sample",
    [pytest.param(True, id="some"), pytest.param(False, id="each", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("binding", ["masquerade", "bridge"])
async def test_pod_goes_at_any_step(cluster: Cluster, binding: Binding, is_sample: bool) -> None:
    """No process, namespace, link, table, mount or descriptor stays, whichever step failed. A step that fails is repeated: the next
    machine is reached although its last message is refused at first."""
    steps = await _steps_of_wiring(cluster, binding)
    before = await node_at_rest()
    for number, step in enumerate(steps[:: len(steps) // SAMPLE] if is_sample else steps):
        await _goes_while_wired(cluster, f"short-{number}", binding, step)
    await until_nothing_more(before, within_s=TIDY_UP_S)
    async with _refused([step for step in steps if step[0] == "sendto"][-1]):
        await cluster.apply(_vmi("after", binding))
        await _struck()
        machine = await booted(cluster, _vmi("after", binding))
    assert (await machine.ssh("hostname")).stdout.strip() == "after"
    await cluster.kubectl("delete", "vmi/after", "service/after-ssh", "--wait=false")
