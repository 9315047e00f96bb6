"""Informers on the real API server when everything between them goes wrong: in the end they have what a fresh list has.

Objects are created, changed and deleted meanwhile, etcd forgets its past, and watches are truncated, repeated, cut, silenced and
told that their version is too old. Skipped when the cluster is not up.
"""

import asyncio
import json
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import msgspec
import pytest
from aiohttp import web
from podvisor_common.api import v1
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.reflector import Timing
from podvisor_common.kube.resources import (
    CONFIGMAPS,
    NAMESPACES,
    VIRTUAL_MACHINES,
    KubeObject,
    ObjectKey,
    Resource,
    key_of,
)
from prometheus_client import REGISTRY

from tests.faults.api_proxy import Fault, Spoilers, api_proxy
from tests.faults.api_spoiler import Chaos
from tests.support.cluster import ROOT, on_node

KUBECONFIG = ROOT / ".dev/kubeconfig"
SEED = int(os.environ.get("PODVISOR_FAULTS_SEED", random.SystemRandom().randrange(10**6)))
CHANGES = 500
NAMES = 25
SELECTED = {"watched": "yes"}
SELECTOR = "watched=yes"
# Quick, so that much goes wrong in little time.
IMPATIENT = Timing(
    page_size=5,
    watch_timeout_min_s=2.0,
    watch_timeout_max_s=6.0,
    watch_inactivity_s=0.6,
    retry_initial_s=0.02,
    retry_max_s=0.2,
    short_watch_s=0.0,
)

pytestmark = [
    pytest.mark.skipif(not KUBECONFIG.exists(), reason="the development cluster is not up"),
    pytest.mark.timeout(150),
]

T = TypeVar("T", bound=KubeObject)


class ConfigMap(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    data: dict[str, str] | None = None


class Followed(Generic[T]):
    """An informer, and the state that follows from all that it has told its subscribers."""

    def __init__(self, client: KubeClient, res: Resource, type_: type[T], namespace: str) -> None:
        self.told: dict[ObjectKey, T] = {}
        self.changed = asyncio.Event()
        self._namespace = namespace
        self._decode = msgspec.json.Decoder(type_).decode
        self.informer = Informer(
            client,
            res,
            type_,
            namespace=namespace,
            label_selector=SELECTOR,
            timing=IMPATIENT,
        )
        self.informer.subscribe(self._on_change)

    def _on_change(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        assert self.told.get(key) == old, f"{key}: told of another past"
        if new is None:
            del self.told[key]
        else:
            self.told[key] = new
        self.changed.set()

    async def until_in_step(self, direct: KubeClient, *, within_s: float) -> None:
        """Wait until the cache has what a fresh list has, object by object, and so have the subscribers."""
        fresh: dict[ObjectKey, T] = {}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self.changed.clear()
                    fresh = await self._listed(direct)
                    if {key_of(obj): obj for obj in self.informer.list()} == fresh:
                        break
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"not in step: {self._differences(fresh)}") from None
        assert self.told == fresh

    async def _listed(self, direct: KubeClient) -> dict[ObjectKey, T]:
        page = await direct.list_page(
            self.informer.resource, namespace=self._namespace, label_selector=SELECTOR, limit=0
        )
        objects = [self._decode(raw) for raw in msgspec.json.decode(page, type=_List).items]
        return {key_of(obj): obj for obj in objects}

    def _differences(self, fresh: dict[ObjectKey, T]) -> str:
        cached = {key_of(obj): obj for obj in self.informer.list()}
        return "\n".join(
            f"{key.name}: cached {cached.get(key)}, listed {fresh.get(key)}"
            for key in sorted(cached.keys() | fresh.keys())
            if cached.get(key) != fresh.get(key)
        )


class _List(msgspec.Struct):
    items: list[msgspec.Raw]


@pytest.fixture
async def direct(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubeClient]:
    """A client that nothing comes between."""
    monkeypatch.setenv("KUBECONFIG", str(KUBECONFIG))
    async with await KubeClient.from_environment(user_agent="podvisor-test") as client:
        yield client


@pytest.fixture
async def namespace(direct: KubeClient) -> AsyncIterator[str]:
    name = f"informer-test-{secrets.token_hex(3)}"
    await direct.create(NAMESPACES, None, {"metadata": {"name": name}})
    yield name
    await direct.delete(NAMESPACES, ObjectKey("", name))


async def compact() -> None:
    """Have etcd forget all versions but the newest."""
    status = await on_node("etcdctl", "endpoint", "status", "-w", "json", node="etcd")
    revision = json.loads(status.stdout)[0]["Status"]["header"]["revision"]
    # Somebody else may have compacted further meanwhile.
    await on_node("etcdctl", "compact", str(revision), node="etcd", check=False)


@asynccontextmanager
async def running(*followed: Followed[Any]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.informer.run()) for each in followed]
        for each in followed:
            await each.informer.wait_synced()
        yield
        for task in tasks:
            task.cancel()


