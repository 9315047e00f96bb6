"""What is answered instead of a result: Kubernetes' Status objects, with KubeVirt's texts. Pure."""

from collections.abc import Mapping
from typing import Any

from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import Resource

GROUP = "kubevirt.io"


class StatusError(Exception):
    """A request that is not carried out. The client gets `code`, a stable `reason` and the text."""

    def __init__(
        self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(code, reason, message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def body(self) -> dict[str, Any]:
        """The Status."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return status | {"details": self.details} if self.details else status


def bad_request(message: str) -> StatusError:
    """The request makes no sense, whatever it is about."""
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    """Nobody knows who asks."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def not_found(resource: Resource, name: str) -> StatusError:
    """There is no such machine or instance."""
    message = f'{resource.kind.lower()}.{GROUP} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(resource, name))


def conflict(resource: Resource, name: str, why: str) -> StatusError:
    """As the machine or instance is now, it cannot be done."""
    message = f'Operation cannot be fulfilled on {resource.kind.lower()}.{GROUP} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(resource, name))


def forbidden(resource: Resource, name: str, why: str) -> StatusError:
    """Nobody may, as the machine or instance is."""
    message = f'{resource.kind.lower()}.{GROUP} "{name}" is forbidden: {why}'
    return StatusError(403, "Forbidden", message, _details(resource, name))


def internal(why: str) -> StatusError:
    """It cannot be done now, in the form that KubeVirt's clients know."""
    return StatusError(500, "InternalError", f"Internal error occurred: {why}")


def unavailable(why: str) -> StatusError:
    """It cannot be done now, and may be in a moment."""
    return StatusError(503, "ServiceUnavailable", why)


def passed_on(error: ApiError) -> StatusError:
    """What the API server said to us. A fault between it and us is none of the client's."""
    if error.status == 0:
        return StatusError(503, "ServiceUnavailable", "the API server does not answer")
    if error.status == 401:
        return StatusError(500, "InternalError", "the API server does not know podvisor")
    if error.status == 403:
        # The client may, or would not have come so far.
        text = f"the API server does not let podvisor do this: {error.message}"
        return StatusError(500, "InternalError", text)
    causes = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field}
        for cause in error.causes
    ]
    details = {"causes": causes} if causes else None
    return StatusError(error.status, error.reason, error.message, details)


def _details(resource: Resource, name: str) -> dict[str, str]:
    return {"name": name, "group": GROUP, "kind": resource.kind.lower()}
