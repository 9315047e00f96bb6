"""Whose token it is that a handler shows, as the API server says.

Invariant: a token counts only if the API server vouches for it, for our audience, as the handler's account, bound to a node. A token is
never written anywhere: not to a log, not into an error.
"""

import msgspec
import structlog
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import Resource
from podvisor_common.rpc.errors import PermissionDenied, Unauthenticated, Unavailable
from podvisor_common.tls.identities import AUDIENCE

REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
ACCOUNT = "virt-handler"
NODE_EXTRA = "authentication.kubernetes.io/node-name"
ANSWER_WITHIN_S = 5.0
_SAID_LIMIT = 200

_log = structlog.stdlib.get_logger(__name__)


class ReviewedUser(msgspec.Struct, frozen=True):
    """Whom a token stands for."""

    username: str = ""
    extra: dict[str, list[str]] | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What the API server says of a token."""

    authenticated: bool = False
    user: ReviewedUser = ReviewedUser()
    audiences: list[str] | None = None
    error: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: Verdict = Verdict()


_decode = msgspec.json.Decoder(_Review).decode


def node_of(verdict: Verdict, namespace: str) -> str:
    """The node to which the token is bound of a handler that was installed in `namespace`. Pure.

    Raises Unauthenticated for a token for nobody or for somebody else's ears, PermissionDenied for one that is no handler's.
    """
    # An API server that knows nothing of audiences names none: it has not looked at them.
    if not verdict.authenticated or AUDIENCE not in (verdict.audiences or ()):
        raise Unauthenticated(
            f"the API server does not vouch for the token, for the audience {AUDIENCE}",
            reason="TokenRefused",
        )
    account = f"system:serviceaccount:{namespace}:{ACCOUNT}"
    if verdict.user.username != account:
        raise PermissionDenied(
            f"the token is of {verdict.user.username!r}, not of {account}", reason="NotAHandler"
        )
    nodes = (verdict.user.extra or {}).get(NODE_EXTRA) or []
    if len(nodes) != 1 or not nodes[0]:
        raise PermissionDenied("the token is not bound to a node", reason="NotBoundToANode")
    return nodes[0]


async def review(client: KubeClient, token: str, namespace: str) -> str:
    """As node_of(), of a token that the API server is asked about. Raises Unavailable when it cannot be."""
    manifest = {
        "apiVersion": REVIEWS.api_version,
        "kind": REVIEWS.kind,
        "spec": {"token": token, "audiences": [AUDIENCE]},
    }
    try:
        answer = await client.create(REVIEWS, None, manifest, timeout_s=ANSWER_WITHIN_S)
        verdict = _decode(answer).status
    except (ApiError, msgspec.DecodeError) as error:
        said = _without(token, str(error))
        _log.warning("the API server cannot be asked about a handler's token", error=said)
        # The cause may hold what was sent: it is not chained.
        raise Unavailable(
            "the API server cannot be asked about the token", reason="TokenNotReviewed"
        ) from None
    return node_of(verdict, namespace)


def _without(token: str, text: str) -> str:
    return text.replace(token, "…")[:_SAID_LIMIT]
