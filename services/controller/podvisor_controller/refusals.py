"""Why the API server did not let something be done, in words for the object's owner. Pure."""

from podvisor_common.kube.errors import ApiForbidden, ApiInvalid

_NAMESPACE_TERMINATING = "NamespaceTerminating"


def explain(what: str, error: ApiForbidden | ApiInvalid, *, done: str = "created") -> str | None:
    """A sentence on why `what` cannot be done so; None when its namespace is going, and everything in it."""
    if any(cause.reason == _NAMESPACE_TERMINATING for cause in error.causes):
        return None
    return refusal(what, done, error)


def refusal(what: str, done: str, error: ApiForbidden | ApiInvalid) -> str:
    """A sentence on why `what` cannot be done so."""
    return f"The {what} cannot be {done}: {error.message}"
