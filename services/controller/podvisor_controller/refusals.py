"""Why the API server did not let something be created or deleted, in words for the object's owner. Pure."""

from podvisor_common.kube.errors import ApiForbidden, ApiInvalid

_NAMESPACE_TERMINATING = "NamespaceTerminating"


def explain(what: str, error: ApiForbidden | ApiInvalid) -> str | None:
    """A sentence on why `what` cannot be created; None when its namespace is going, and everything in it."""
    if any(cause.reason == _NAMESPACE_TERMINATING for cause in error.causes):
        return None
    return f"The {what} cannot be created: {error.message}"


def explain_deletion(what: str, error: ApiForbidden | ApiInvalid) -> str:
    """A sentence on why `what` cannot be deleted."""
    return f"The {what} cannot be deleted: {error.message}"
