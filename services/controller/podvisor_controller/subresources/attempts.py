"""Writes of a verb: read, decide, write, and again where somebody wrote in between."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from podvisor_common.kube.errors import ApiConflict, ApiNotFound
from podvisor_common.kube.resources import Resource

from podvisor_controller.subresources.statuses import conflict, not_found

# Whoever writes in between is nearly always done by the next attempt.
ATTEMPTS = 10
_TRY_AGAIN = (
    "the object has been modified; please apply your changes to the latest version and try again"
)

_T = TypeVar("_T")


async def until_written(resource: Resource, name: str, attempt: Callable[[], Awaitable[_T]]) -> _T:
    """The outcome of the `attempt` of which no write comes too late. Raises StatusError (404, 409) and ApiError."""
    for _ in range(ATTEMPTS):
        try:
            return await attempt()
        except ApiConflict:
            continue
        except ApiNotFound as error:
            raise not_found(resource, name) from error
    raise conflict(resource, name, _TRY_AGAIN)
