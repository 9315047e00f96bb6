"""The verbs that are byte streams: console, vnc and portforward; and vnc/screenshot, which is a file."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypeAlias

from aiohttp import web
from podvisor.handler.v1 import handler_pb2 as pb
from podvisor.handler.v1 import handler_pb2_grpc
from podvisor_common.api import v1
from podvisor_common.api.v1.names import Phase
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiNotFound
from podvisor_common.kube.resources import (
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_common.rpc.client import stream
from podvisor_common.rpc.duplex import Duplex, duplex
from podvisor_common.rpc.errors import RpcError

from podvisor_controller.subresources.instances import Handlers, Instances, Refusals, conflicting
from podvisor_controller.subresources.statuses import (
    bad_request,
    conflict,
    internal,
    not_found,
    unavailable,
)
from podvisor_controller.subresources.verbs import Call, Verb
from podvisor_controller.subresources.websockets import Guest, bridge, check_upgrade

OPENED_WITHIN_S = 15.0
PICTURE_WITHIN_S = 30.0
MAX_PORT = 65535

_Stub: TypeAlias = "handler_pb2_grpc.HandlerServiceAsyncStub"
_PROTOCOLS = {"": pb.PORT_PROTOCOL_TCP, "tcp": pb.PORT_PROTOCOL_TCP, "udp": pb.PORT_PROTOCOL_UDP}
_PORT = "/{port}"
_PORT_AND_PROTOCOL = "/{port}/{protocol}"


def verbs(client: KubeClient, handlers: Handlers) -> list[Verb]:
    """All of them."""
    verbs = _StreamVerbs(client, Instances(client, handlers))
    instances = VIRTUAL_MACHINE_INSTANCES
    return [
        Verb("GET", instances, "console", verbs.console),
        Verb("GET", instances, "vnc", verbs.vnc),
        Verb("GET", instances, "vnc/screenshot", verbs.screenshot),
        *(
            Verb("GET", resource, "portforward", verbs.port_forward, rest=rest)
            for resource in (instances, VIRTUAL_MACHINES)
            for rest in (_PORT, _PORT_AND_PROTOCOL)
        ),
    ]


_DEVICE_REFUSALS: Refusals = {
    # virtctl tries a console again for as long as it is answered by 400.
    "NotRunning": lambda _, message: bad_request(f"VMI is not running: {message}"),
    "NoSuchDevice": lambda _, message: bad_request(message),
    "SessionInUse": lambda _, message: unavailable(message),
}
_PORT_REFUSALS: Refusals = {
    "NotRunning": conflicting("VM is not running"),
    "AlreadyPaused": conflicting("VMI is paused"),
    "NoAddress": lambda _, message: internal(f"dialing VM: {message}"),
    "PortUnreachable": lambda _, message: internal(f"dialing VM: {message}"),
}


class _StreamVerbs:
    def __init__(self, client: KubeClient, instances: Instances) -> None:
        self._client = client
        self._instances = instances

    async def console(self, call: Call) -> web.StreamResponse:
        """The guest's serial console."""
        vmi = await self._instances.get(call.key)
        if vmi.spec.domain.devices.autoattach_serial_console is False:
            raise bad_request("No serial consoles are present.")
        _check_phase(vmi)
        check_upgrade(call.request)
        async with self._instances.guest(vmi, _DEVICE_REFUSALS) as (handler, reference):
            opening = pb.OpenConsoleRequest(opening=pb.ConsoleOpening(reference=reference))
            return await _bridged(
                call.request,
                duplex(handler.OpenConsole, opening, first_reply_timeout_s=OPENED_WITHIN_S),
                pb.OpenConsoleRequest,
            )

    async def vnc(self, call: Call) -> web.StreamResponse:
        """The guest's screen, by RFB."""
        vmi = await self._screened(call.key)
        preserve = _flag(call.request, "preserveSession")
        check_upgrade(call.request)
        async with self._instances.guest(vmi, _DEVICE_REFUSALS) as (handler, reference):
            opening = pb.VncOpening(reference=reference, preserve_session=preserve)
            return await _bridged(
                call.request,
                duplex(
                    handler.OpenVnc,
                    pb.OpenVncRequest(opening=opening),
                    first_reply_timeout_s=OPENED_WITHIN_S,
                ),
                pb.OpenVncRequest,
            )

    async def screenshot(self, call: Call) -> web.StreamResponse:
        """A picture of the guest's screen, as PNG."""
        vmi = await self._screened(call.key)
        async with self._instances.guest(vmi, _DEVICE_REFUSALS) as (handler, reference):
            pieces = stream(
                handler.TakeScreenshot,
                pb.TakeScreenshotRequest(reference=reference),
                first_reply_timeout_s=OPENED_WITHIN_S,
                timeout_s=PICTURE_WITHIN_S,
            )
            return await _sent(call.request, pieces)

    async def port_forward(self, call: Call) -> web.StreamResponse:
        """A port of the guest."""
        port, protocol = _target(call.request)
        await self._check_machine(call)
        vmi = await self._instances.get(call.key)
        if not vmi.spec.domain.devices.interfaces and not vmi.status.interfaces:
            raise bad_request("no network interfaces are present")
        check_upgrade(call.request)
        async with self._instances.guest(vmi, _PORT_REFUSALS) as (handler, reference):
            opening = pb.PortOpening(reference=reference, port=port, protocol=protocol)
            return await _bridged(
                call.request,
                duplex(
                    handler.ForwardPort,
                    pb.ForwardPortRequest(opening=opening),
                    first_reply_timeout_s=OPENED_WITHIN_S,
                ),
                pb.ForwardPortRequest,
            )

    async def _screened(self, key: ObjectKey) -> v1.VirtualMachineInstance:
        vmi = await self._instances.get(key)
        if vmi.spec.domain.devices.autoattach_graphics_device is False:
            raise bad_request("No graphics devices are present.")
        _check_phase(vmi)
        return vmi

    async def _check_machine(self, call: Call) -> None:
        if call.resource is not VIRTUAL_MACHINES:
            return
        try:
            await self._client.get(VIRTUAL_MACHINES, call.key)
        except ApiNotFound as error:
            raise not_found(VIRTUAL_MACHINES, call.key.name) from error