def config_map(name: str, selected: bool, number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": SELECTED if selected else {}},
        "data": {"number": str(number)},
    }


def machine(name: str, selected: bool, number: int) -> dict[str, Any]:
    """A machine that nobody starts."""
    return {
        "apiVersion": VIRTUAL_MACHINES.api_version,
        "kind": VIRTUAL_MACHINES.kind,
        "metadata": {
            "name": name,
            "labels": SELECTED if selected else {},
            "annotations": {"number": str(number)},
        },
        "spec": {
            "runStrategy": "Halted",
            "template": {
                "spec": {"domain": {"devices": {}, "resources": {"requests": {"memory": "64M"}}}}
            },
        },
    }


Manifest = Callable[[str, bool, int], dict[str, Any]]


async def change(
    direct: KubeClient, res: Resource, manifest: Manifest, namespace: str, chance: random.Random
) -> None:
    """Create, change, take out of or into the selection, or delete objects by chance."""
    there: set[str] = set()
    for number in range(CHANGES // 2):
        name = f"object-{chance.randrange(NAMES)}"
        key = ObjectKey(namespace, name)
        body = manifest(name, chance.random() < 0.8, number)
        if name not in there:
            await direct.create(res, namespace, body)
            there.add(name)
        elif chance.random() < 0.4:
            await direct.delete(res, key)
            await _gone(direct, res, key)
            there.discard(name)
        else:
            labels = {"labels": {"watched": body["metadata"]["labels"].get("watched")}}
            annotations = {"annotations": {"number": str(number)}}
            await direct.merge_patch(res, key, {"metadata": labels | annotations})


async def _gone(direct: KubeClient, res: Resource, key: ObjectKey) -> None:
    """A machine's finalizer is somebody else's to take off, within a moment."""
    async with asyncio.timeout(20):
        while True:
            try:
                await direct.get(res, key)
            except ApiNotFound:
                return


@pytest.mark.parametrize("expiring", [False, True], ids=["versions-last", "versions-expire"])
async def test_caches_equal_a_fresh_list_whatever_happened_to_the_watches(
    direct: KubeClient, namespace: str, expiring: bool
) -> None:
    print(f"PODVISOR_FAULTS_SEED={SEED}")
    chance = random.Random(SEED)
    chaos = Chaos(chance, expiring=expiring)
    before = {res: _lists(res) for res in (CONFIGMAPS, VIRTUAL_MACHINES)}
    async with api_proxy() as proxy, KubeClient.for_url(proxy.url, user_agent="test") as client:
        maps = Followed(client, CONFIGMAPS, ConfigMap, namespace)
        machines = Followed(client, VIRTUAL_MACHINES, v1.VirtualMachine, namespace)
        proxy.spoilers = chaos.spoilers
        async with running(maps, machines):
            async with asyncio.TaskGroup() as group:
                forgetting = group.create_task(_forget_again_and_again())
                await asyncio.gather(
                    change(direct, CONFIGMAPS, config_map, namespace, chance),
                    change(direct, VIRTUAL_MACHINES, machine, namespace, chance),
                )
                forgetting.cancel()
            # What is spoiled last has to heal like the rest, only nothing new goes wrong.
            proxy.spoilers = None
            for followed in (maps, machines):
                await followed.until_in_step(direct, within_s=30)
    lists = sum(_lists(res) - count for res, count in before.items())
    print(f"{lists} lists; {dict(chaos.done)}")
    assert chaos.done.total() > 20, "too little went wrong"
    # One at the start, and one for each version that was too old.
    assert lists <= 2 + chaos.expired


async def test_a_list_whose_version_etcd_forgets_between_two_pages(
    direct: KubeClient, namespace: str
) -> None:
    for number in range(12):
        await direct.create(CONFIGMAPS, namespace, config_map(f"m{number}", True, number))
    forgotten: list[str] = []

    async def forget(request: web.Request) -> Fault | None:
        if "continue" in request.query and not forgotten:
            forgotten.append(request.query["continue"])
            await direct.delete(CONFIGMAPS, ObjectKey(namespace, "m0"))
            await compact()
        return None

    async with api_proxy() as proxy, KubeClient.for_url(proxy.url, user_agent="test") as client:
        proxy.spoilers = Spoilers(forget)
        maps = Followed(client, CONFIGMAPS, ConfigMap, namespace)
        async with running(maps):
            await maps.until_in_step(direct, within_s=20)
    assert forgotten


async def _forget_again_and_again() -> None:
    while True:
        await compact()
        await asyncio.sleep(0.5)


def _lists(res: Resource) -> float:
    labels = {"resource": res.plural}
    return REGISTRY.get_sample_value("podvisor_informer_lists_total", labels) or 0.0
