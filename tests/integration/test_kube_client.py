"""The Kubernetes package against a real API server: the development cluster of this checkout.

Skipped when the cluster is not up. Everything happens in a namespace of its own, which is deleted afterwards.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import (
    ApiAlreadyExists,
    ApiConflict,
    ApiError,
    ApiExpired,
    ApiInvalid,
    ApiNotFound,
)
from podvisor_common.kube.events import NORMAL, EventRecorder, reference_to
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.leader import LeaderElection
from podvisor_common.kube.reflector import Timing
from podvisor_common.kube.resources import CONFIGMAPS, EVENTS, LEASES, NAMESPACES, ObjectKey

KUBECONFIG = Path(__file__).parents[2] / ".dev" / "kubeconfig"

pytestmark = [
    pytest.mark.skipif(not KUBECONFIG.exists(), reason="the development cluster is not up"),
    pytest.mark.timeout(120),
]


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] | None = None


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeClient]:
    monkeypatch.setenv("KUBECONFIG", str(KUBECONFIG))
    async with await KubeClient.from_environment(user_agent="podvisor-test") as client:
        try:
            await client.list_page(NAMESPACES, limit=1, timeout_s=5)
        except ApiError as error:
            pytest.skip(f"the development cluster does not answer: {error}")
        yield client


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    name = f"kube-test-{secrets.token_hex(3)}"
    await client.create(NAMESPACES, None, {"metadata": {"name": name}})
    yield name
    await client.delete(NAMESPACES, ObjectKey("", name))


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@asynccontextmanager
async def running(informer: Informer[ConfigMap]) -> AsyncIterator[asyncio.Event]:
    changed = asyncio.Event()
    informer.subscribe(lambda key, old, new: changed.set())
    task = asyncio.create_task(informer.run(), name="informer")
    async with asyncio.timeout(30):
        await informer.wait_synced()
    yield changed
    task.cancel()
    await asyncio.wait([task])


async def test_writes_and_their_refusals(client: KubeClient, namespace: str) -> None:
    key = ObjectKey(namespace, "a")
    created = msgspec.json.decode(
        await client.create(CONFIGMAPS, namespace, config_map("a", x="1"))
    )
    with pytest.raises(ApiAlreadyExists):
        await client.create(CONFIGMAPS, namespace, config_map("a"))
    version = created["metadata"]["resourceVersion"]
    await client.merge_patch(CONFIGMAPS, key, {"data": {"y": "2"}})
    stale = {"metadata": {"resourceVersion": version}, "data": {"y": "3"}}
    with pytest.raises(ApiConflict):
        await client.merge_patch(CONFIGMAPS, key, stale)
    with pytest.raises(ApiInvalid):
        await client.json_patch(CONFIGMAPS, key, [{"op": "test", "path": "/data/y", "value": "9"}])
    with pytest.raises(ApiInvalid) as caught:
        await client.create(CONFIGMAPS, namespace, config_map("Not A Name"))
    assert caught.value.causes[0].field == "metadata.name"
    with pytest.raises(ApiConflict):
        await client.delete(CONFIGMAPS, key, uid="another")
    await client.delete(CONFIGMAPS, key, uid=created["metadata"]["uid"])
    with pytest.raises(ApiNotFound):
        await client.get(CONFIGMAPS, key)


async def test_apply_and_its_conflicts(client: KubeClient, namespace: str) -> None:
    key = ObjectKey(namespace, "a")
    await client.apply(CONFIGMAPS, key, config_map("a", x="1"), field_manager="one")
    with pytest.raises(ApiConflict):
        await client.apply(CONFIGMAPS, key, config_map("a", x="2"), field_manager="two")
    body = await client.apply(
        CONFIGMAPS, key, config_map("a", x="2"), field_manager="two", force=True
    )
    assert msgspec.json.decode(body)["data"] == {"x": "2"}


async def test_informer_follows(client: KubeClient, namespace: str) -> None:
    for number in range(7):
        await client.create(CONFIGMAPS, namespace, config_map(f"m{number}"))
    informer = Informer(
        client, CONFIGMAPS, ConfigMap, namespace=namespace, timing=Timing(page_size=3)
    )
    key = ObjectKey(namespace, "m0")
    async with running(informer) as changed, asyncio.timeout(30):
        assert {f"m{number}" for number in range(7)} <= {o.metadata.name for o in informer.list()}
        await client.merge_patch(CONFIGMAPS, key, {"data": {"x": "1"}})
        while (informer.get(key) or ConfigMap(ObjectMeta())).data != {"x": "1"}:
            changed.clear()
            await changed.wait()
        await client.delete(CONFIGMAPS, key)
        while informer.get(key) is not None:
            changed.clear()
            await changed.wait()


async def test_watch_from_the_distant_past_has_expired(client: KubeClient) -> None:
    watch = client.watch(CONFIGMAPS, resource_version="1", timeout_s=5)
    async with aclosing(watch) as lines:
        try:
            first = msgspec.json.decode(await anext(lines))
        except ApiExpired:
            return
    # A young cluster still has its whole past.
    assert first["type"] in ("ADDED", "ERROR")


async def test_watch_ends_with_a_bookmark(client: KubeClient, namespace: str) -> None:
    page = msgspec.json.decode(await client.list_page(CONFIGMAPS, namespace=namespace))
    version = page["metadata"]["resourceVersion"]
    watch = client.watch(CONFIGMAPS, namespace=namespace, resource_version=version, timeout_s=10)
    async with aclosing(watch) as lines, asyncio.timeout(20):
        types = [msgspec.json.decode(line)["type"] async for line in lines]
    assert types[-1] == "BOOKMARK"


async def test_leadership_is_passed_on(client: KubeClient, namespace: str) -> None:
    async def candidate(identity: str, leads: asyncio.Event) -> None:
        async def lead() -> None:
            leads.set()
            await asyncio.Event().wait()

        await LeaderElection(client, namespace, "test", identity, retry_s=0.5).run(lead)

    a_leads, b_leads = asyncio.Event(), asyncio.Event()
    async with asyncio.timeout(30):
        a = asyncio.create_task(candidate("a", a_leads), name="a")
        await a_leads.wait()
        b = asyncio.create_task(candidate("b", b_leads), name="b")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await b_leads.wait()
        a.cancel()
        await b_leads.wait()
        body = await client.get(LEASES, ObjectKey(namespace, "test"))
        spec = msgspec.json.decode(body)["spec"]
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("b", 1)
        b.cancel()
        await asyncio.wait([a, b])


async def test_events_are_accepted(client: KubeClient, namespace: str) -> None:
    created = msgspec.json.decode(
        await client.create(CONFIGMAPS, namespace, config_map("a")), type=ConfigMap
    )
    recorder = EventRecorder(client, "virt-test", "virt-test-0")
    task = asyncio.create_task(recorder.run(), name="events")
    for _ in range(4):
        recorder.record(reference_to(CONFIGMAPS, created), NORMAL, "Tested", "It works.")
    recorder.record(reference_to(CONFIGMAPS, created), NORMAL, "Tested", "It still works.")
    async with asyncio.timeout(20):
        version = "0"
        watch = client.watch(EVENTS, namespace=namespace, resource_version=version, timeout_s=15)
        seen: dict[str, int] = {}
        async with aclosing(watch) as lines:
            while seen != {"It works.": 4, "It still works.": 1}:
                event = msgspec.json.decode(await anext(lines))
                if event["type"] != "BOOKMARK":
                    series = event["object"].get("series") or {"count": 1}
                    seen[event["object"]["note"]] = series["count"]
    task.cancel()
    await asyncio.wait([task])
