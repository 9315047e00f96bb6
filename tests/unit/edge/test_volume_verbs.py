"""addvolume and removevolume, called as virtctl does: what they write, and what they answer where they do not."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    ObjectKey,
    Resource,
)
from podvisor_controller.subresources.attempts import ATTEMPTS

from tests.unit.controller.builders import situations, spec_body, vm_body, vmi_body
from tests.unit.edge.refused_volume_calls import BAD, CONFLICTS, PLURAL
from tests.unit.edge.subresource_session import Authorizer, Json, served
from tests.unit.edge.volume_calls import (
    ADD,
    NAMED,
    OTHER,
    VM,
    VMI,
    ask,
    found,
    requests,
    spec_with,
)
from tests.unit.kube.fake_apiserver import Refuse


@pytest.fixture
async def server() -> AsyncIterator[Authorizer]:
    async with Authorizer() as server:
        server.put(VM, vm_body(spec={"template": {"spec": spec_with(OTHER)}}))
        server.put(VMI, vmi_body(owned=True, spec=spec_with(OTHER), status={"phase": "Running"}))
        yield server


@pytest.fixture
async def proxy(server: Authorizer) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        KubeClient.for_url(server.url, user_agent="test") as client,
        served(client) as api,
        api.asked_by(api.proxy) as session,
    ):
        yield session


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
async def test_a_machine_is_asked_to_attach(
    server: Authorizer, proxy: aiohttp.ClientSession, version: str
) -> None:
    before = found(server, VM)["spec"]
    assert await ask(proxy, VM, "addvolume", ADD, version=version) == (202, "")
    [request] = requests(server)
    assert request == {
        "addVolumeOptions": {
            "name": "data",
            "disk": {"name": "data", "serial": "s1", "disk": {"bus": "virtio"}},
            "volumeSource": {"persistentVolumeClaim": {"claimName": "data", "hotpluggable": True}},
        }
    }
    assert found(server, VM)["spec"] == before


async def test_requests_are_carried_out_in_their_order(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    assert await ask(proxy, VM, "removevolume", {"name": "other"}) == (202, "")
    data_volume = {**ADD, "volumeSource": {"dataVolume": {"name": "data"}}}
    assert await ask(proxy, VM, "addvolume", data_volume) == (202, "")
    first, second = requests(server)
    assert first == {"removeVolumeOptions": {"name": "other"}}
    source = second["addVolumeOptions"]["volumeSource"]
    assert source == {"dataVolume": {"name": "data", "hotpluggable": True}}


async def test_a_volume_of_an_instance_comes_and_goes(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    before = found(server, VMI)["spec"]
    assert await ask(proxy, VMI, "addvolume", ADD) == (202, "")
    spec = found(server, VMI)["spec"]
    assert [v["name"] for v in spec["volumes"]] == ["root", "seed", "other", "data"]
    claim = {"claimName": "data", "hotpluggable": True}
    assert spec["volumes"][-1] == {"name": "data", "persistentVolumeClaim": claim}
    disk = {"name": "data", "serial": "s1", "disk": {"bus": "virtio"}}
    assert spec["domain"]["devices"]["disks"][-1] == disk
    annotations = found(server, VMI)["metadata"]["annotations"]
    assert annotations[names.EPHEMERAL_VOLUMES_ANNOTATION] == '["data"]'
    assert await ask(proxy, VMI, "removevolume", {"name": "data"}) == (202, "")
    assert found(server, VMI)["spec"] == before
    assert names.EPHEMERAL_VOLUMES_ANNOTATION not in found(server, VMI)["metadata"]["annotations"]
    assert requests(server) == []


async def test_a_verb_writes_of_an_instance_only_what_comes_or_goes(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    vmi = found(server, VMI)
    vmi["spec"]["domain"]["devices"]["disks"][0] |= {"shareable": False, "futureField": 1}
    server.put(VMI, vmi)
    before = found(server, VMI)["spec"]["domain"]["devices"]["disks"]
    assert await ask(proxy, VMI, "addvolume", ADD) == (202, "")
    assert found(server, VMI)["spec"]["domain"]["devices"]["disks"][:-1] == before
    assert await ask(proxy, VMI, "removevolume", {"name": "other"}) == (202, "")
    disks = found(server, VMI)["spec"]["domain"]["devices"]["disks"]
    assert (disks[0], [d["name"] for d in disks[-2:]]) == (before[0], ["root", "data"])


async def test_the_first_volume_of_a_machine_without_devices(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    spec = spec_body()
    del spec["volumes"], spec["domain"]["devices"]
    server.put(VM, vm_body(spec={"template": {"spec": spec}}))
    vmi = vmi_body(owned=True, status={"phase": "Running"})
    del vmi["spec"]["volumes"], vmi["spec"]["domain"]["devices"]
    server.put(VMI, vmi)
    for resource in (VM, VMI):
        assert await ask(proxy, resource, "addvolume", ADD) == (202, "")
    spec = found(server, VMI)["spec"]
    assert [v["name"] for v in spec["volumes"]] == ["data"]
    assert spec["domain"]["devices"] == {"disks": [NAMED["disk"]]}


@pytest.mark.parametrize("resource", [VM, VMI], ids=["vm", "vmi"])
async def test_calls_at_once_all_win(
    server: Authorizer, proxy: aiohttp.ClientSession, resource: Resource
) -> None:
    calls = [
        ask(
            proxy,
            resource,
            "addvolume",
            {
                **ADD,
                "name": f"data{number}",
                "volumeSource": {"persistentVolumeClaim": {"claimName": f"data{number}"}},
            },
        )
        for number in range(4)
    ]
    assert await asyncio.gather(*calls) == [(202, "")] * 4
    text = str(found(server, resource))
    assert all(f"data{number}" in text for number in range(4))


@pytest.mark.parametrize("resource", [VM, VMI], ids=["vm", "vmi"])
@pytest.mark.parametrize("field", ["name", "volumeSource"])
async def test_of_calls_at_once_for_one_volume_a_single_one_wins(
    server: Authorizer, proxy: aiohttp.ClientSession, resource: Resource, field: str
) -> None:
    others = {"name": "data2", "volumeSource": {"persistentVolumeClaim": {"claimName": "data2"}}}
    other = {**ADD, **others, field: ADD[field]}
    answers = await asyncio.gather(
        ask(proxy, resource, "addvolume", ADD), ask(proxy, resource, "addvolume", other)
    )
    assert sorted(code for code, _ in answers) == [202, 409]


@pytest.mark.parametrize("resource", [VM, VMI], ids=["vm", "vmi"])
async def test_a_dry_run_only_checks(
    server: Authorizer, proxy: aiohttp.ClientSession, resource: Resource
) -> None:
    version = server.version
    body = {**ADD, "dryRun": ["All"]}
    assert await ask(proxy, resource, "addvolume", body) == (202, "")
    assert server.version == version
    patch = server.requests[-1]
    assert (patch.method, patch.query) == ("PATCH", {"dryRun": "All"})
    assert "dryRun" not in str(patch.body)
    assert await ask(proxy, resource, "addvolume?dryRun=All", ADD) == (202, "")
    assert server.version == version
    code, message = await ask(proxy, resource, "addvolume?dryRun=Some", ADD)
    assert (code, message) == (400, "dryRun must be empty or All")
    code, _ = await ask(proxy, resource, "removevolume", {"name": "no", "dryRun": ["All"]})
    assert code == 409


@pytest.mark.parametrize("resource", [VM, VMI], ids=["vm", "vmi"])
@pytest.mark.parametrize(("verb", "body", "text"), BAD)
async def test_bad_requests(
    server: Authorizer,
    proxy: aiohttp.ClientSession,
    resource: Resource,
    verb: str,
    body: Any,
    text: str,
) -> None:
    code, message = await ask(proxy, resource, verb, body)
    assert (code, message[: len(text)]) == (400, text)
    assert not [r for r in server.requests if r.method == "PATCH"]


@pytest.mark.parametrize(("resource", "kind"), [(VM, ""), (VMI, "instance")], ids=["vm", "vmi"])
@pytest.mark.parametrize(("verb", "body", "text"), CONFLICTS)
async def test_conflicts(
    proxy: aiohttp.ClientSession, resource: Resource, kind: str, verb: str, body: Json, text: str
) -> None:
    expected = f'{PLURAL.format(kind)} "myvm": {text}'
    assert await ask(proxy, resource, verb, body) == (409, expected)


@pytest.mark.parametrize(
    ("before", "verb", "body", "text"),
    situations(
        (
            "add, add",
            NAMED,
            "addvolume",
            ADD,
            "add volume request for volume [data] already exists",
        ),
        (
            "add, remove",
            {**NAMED, "name": "other"},
            "removevolume",
            {"name": "other"},
            "unable to remove volume since an add volume request for volume [other] already exists",
        ),
        (
            "remove, add",
            {"name": "data2"},
            "addvolume",
            {**ADD, "name": "data2"},
            "unable to add volume since a remove volume request for volume [data2] already exists",
        ),
        (
            "remove, remove",
            {"name": "other"},
            "removevolume",
            {"name": "other"},
            "a remove volume request for volume [other] already exists",
        ),
    ),
)
async def test_a_request_that_is_not_carried_out_yet_is_in_the_way(
    server: Authorizer,
    proxy: aiohttp.ClientSession,
    before: Json,
    verb: str,
    body: Json,
    text: str,
) -> None:
    first = "addVolumeOptions" if "disk" in before else "removeVolumeOptions"
    vm = found(server, VM)
    server.put(VM, {**vm, "status": {"volumeRequests": [{first: before}]}})
    code, message = await ask(proxy, VM, verb, body)
    assert code == 409
    assert text in message
    assert len(requests(server)) == 1


@pytest.mark.parametrize("phase", ["", "Pending", "Scheduling", "Scheduled", "Succeeded", "Failed"])
async def test_an_instance_that_does_not_run(
    server: Authorizer, proxy: aiohttp.ClientSession, phase: str
) -> None:
    server.put(VMI, vmi_body(spec=spec_with(OTHER), status={"phase": phase}))
    expected = f'{PLURAL.format("instance")} "myvm": VMI is not running'
    assert await ask(proxy, VMI, "addvolume", ADD) == (409, expected)
    assert (await ask(proxy, VM, "addvolume", ADD))[0] == 202


@pytest.mark.parametrize(("resource", "kind"), [(VM, ""), (VMI, "instance")], ids=["vm", "vmi"])
async def test_what_is_not_there(
    proxy: aiohttp.ClientSession, resource: Resource, kind: str
) -> None:
    key = ObjectKey("shop", "nobody")
    expected = f'virtualmachine{kind}.kubevirt.io "nobody" not found'
    assert await ask(proxy, resource, "addvolume", ADD, key=key) == (404, expected)


@pytest.mark.parametrize("resource", [VM, VMI], ids=["vm", "vmi"])
async def test_whoever_writes_in_between_loses_nothing(
    server: Authorizer, proxy: aiohttp.ClientSession, resource: Resource
) -> None:
    def label() -> None:
        obj = found(server, resource)
        server.put(resource, {**obj, "metadata": {**obj["metadata"], "labels": {"a": "b"}}})

    server.before_change += [label, label]
    assert await ask(proxy, resource, "addvolume", ADD) == (202, "")
    obj = found(server, resource)
    assert obj["metadata"]["labels"] == {"a": "b"}
    assert "data" in str(obj)
    server.before_change += [label] * ATTEMPTS
    code, message = await ask(proxy, resource, "removevolume", {"name": "other"})
    assert (code, "has been modified" in message) == (409, True)


async def test_a_template_that_is_not_admitted_is_refused_at_once(
    server: Authorizer, proxy: aiohttp.ClientSession
) -> None:
    server.not_admitted = Refuse(422, "Invalid", "spec.template: no")
    assert await ask(proxy, VM, "addvolume", ADD) == (422, "spec.template: no")
    assert requests(server) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (422, (422, "no good")),
        (404, (404, 'virtualmachineinstance.kubevirt.io "myvm" not found')),
        (403, (500, "the API server does not let podvisor do this: no good")),
        (401, (500, "the API server does not know podvisor")),
        (503, (503, "no good")),
    ],
)
async def test_what_the_api_server_says_is_passed_on(
    server: Authorizer, proxy: aiohttp.ClientSession, code: int, expected: tuple[int, str]
) -> None:
    server.not_admitted = Refuse(code, "Reason", "no good")
    assert await ask(proxy, VMI, "addvolume", {**ADD, "dryRun": ["All"]}) == expected
