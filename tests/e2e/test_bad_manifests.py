"""The real API server refuses bad manifests with the path of the field, and makes nothing of them."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.machine import vm, vmi
from tests.support.manifests.bad import FAULTS, BadManifest, some_bad_manifests
from tests.support.manifests.places import schema_of

COUNT = 200
AT_ONCE = 8
SEED = 20
_RESOURCES = {one.kind: one for one in (VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES)}


async def _wrong_answer(client: KubeClient, namespace: str, bad: BadManifest) -> str | None:
    """What is wrong with the answer to a bad manifest; None when it is as it should be."""
    resource = replace(_RESOURCES[bad.good.kind], version=bad.good.version)
    try:
        await client.create(resource, namespace, bad.manifest)
    except ApiError as error:
        named = any(bad.is_named_by(cause.field) for cause in error.causes)
        return None if 400 <= error.status < 500 and named else f"{bad}: {error}, {error.causes}"
    return f"{bad}: admitted"


async def test_two_hundred_bad_manifests_leave_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is refused by a 4xx that names a field at fault, also when they come eight at a time."""
    monkeypatch.setenv("KUBECONFIG", str(ROOT / ".dev/kubeconfig"))
    bad = some_bad_manifests(COUNT, of_seed=SEED)
    assert {fault for one in bad for fault in one.faults} == set(FAULTS)
    turns = asyncio.Semaphore(AT_ONCE)
    async with await KubeClient.from_environment(user_agent="podvisor-bad-manifests") as client:

        async def send(one: BadManifest) -> str | None:
            async with turns:
                return await _wrong_answer(client, cluster.namespace, one)

        answers = await asyncio.gather(*map(send, bad))
    assert [answer for answer in answers if answer] == []
    for kind in ("vm", "vmi", "pods"):
        assert await cluster.all(kind) == [], kind


def _rules() -> Iterator[str]:
    """The rules that the definitions themselves have, by their messages, wherever in a specification they stand."""
    for kind in _RESOURCES:
        yield from _rules_in(schema_of(kind, "v1"))


def _rules_in(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
        for below in schema.values():
            yield from _rules_in(below)


def _twice(machine: Json) -> None:
    machine["spec"]["running"] = True


def _never(machine: Json) -> None:
    del machine["spec"]["runStrategy"]


BROKEN: dict[str, tuple[Callable[[Json], None], str]] = {
    "Running and RunStrategy are mutually exclusive": (_twice, "spec.running"),
    "RunStrategy must be specified": (_never, "spec.runStrategy"),
}


@pytest.mark.parametrize("rule", sorted(set(_rules())))
async def test_rule_of_the_definition(cluster: Cluster, rule: str) -> None:
    """Each rule in a definition refuses by itself, before a webhook is asked, and names its field."""
    change, field = BROKEN[rule]
    machine = vm("odd", run_strategy="Halted")
    change(machine)
    answer = await cluster.refused(machine)
    assert f"{field}: " in answer
    assert rule in answer
    assert "admission webhook" not in answer
    assert await cluster.get("vm", "odd") is None


@pytest.mark.parametrize("levels", [200, 900, 5000])
async def test_values_nested_too_deeply(cluster: Cluster, levels: int) -> None:
    """No depth that the API server takes makes admission fall over."""
    nested = '{"a":' * levels + "1" + "}" * levels
    for manifest in (vm("deep"), vmi("deep")):
        text = json.dumps(_with_gpus(manifest)).replace('"GPUS"', nested)
        plural = _RESOURCES[manifest["kind"]].plural
        path = f"/apis/{manifest['apiVersion']}/namespaces/{cluster.namespace}/{plural}"
        done = await cluster.kubectl("create", "--raw", path, "-f", "-", stdin=text, check=False)
        assert done.exit_code != 0
        assert "domain.devices.gpus" in done.stderr, done.stderr
    assert await cluster.all("vm") == await cluster.all("vmi") == []


def _with_gpus(manifest: Json) -> Json:
    spec = manifest["spec"]
    domain = spec["template"]["spec"]["domain"] if "template" in spec else spec["domain"]
    domain["devices"]["gpus"] = "GPUS"
    return manifest
