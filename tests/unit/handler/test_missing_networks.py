"""A running guest's interface has not come to its pod yet: what the handler does and says, pass by pass."""

import asyncio
from pathlib import Path
from typing import Any

from podvisor_common.launcher_pod import secondary_interface_name

from tests.unit.handler.fake_launcher import FakeLauncher, needs_root
from tests.unit.handler.own_network import OwnNetwork, node_in, own_network

pytestmark = needs_root

BLUE = secondary_interface_name("blue")
STATUS = "k8s.v1.cni.cncf.io/network-status"
SPEC: dict[str, Any] = {
    "domain": {
        "memory": {"guest": "64M"},
        "devices": {
            "interfaces": [{"name": "default", "masquerade": {}}, {"name": "blue", "bridge": {}}]
        },
    },
    "networks": [
        {"name": "default", "pod": {}},
        {"name": "blue", "multus": {"networkName": "shop/lan"}},
    ],
}


def test_looking_for_an_interface_does_not_put_right_what_is_wrong(tmp_path: Path) -> None:
    async def test(network: OwnNetwork) -> None:
        launcher = FakeLauncher(refuses=True)
        async with node_in(tmp_path, launcher, SPEC) as node:
            pass_ = await node.look()
            assert pass_ is not None
            assert 1 < pass_.after_s <= 3
            assert "it can never work" in node.world.condition("Synchronized")["message"]
            for number in range(3):
                node.annotations[STATUS] = f'[{{"name": "news/{number}"}}]'
                await node.look()
                assert "it can never work" in node.world.condition("Synchronized")["message"]
            assert len(launcher.applied) == 1
            launcher.refuses = False
            await asyncio.to_thread(network.run, f"ip link add {BLUE} type veth peer name other")
            node.annotations[STATUS] = f'[{{"name": "shop/lan", "interface": "{BLUE}"}}]'
            assert await node.look() is None
            assert [len(spec.interfaces) for spec in launcher.applied] == [1, 2]
            assert node.world.condition("Synchronized") == {}

    with own_network() as network:
        network.elsewhere(lambda: test(network))
