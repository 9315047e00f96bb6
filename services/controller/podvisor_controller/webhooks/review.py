"""Admission and conversion reviews as the API server sends and expects them (admission.k8s.io/v1,
apiextensions.k8s.io/v1 ConversionReview).

Pure: bytes in, bytes out. What is admitted, defaulted or converted is decided by the functions that
server.py is given. Objects stay raw JSON here, so nothing unknown is lost on the way.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from podvisor_common.errors import Terminal

from podvisor_controller.webhooks.nesting import decode_bounded
from podvisor_controller.webhooks.validation_fields import Cause

CAUSES_LIMIT = 10
_REASONS = {400: "BadRequest", 429: "TooManyRequests", 500: "InternalError"}
_WARNING_LIMIT = 256  # characters; the API server cuts longer ones when there are many


class BadReview(Terminal):
    """The body is not a review of a version this server speaks."""

    reason = "BadRequest"


class Refused(Terminal):
    """The request cannot be judged, for example because the object does not decode. Answered as 400, or as 422 when
    there are causes.
    """

    reason = "BadRequest"

    def __init__(self, message: str, causes: Sequence[Cause] = ()) -> None:
        super().__init__(message)
        self.causes = causes


class GroupVersionKind(msgspec.Struct, frozen=True):
    """A kind in one version of its API group."""

    group: str = ""
    version: str = ""
    kind: str = ""


class UserInfo(msgspec.Struct, frozen=True):
    """Who sent the request."""

    username: str = ""
    groups: tuple[str, ...] = ()


class AdmissionRequest(msgspec.Struct, frozen=True, rename="camel"):
    """One request. `object` is in the webhook's version, `request_kind` says in which the client
    sent it.
    """

    uid: str
    operation: str
    kind: GroupVersionKind = GroupVersionKind()
    request_kind: GroupVersionKind | None = None
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    user_info: UserInfo = UserInfo()
    dry_run: bool = False
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def client_api_version(self) -> str:
        """The API version the client used, such as `kubevirt.io/v1alpha1`."""
        used = self.request_kind or self.kind
        return f"{used.group}/{used.version}"


class _AdmissionReview(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    request: AdmissionRequest


class ConversionRequest(msgspec.Struct, frozen=True):
    """Objects of one kind, all to be brought to `desired_api_version`."""

    uid: str
    desired_api_version: str = msgspec.field(name="desiredAPIVersion")
    objects: tuple[msgspec.Raw, ...] = ()


class _ConversionReview(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    request: ConversionRequest


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to answer: a refusal if there are causes or it is not time yet, else consent with a JSON
    patch and warnings.
    """

    causes: Sequence[Cause] = ()
    # Why the client shall try again later.
    not_yet: str = ""
    patch: Sequence[Mapping[str, Any]] = ()
    warnings: Sequence[str] = field(default=())


_decode_admission = msgspec.json.Decoder(_AdmissionReview).decode
_decode_conversion = msgspec.json.Decoder(_ConversionReview).decode


def parse_admission(body: bytes) -> AdmissionRequest:
    """The request in an AdmissionReview v1. BadReview for anything else; the body is never quoted."""
    try:
        review = decode_bounded(_decode_admission, body)
    except msgspec.DecodeError:
        raise BadReview("the body is not an AdmissionReview") from None
    if (review.api_version, review.kind) != ("admission.k8s.io/v1", "AdmissionReview"):
        raise BadReview("only AdmissionReview of admission.k8s.io/v1 is understood")
    return review.request


def parse_conversion(body: bytes) -> ConversionRequest:
    """The request in a ConversionReview v1. BadReview for anything else."""
    try:
        review = decode_bounded(_decode_conversion, body)
    except msgspec.DecodeError:
        raise BadReview("the body is not a ConversionReview") from None
    if (review.api_version, review.kind) != ("apiextensions.k8s.io/v1", "ConversionReview"):
        raise BadReview("only ConversionReview of apiextensions.k8s.io/v1 is understood")
    return review.request


def admission_reply(uid: str, verdict: Verdict) -> bytes:
    """The answer to the request `uid`."""
    if verdict.not_yet:
        return admission_refusal(uid, verdict.not_yet, code=429)
    response: dict[str, Any] = {"uid": uid, "allowed": not verdict.causes}
    if verdict.causes:
        response["status"] = _invalid(verdict.causes)
    elif verdict.patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(verdict.patch)).decode()
    if verdict.warnings:
        response["warnings"] = [warning[:_WARNING_LIMIT] for warning in verdict.warnings]
    return _admission_review(response)


def admission_refusal(uid: str, message: str, *, code: int = 400) -> bytes:
    """A refusal that has no field: 400 for a request that cannot be judged, 429 for one to be
    repeated later, 500 for a fault of ours.
    """
    status = {
        "status": "Failure",
        "code": code,
        "reason": _REASONS[code],
        "message": message,
    }
    return _admission_review({"uid": uid, "allowed": False, "status": status})


def conversion_reply(uid: str, objects: Iterable[msgspec.Raw]) -> bytes:
    """The converted objects, in the order they came."""
    return _conversion_review(
        {"uid": uid, "convertedObjects": list(objects), "result": {"status": "Success"}}
    )


def conversion_failure(uid: str, message: str) -> bytes:
    """No object is converted; the client of the API server reads `message`."""
    return _conversion_review({"uid": uid, "result": {"status": "Failed", "message": message}})


def _invalid(causes: Sequence[Cause]) -> dict[str, Any]:
    shown = causes[:CAUSES_LIMIT]
    message = ", ".join(cause.message for cause in shown)
    if len(causes) > CAUSES_LIMIT:
        message += f", and {len(causes) - CAUSES_LIMIT} more validation errors"
    details = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in shown
    ]
    return {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": message,
        "details": {"causes": details},
    }


def _admission_review(response: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    )


def _conversion_review(response: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "response": response,
        }
    )
