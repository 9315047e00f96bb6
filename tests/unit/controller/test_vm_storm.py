"""The users of the end-to-end storm against an API server on a real socket, with a node that does its part at once."""

import random
from collections import Counter

from aiohttp import web
from podvisor_common.kube.client import KubeClient
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings

from tests.support.storm import blow, watching
from tests.unit.controller.api_server import ApiServer, Fate
from tests.unit.controller.scripted_node import changing_leaders, is_ours, node


async def storm(server: ApiServer, seed: int) -> None:
    """The users' part, by a client of their own, and the node's."""
    async with (
        KubeClient.for_url(server.url, user_agent="users") as users,
        node(server),
        watching(users, "shop", patience_s=15) as scene,
    ):
        sailors = await blow(scene, seed)
        kept = {sailor.name for sailor in sailors if sailor.final == "running"}
        assert {vmi.metadata.name for vmi in scene.vmis.list()} == kept


async def test_every_machine_is_as_its_user_left_it(
    server: ApiServer, leading: Controllers
) -> None:
    await storm(server, seed=0)


async def test_the_same_while_writes_fail_and_answers_are_lost(
    server: ApiServer, leading: Controllers
) -> None:
    chance, fates = random.Random(1), Counter[Fate]()

    def fate_of(request: web.Request) -> Fate:
        if not is_ours(request):
            return Fate.ANSWERED
        weights = (0.8, 0.1, 0.1)
        [fate] = chance.choices((Fate.ANSWERED, Fate.REFUSED, Fate.ANSWER_LOST), weights)
        fates[fate] += 1
        return fate

    server.fate_of = fate_of
    await storm(server, seed=1)
    assert min(fates[Fate.REFUSED], fates[Fate.ANSWER_LOST]) > 10, fates


async def test_the_same_while_leaders_come_and_go(
    server: ApiServer, client: KubeClient, settings: Settings
) -> None:
    async with changing_leaders(server, client, settings, writes_each=40) as writes:
        await storm(server, seed=2)
    assert len(writes) > 200
