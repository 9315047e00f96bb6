"""The verbs addvolume and removevolume: what volumes.py decides is written.

Of a machine they last, for its template follows from its requests; an instance alone has its volume until it ends.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web
from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.subresources import volumes
from podvisor_controller.subresources.attempts import until_written
from podvisor_controller.subresources.options import is_dry_run, read_options
from podvisor_controller.subresources.verbs import Call, Verb
from podvisor_controller.vm.hotplug import own_volumes_annotation
from podvisor_controller.vm.volume_edits import INSTANCE, TEMPLATE, edits_of
from podvisor_controller.vm.volume_requests import Request

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
        options = await read_options(call.request)
        request = parse(options)
        dry_run = is_dry_run(options, call.request.query.getall("dryRun", []))
        await until_written(resource, call.key.name, lambda: write(call.key, request, dry_run))
        return web.Response(status=202)

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
