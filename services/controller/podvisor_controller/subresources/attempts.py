"""Writes of a verb: read, decide, write, and again where somebody wrote in between. Nothing is waited for: 202."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from podvisor_common.kube.errors import ApiConflict, ApiNotFound
from podvisor_common.kube.resources import Resource

from podvisor_controller.subresources.statuses import conflict, not_found
from podvisor_controller.subresources.verbs import Call

# Whoever writes in between is nearly always done by the next attempt.
ATTEMPTS = 10
_TRY_AGAIN = (
    "the object has been modified; please apply your changes to the latest version and try again"
)


async def accepted(
    resource: Resource, call: Call, write: Callable[[], Awaitable[None]]
) -> web.StreamResponse:
    """The answer once `write` has been through. Raises StatusError (404, 409) and ApiError."""
    for _ in range(ATTEMPTS):
        try:
            await write()
        except ApiConflict:
            continue
        except ApiNotFound as error:
            raise not_found(resource, call.key.name) from error
        return web.Response(status=202)
    raise conflict(resource, call.key.name, _TRY_AGAIN)
