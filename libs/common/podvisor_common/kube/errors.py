"""What the API server, or the way to it, answers instead of a result.

Every error is Retryable or Terminal for the *pass* that met it: NotFound, AlreadyExists and Conflict mean that the
caches were behind, and the next pass sees more. Forbidden is retried as well, for quotas and namespaces come and go.
Only what can never be accepted (ApiInvalid) is Terminal. Messages are the server's own words; bodies sent are never kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from podvisor_common.errors import Retryable, Terminal

_MESSAGE_LIMIT = 2048
# Nobody who means well asks for a longer pause.
RETRY_AFTER_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Cause:
    """One detail of a refusal: the field's path, a stable reason and a text."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """The API server did not do what it was asked. `status` is 0 when there was no answer at all."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        causes: Sequence[Cause] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, reason, message)
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = tuple(causes)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}"


class ApiNotFound(ApiError, Retryable):
    """404: the object, its namespace or the resource is not there (any more, or yet)."""


class ApiAlreadyExists(ApiError, Retryable):
    """409 on create: the name is taken; whether by us, the caller finds out by the owner's uid."""


class ApiConflict(ApiError, Retryable):
    """409: somebody wrote in between, or owns a field that was applied without force."""


class ApiForbidden(ApiError, Retryable):
    """401 or 403: credentials, RBAC, a quota, a terminating namespace or an admission policy."""


class ApiExpired(ApiError, Retryable):
    """410: the resource version or continue token is too old; list again."""


class ApiUnavailable(ApiError, Retryable):
    """429, 5xx, no connection, or no answer in time. A write may or may not have happened."""


class ApiInvalid(ApiError, Terminal):
    """Any other 4xx: this request is never going to be accepted."""


class _StatusCause(msgspec.Struct, frozen=True):
    field: str = ""
    reason: str = ""
    message: str = ""


class _StatusDetails(msgspec.Struct, frozen=True, rename="camel"):
    causes: list[_StatusCause] | None = None
    retry_after_seconds: int = 0


class Status(msgspec.Struct, frozen=True):
    """The parts of a metav1.Status that matter."""

    code: int = 0
    reason: str = ""
    message: str = ""
    details: _StatusDetails | None = None


_decode_status = msgspec.json.Decoder(Status).decode


def error_from_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The typed error of an HTTP answer with a status of 400 or more."""
    try:
        parsed = _decode_status(body)
    except msgspec.DecodeError:
        text = body[:_MESSAGE_LIMIT].decode(errors="replace").strip()
        parsed = Status(message=text)
    header = headers.get("Retry-After", "")
    retry_after_s = float(header) if header.isdecimal() else None
    return error_from_status(status, parsed, retry_after_s=retry_after_s)


def error_from_status(code: int, status: Status, *, retry_after_s: float | None = None) -> ApiError:
    """The typed error of a Status, which a watch also delivers as an event."""
    details = status.details or _StatusDetails()
    if retry_after_s is None and details.retry_after_seconds > 0:
        retry_after_s = float(details.retry_after_seconds)
    if retry_after_s is not None:
        retry_after_s = min(retry_after_s, RETRY_AFTER_LIMIT_S)
    causes = [Cause(cause.field, cause.reason, cause.message) for cause in details.causes or ()]
    reason = status.reason or f"HTTP{code}"
    return _type_of(code, reason)(
        code, reason, status.message[:_MESSAGE_LIMIT], causes=causes, retry_after_s=retry_after_s
    )


def _type_of(code: int, reason: str) -> type[ApiError]:
    if code == 409:
        return ApiAlreadyExists if reason == "AlreadyExists" else ApiConflict
    if code in (408, 429) or code >= 500 or code < 400:
        return ApiUnavailable
    by_code = {401: ApiForbidden, 403: ApiForbidden, 404: ApiNotFound, 410: ApiExpired}
    return by_code.get(code, ApiInvalid)
