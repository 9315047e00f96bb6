"""Calls of verbs as virtctl makes them, and what they find and leave."""

from typing import Any

import aiohttp
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)

from tests.unit.controller.builders import spec_body
from tests.unit.edge.subresource_session import USER, Authorizer, Json, path_of

VM, VMI = VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES
KEY = ObjectKey("shop", "myvm")
CLAIM = {"persistentVolumeClaim": {"claimName": "data"}}
ADD: Json = {
    "name": "data",
    "disk": {"disk": {"bus": "virtio"}, "serial": "s1"},
    "volumeSource": CLAIM,
}
NAMED = {**ADD, "disk": {**ADD["disk"], "name": "data"}}
OTHER = {"name": "other", "persistentVolumeClaim": {"claimName": "other", "hotpluggable": True}}


def spec_with(*volumes: Json) -> Json:
    """The specification of the machine, and volumes with a disk of their name."""
    spec = spec_body()
    spec["volumes"] += volumes
    disks = [{"name": v["name"], "disk": {"bus": "scsi"}} for v in volumes]
    spec["domain"]["devices"]["disks"] += disks
    return spec


async def ask(
    session: aiohttp.ClientSession,
    resource: Resource,
    verb: str,
    body: Any,
    *,
    key: ObjectKey = KEY,
    version: str = "v1",
) -> tuple[int, str]:
    """The code and the text of the answer, which is a Status or empty."""
    path = path_of(resource.plural, key, verb, version)
    sent = {"data": body} if isinstance(body, bytes) else {"json": body}
    async with session.put(path, headers=USER, **sent) as answer:
        text = await answer.text()
        if answer.status == 202:
            return 202, text
        status = await answer.json()
        assert (status["kind"], status["code"]) == ("Status", answer.status)
        return answer.status, status["message"]


def found(server: Authorizer, resource: Resource) -> Json:
    obj = server.get(resource, KEY)
    assert obj is not None
    return obj


def requests(server: Authorizer) -> list[Json]:
    asked: list[Json] = found(server, VM)["status"].get("volumeRequests", [])
    return asked
