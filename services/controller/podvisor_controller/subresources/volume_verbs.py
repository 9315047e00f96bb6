"""The verbs addvolume and removevolume: read, decide (volumes.py), write, and again where somebody wrote in between.

Of a machine they last, for its template follows from its requests; an instance alone has its volume until it ends. Nothing is waited for: 202.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict, ApiNotFound
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.subresources import volumes
from podvisor_controller.subresources.statuses import conflict, not_found
from podvisor_controller.subresources.verbs import Call, Verb
from podvisor_controller.vm.hotplug import own_volumes_annotation
from podvisor_controller.vm.volume_edits import INSTANCE, TEMPLATE, edits_of
from podvisor_controller.vm.volume_requests import Request
from podvisor_controller.webhooks.nesting import decode_bounded

BODY_TIMEOUT_S = 5.0
# Whoever writes in between is nearly always done by the next attempt.
ATTEMPTS = 10
_TRY_AGAIN = (
    "the object has been modified; please apply your changes to the latest version and try again"
)

_decode_vm = msgspec.json.Decoder(v1.VirtualMachine).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode
_decode = msgspec.json.Decoder(dict[str, Any]).decode

Parse = Callable[[Mapping[str, Any]], Request]
Write = Callable[[ObjectKey, Request, bool], Awaitable[None]]


def verbs(client: KubeClient) -> list[Verb]:
    """The four of them."""
    writer = _Writer(client)
    targets: list[tuple[Resource, Write]] = [
        (VIRTUAL_MACHINES, writer.ask_machine),
        (VIRTUAL_MACHINE_INSTANCES, writer.plug_instance),
    ]
    found = []
    for resource, write in targets:
        add = _handler(resource, volumes.add_request, write)
        remove = _handler(resource, volumes.remove_request, write)
        found += [
            Verb("PUT", resource, "addvolume", add, "AddVolumeOptions"),
            Verb("PUT", resource, "removevolume", remove, "RemoveVolumeOptions"),
        ]
    return found


def _handler(
    resource: Resource, parse: Parse, write: Write
) -> Callable[[Call], Awaitable[web.StreamResponse]]:
    async def handle(call: Call) -> web.StreamResponse:
        options = await _options(call.request)
        request = parse(options)
        dry_run = volumes.is_dry_run(options, call.request.query.getall("dryRun", []))
        for _ in range(ATTEMPTS):
            try:
                await write(call.key, request, dry_run)
            except ApiConflict:
                continue
            except ApiNotFound as error:
                raise not_found(resource, call.key.name) from error
            return web.Response(status=202)
        raise conflict(resource, call.key.name, _TRY_AGAIN)

    return handle


class _Writer:
    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def ask_machine(self, key: ObjectKey, request: Request, dry_run: bool) -> None:
        """One attempt to add a request to a machine's status. Raises StatusError and ApiError."""
        raw = await self._client.get(VIRTUAL_MACHINES, key)
        vm = _decode_vm(raw)
        wanted = volumes.template_with(vm, request)
        # What admission does not take is refused here and now: later on, the request would be dropped.
        edits = edits_of(_decode(raw), TEMPLATE, wanted.volumes, wanted.disks, exactly=True)
        await self._client.json_patch(VIRTUAL_MACHINES, key, edits, dry_run=True)
        requests = msgspec.to_builtins([*(vm.status.volume_requests or ()), request])
        patch = {"metadata": as_it_was_seen(vm.metadata), "status": {"volumeRequests": requests}}
        await self._client.merge_patch(
            VIRTUAL_MACHINES, key, patch, subresource="status", dry_run=dry_run
        )

    async def plug_instance(self, key: ObjectKey, request: Request, dry_run: bool) -> None:
        """One attempt to give an instance other volumes. Raises StatusError and ApiError."""
        raw = await self._client.get(VIRTUAL_MACHINE_INSTANCES, key)
        vmi = _decode_vmi(raw)
        wanted = volumes.plugged(vmi, request)
        edits = edits_of(_decode(raw), INSTANCE, wanted.volumes, wanted.disks, exactly=True)
        annotations = {**(vmi.metadata.annotations or {})}
        annotations.pop(names.EPHEMERAL_VOLUMES_ANNOTATION, None)
        annotations |= own_volumes_annotation(volumes.own_with(vmi, request))
        edits.append({"op": "add", "path": "/metadata/annotations", "value": annotations})
        await self._client.json_patch(VIRTUAL_MACHINE_INSTANCES, key, edits, dry_run=dry_run)


async def _options(request: web.Request) -> Mapping[str, Any]:
    """The body, an empty one being one without options. Raises StatusError (400), or answers 413 and 408."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    if not body.strip():
        return {}
    try:
        return decode_bounded(_decode, body)
    except msgspec.DecodeError as error:
        raise volumes.malformed(error) from error
