"""Why the API server did not let something be created, in words for the object's owner. Pure."""

from podvisor_common.kube.errors import ApiForbidden, ApiInvalid

_NAMESPACE_TERMINATING = "NamespaceTerminating"


def explain(what: str, error: ApiForbidden | ApiInvalid) -> str | None:
    """A sentence on why `what` cannot be created; None when its namespace is going, and everything in it."""
    if any(cause.reason == _NAMESPACE_TERMINATING for cause in error.causes):
        return None
    return f"The {what} cannot be created: {error.message}"