async def _sent(
    request: web.Request, pieces: AsyncGenerator[pb.TakeScreenshotResponse, None]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "image/png"})
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if not response.prepared:  # up to here, a refusal can be told
                    await response.prepare(request)
                await response.write(piece.png)
    except RpcError:
        if not response.prepared or request.transport is None:
            raise
        request.transport.abort()  # half a picture is not to be taken for one
    except OSError:
        return response  # the client has gone
    if not response.prepared:
        raise internal("the screen gave no picture")
    return response


async def _bridged(
    request: web.Request,
    opening: AbstractAsyncContextManager[Duplex[Any, Any]],
    message: type[pb.OpenConsoleRequest | pb.OpenVncRequest | pb.ForwardPortRequest],
) -> web.StreamResponse:
    """Upgrades the request once the guest's end is open: before, a refusal can be told."""
    async with opening as opened:

        async def read() -> bytes | None:
            reply = await opened.read()
            return reply.data if reply is not None else None

        async def write(data: bytes) -> None:
            await opened.write(message(data=data))

        return await bridge(request, Guest(read, write, opened.done_writing))


def _check_phase(vmi: v1.VirtualMachineInstance) -> None:
    phase = vmi.status.phase
    if phase == Phase.FAILED:
        raise conflict(VIRTUAL_MACHINE_INSTANCES, vmi.metadata.name, "VMI is in failed status")
    if phase not in (Phase.SCHEDULED, Phase.RUNNING):
        raise bad_request(f"VMI is not running: its phase is {phase or Phase.PENDING}")


def _target(request: web.Request) -> tuple[int, pb.PortProtocol.ValueType]:
    """The port of a path. Raises StatusError (400)."""
    port, protocol = request.match_info["port"], request.match_info.get("protocol", "")
    is_number = port.isascii() and port.isdecimal() and len(port) <= len(str(MAX_PORT))
    if not is_number or not 1 <= int(port) <= MAX_PORT:
        raise bad_request(f"invalid port {port!r}: it has to be between 1 and {MAX_PORT}")
    if protocol not in _PROTOCOLS:
        raise bad_request(f"invalid protocol {protocol!r}: it has to be tcp or udp")
    return int(port), _PROTOCOLS[protocol]


def _flag(request: web.Request, name: str) -> bool:
    """A flag of the query. Raises StatusError (400)."""
    text = request.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise bad_request(f"{name} must be true or false")
    return text == "true"
