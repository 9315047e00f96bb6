"""The HTTPS application of the aggregated API: finds out who asks for what and whether that is allowed, then has the verb answer.

Invariants: no verb is reached without a user whom the front proxy vouches for and the API server lets call it; discovery is for everybody;
bodies are bounded and never logged; a fault of ours says nothing of its inside.
"""

from collections.abc import Callable, Sequence

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError, ApiForbidden
from podvisor_common.kube.resources import ObjectKey

from podvisor_controller.subresources import access
from podvisor_controller.subresources.discovery import documents
from podvisor_controller.subresources.front_proxy import FrontProxy
from podvisor_controller.subresources.statuses import StatusError, passed_on
from podvisor_controller.subresources.verbs import GROUP, VERSIONS, Call, Verb

BODY_LIMIT_BYTES = 1 << 20

# What is no name of an object must not become part of a path.
_NAME = "[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"
_REASONS = {404: "NotFound", 405: "MethodNotAllowed", 413: "RequestEntityTooLarge"}

_log = structlog.stdlib.get_logger(__name__)


def subresource_app(
    client: KubeClient,
    front_proxy: FrontProxy,
    verbs: Sequence[Verb],
    *,
    product_version: str,
    is_stopping: Callable[[], bool],
) -> web.Application:
    """The application to serve on its port. Answers given while `is_stopping` close the connection."""

    @web.middleware
    async def closing(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if is_stopping() and not response.prepared:
            response.force_close()
        return response

    app = web.Application(client_max_size=BODY_LIMIT_BYTES, middlewares=[closing, _statuses])
    for path, document in documents(verbs, product_version).items():
        app.router.add_get(path, _document_handler(msgspec.json.encode(document)))
    app.router.add_get("/healthz", _healthy)
    for version in VERSIONS:
        app.router.add_get(f"/apis/{GROUP}/{version}/healthz", _healthy)
        for verb in verbs:
            path = (
                f"/apis/{GROUP}/{version}/namespaces/{{namespace:{_NAME}}}/{verb.resource.plural}"
            )
            handler = _verb_handler(client, front_proxy, verb, version)
            route = f"{path}/{{name:{_NAME}}}/{verb.subresource}{verb.rest}"
            app.router.add_route(verb.method, route, handler)
    return app


@web.middleware
async def _statuses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is told by a Status."""
    try:
        return await handler(request)
    except StatusError as error:
        return _answer(error)
    except ApiError as error:
        if isinstance(error, ApiForbidden):
            _log.error(
                "API server does not let podvisor serve a subresource",
                path=request.path,
                method=request.method,
                error=str(error),
            )
        return _answer(passed_on(error))
    except web.HTTPException as error:
        reason = _REASONS.get(error.status, "BadRequest")
        return _answer(StatusError(error.status, reason, error.reason))
    except Exception:
        _log.exception("subresource failed", path=request.path, method=request.method)
        return _answer(StatusError(500, "InternalError", "internal error of podvisor"))


def _answer(error: StatusError) -> web.Response:
    body = msgspec.json.encode(error.body())
    response = web.Response(status=error.code, body=body, content_type="application/json")
    if error.code == 401:
        # The next connection may be verified by what is known by then.
        response.force_close()
    return response


def _document_handler(body: bytes) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return handle


async def _healthy(request: web.Request) -> web.StreamResponse:
    return web.Response(text="ok")


def _verb_handler(client: KubeClient, front_proxy: FrontProxy, verb: Verb, version: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        user = front_proxy.user(request)
        key = ObjectKey(request.match_info["namespace"], request.match_info["name"])
        await access.check(client, user, verb, version, key)
        return await verb.handle(Call(request, verb.resource, key))

    return handle
