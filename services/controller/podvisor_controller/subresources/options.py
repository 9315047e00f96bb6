"""The bodies of calls: options, as clients send them. Pure but for reading them.

Invariant: what would be passed over is refused, for a person who mistypes `dryRun` does not want anything done.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from podvisor_controller.subresources.statuses import StatusError, bad_request
from podvisor_controller.webhooks.nesting import decode_bounded
from podvisor_controller.webhooks.validation_fields import unknown, unsupported

BODY_TIMEOUT_S = 5.0

Options = TypeVar("Options", bound=msgspec.Struct)

_decode = msgspec.json.Decoder(dict[str, Any]).decode


async def read_options(request: web.Request) -> Mapping[str, Any]:
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
        raise _malformed(error) from error


def check_fields(options: Mapping[str, Any], type_: type[msgspec.Struct]) -> None:
    """Raise StatusError (400) for a field that would be passed over."""
    sent = {key: value for key, value in options.items() if key not in ("apiVersion", "kind")}
    for cause in (*unsupported(sent, type_, type_.__name__), *unknown(sent, type_, type_.__name__)):
        raise bad_request(cause.message)


def converted(options: Mapping[str, Any], type_: type[Options]) -> Options:
    """The options as what they are. Raises StatusError (400)."""
    try:
        return msgspec.convert(options, type_)
    except msgspec.ValidationError as error:
        raise _malformed(error) from error


def is_dry_run(options: Mapping[str, Any], query: Sequence[str] = ()) -> bool:
    """Nothing is to be written, as the options say or the `query` of the call. Raises StatusError (400)."""
    asked = [options.get("dryRun") or [], [value for value in query if value]]
    if any(one not in ([], ["All"]) for one in asked):
        raise bad_request("dryRun must be empty or All")
    return any(asked)


async def read_checked(request: web.Request, type_: type[Options]) -> tuple[Options, bool]:
    """The options in the body, and whether nothing is to be written. Raises StatusError (400)."""
    sent = await read_options(request)
    check_fields(sent, type_)
    dry_run = is_dry_run(sent, request.query.getall("dryRun", []))
    return converted(sent, type_), dry_run


def _malformed(error: Exception) -> StatusError:
    return bad_request(f"Can not unmarshal Request body to struct, error: {error}")
