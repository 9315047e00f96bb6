"""The handler's heartbeat: how often, also while the API server is away. In virtual time."""

import asyncio
import itertools

from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import NODES
from podvisor_handler.node.heartbeat import Heartbeat

from tests.unit.kube.fake_apiserver import FakeApiServer, Refuse
from tests.unit.kube.virtual_time import virtual_time


async def ready() -> None:
    return


async def beats(*refusals: Refuse, for_s: float) -> list[float]:
    """When the node was patched, in seconds, with these answers first."""
    loop = asyncio.get_running_loop()
    async with FakeApiServer() as server:
        server.put(NODES, {"metadata": {"name": "n1"}})
        server.refusals.extend(refusals)
        async with KubeClient.for_url(server.url, user_agent="test") as client:
            task = asyncio.create_task(Heartbeat(client, "n1").run(ready), name="heartbeat")
            at_s: list[float] = []
            end_s = loop.time() + for_s
            try:
                async with asyncio.timeout_at(end_s):
                    while True:
                        count = len(server.requests)
                        await server.until(lambda known=count: len(server.requests) > known)  # type: ignore[misc]
                        at_s.append(loop.time())
            except TimeoutError:
                return at_s
            finally:
                task.cancel()
                await asyncio.wait([task])


@virtual_time
async def test_a_beat_a_minute() -> None:
    at_s = await beats(for_s=600)
    assert all(59 <= b - a <= 73 for a, b in itertools.pairwise(at_s))


@virtual_time
async def test_an_api_server_that_is_away_is_asked_ever_less_and_found_soon_when_it_is_back() -> (
    None
):
    at_s = await beats(*[Refuse(503, "ServiceUnavailable")] * 100, for_s=300)
    pauses = [b - a for a, b in itertools.pairwise(at_s)]
    assert pauses[0] < 5
    assert all(9.9 <= pause <= 15.1 for pause in pauses[3:])


@virtual_time
async def test_a_pause_that_the_api_server_asks_for_is_made() -> None:
    refusal = Refuse(429, "TooManyRequests", headers={"Retry-After": "30"})
    first, second, *_ = await beats(refusal, for_s=100)
    assert 29.9 <= second - first <= 46
