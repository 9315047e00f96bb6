"""Which claims the pods of a namespace have, those of others among them."""

import msgspec
import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import PODS
from podvisor_controller.user_pods import PAGE_SIZE, UserPod, pages_of_pods

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.kube.fake_apiserver import Refuse


def body(name: str, phase: str = "Running", *volumes: Json) -> Json:
    return {
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"volumes": list(volumes)},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("volume", "has", "writes"),
    [
        ({"persistentVolumeClaim": {"claimName": "data"}}, {"data"}, {"data"}),
        ({"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}, {"data"}, set()),
        ({"ephemeral": {"volumeClaimTemplate": {}}}, {"web-v"}, {"web-v"}),
        ({"emptyDir": {}}, set(), set()),
    ],
)
def test_claims(volume: Json, has: set[str], writes: set[str]) -> None:
    pod = msgspec.convert(body("web", "", {"name": "v"} | volume), UserPod)
    assert pod.claims() == has
    assert pod.claims(written=True) == writes


async def names_of(client: KubeClient) -> list[str]:
    return [pod.metadata.name async for page in pages_of_pods(client, "shop") for pod in page]


async def test_page_by_page(server: ApiServer, client: KubeClient) -> None:
    for number in range(2 * PAGE_SIZE + 1):
        server.put(PODS, body(f"ended-{number}", "Succeeded"))
        server.put(PODS, body(f"idle-{number}"))
    server.requests.clear()
    names = await names_of(client)
    assert len(names) == 2 * PAGE_SIZE + 1
    assert all(name.startswith("idle-") for name in names)
    asked = [request.query for request in server.requests if request.path.endswith("/shop/pods")]
    # Not one for those that have ended.
    assert [one["limit"] for one in asked] == [str(PAGE_SIZE)] * 3


async def test_a_list_that_takes_too_long_is_taken_in_one_piece(
    server: ApiServer, client: KubeClient
) -> None:
    server.put(PODS, body("idle"))
    server.refusals.append(Refuse(410, "Expired"))
    assert await names_of(client) == ["idle"]
