"""The verb evacuate/cancel of machines and instances: whoever was about to move an instance off its node is to leave it."""

import msgspec
from aiohttp import web
from podvisor_common.api import v1
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES

from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.subresources.attempts import until_written
from podvisor_controller.subresources.options import read_checked
from podvisor_controller.subresources.statuses import not_found
from podvisor_controller.subresources.verbs import Call, Verb

_decode = msgspec.json.Decoder(v1.VirtualMachineInstance).decode


def verbs(client: KubeClient) -> list[Verb]:
    """It, of both."""

    async def cancel(call: Call) -> web.StreamResponse:
        options, dry_run = await read_checked(call.request, v1.EvacuateCancelOptions)
        if call.resource is VIRTUAL_MACHINES:
            try:
                await client.get(VIRTUAL_MACHINES, call.key)
            except ApiNotFound as error:
                raise not_found(VIRTUAL_MACHINES, call.key.name) from error
        await until_written(
            VIRTUAL_MACHINE_INSTANCES,
            call.key.name,
            lambda: _clear(client, call, options.evacuation_node_name, dry_run),
        )
        return web.Response(status=202)

    return [
        Verb("PUT", resource, "evacuate/cancel", cancel, "EvacuateCancelOptions")
        for resource in (VIRTUAL_MACHINES, VIRTUAL_MACHINE_INSTANCES)
    ]


async def _clear(client: KubeClient, call: Call, node: str, dry_run: bool) -> None:
    """Take the request back, if it is still for that node, or for any where none is given. Raises ApiError."""
    vmi = _decode(await client.get(VIRTUAL_MACHINE_INSTANCES, call.key))
    asked = vmi.status.evacuation_node_name
    if not asked or node not in ("", asked):
        return
    patch = {
        "metadata": as_it_was_seen(vmi.metadata),
        "status": {"evacuationNodeName": None},
    }
    await client.merge_patch(
        VIRTUAL_MACHINE_INSTANCES, call.key, patch, subresource="status", dry_run=dry_run
    )
