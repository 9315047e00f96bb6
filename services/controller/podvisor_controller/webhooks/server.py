"""The HTTPS application behind the webhooks: reads a review, asks a judge, answers.

Invariants: every replica serves, leading or not; bodies are bounded and never logged; a fault of
ours refuses the request and says nothing of its inside. Judges are pure and must not call the API
server, for an admission that needs the API server to answer can lock a cluster up; reviewers may,
for they are asked about evictions only.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from podvisor_common.errors import Terminal

from podvisor_controller.webhooks.nesting import decode_bounded
from podvisor_controller.webhooks.review import (
    AdmissionRequest,
    BadReview,
    ConversionRequest,
    Refused,
    Verdict,
    admission_refusal,
    admission_reply,
    conversion_failure,
    conversion_reply,
    parse_admission,
    parse_conversion,
)

Judge = Callable[[AdmissionRequest], Verdict]
"""Decides one admission request. Pure. Raises Refused for an object that does not decode."""

Reviewer = Callable[[AdmissionRequest], Awaitable[Verdict]]
"""Decides one admission request and writes what follows from it. Answers within the webhook's time limit."""

Convert = Callable[[Mapping[str, Any], str], Mapping[str, Any]]
"""Brings one object to an API version. Pure. Raises Terminal for an object that cannot be there."""

# The API server holds objects up to 3 MiB, and an update's review carries two; lists are converted
# whole.
ADMISSION_LIMIT_BYTES = 8 * 1024 * 1024
CONVERSION_LIMIT_BYTES = 64 * 1024 * 1024
BODY_TIMEOUT_S = 5.0
_OBJECTS_PER_TURN = 20  # conversions between two looks at the event loop, about 5 ms

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What is served: judges and reviewers by path, and the conversion."""

    judges: Mapping[str, Judge]
    convert: Convert
    reviewers: Mapping[str, Reviewer] = field(default_factory=dict)


def webhook_app(webhooks: Webhooks, *, is_stopping: Callable[[], bool]) -> web.Application:
    """The application to serve on the webhook port. Answers given while `is_stopping` close the connection."""

    @web.middleware
    async def closing(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        if is_stopping():
            response.force_close()
        return response

    app = web.Application(client_max_size=CONVERSION_LIMIT_BYTES, middlewares=[closing])
    for path, judge in webhooks.judges.items():
        app.router.add_post(path, _admission_handler(_as_reviewer(judge)))
    for path, reviewer in webhooks.reviewers.items():
        app.router.add_post(path, _admission_handler(reviewer))
    app.router.add_post("/convert", _conversion_handler(webhooks.convert))
    return app


def _as_reviewer(judge: Judge) -> Reviewer:
    async def decide(request: AdmissionRequest) -> Verdict:
        return judge(request)

    return decide


def _admission_handler(decide: Reviewer) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            review = parse_admission(await _body(request, ADMISSION_LIMIT_BYTES))
        except BadReview as error:
            return web.Response(status=400, text=f"{error}\n")
        try:
            reply = admission_reply(review.uid, await decide(review))
        except Refused as error:
            reply = (
                admission_reply(review.uid, Verdict(causes=error.causes))
                if error.causes
                else admission_refusal(review.uid, str(error))
            )
        except Exception:
            _log.exception(
                "admission failed",
                path=request.path,
                namespace=review.namespace,
                name=review.name,
                operation=review.operation,
            )
            reply = admission_refusal(review.uid, "internal error of podvisor", code=500)
        return web.Response(body=reply, content_type="application/json")

    return handle


def _conversion_handler(convert: Convert) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            review = parse_conversion(await _body(request, CONVERSION_LIMIT_BYTES))
        except BadReview as error:
            return web.Response(status=400, text=f"{error}\n")
        try:
            reply = conversion_reply(review.uid, await _converted(review, convert))
        except Terminal as error:
            reply = conversion_failure(review.uid, str(error))
        except Exception:
            _log.exception("conversion failed", to=review.desired_api_version)
            reply = conversion_failure(review.uid, "internal error of podvisor")
        return web.Response(body=reply, content_type="application/json")

    return handle


async def _converted(review: ConversionRequest, convert: Convert) -> list[msgspec.Raw]:
    def to_desired(text: bytes) -> msgspec.Raw:
        result = convert(msgspec.json.decode(text), review.desired_api_version)
        return msgspec.Raw(msgspec.json.encode(result))

    converted: list[msgspec.Raw] = []
    for number, one in enumerate(review.objects, start=1):
        converted.append(decode_bounded(to_desired, bytes(one)))
        if number % _OBJECTS_PER_TURN == 0:
            await asyncio.sleep(0)
    return converted


async def _body(request: web.Request, limit_bytes: int) -> bytes:
    """The request's body; answers 413 when it is larger than `limit_bytes` and 408 when it does not
    come.
    """
    if (request.content_length or 0) > limit_bytes:
        raise web.HTTPRequestEntityTooLarge(limit_bytes, request.content_length or 0)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    if len(body) > limit_bytes:
        raise web.HTTPRequestEntityTooLarge(limit_bytes, len(body))
    return body
