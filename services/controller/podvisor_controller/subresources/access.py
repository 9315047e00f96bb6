"""Asks the API server whether somebody may call a verb. Nothing is remembered: a right that is taken away is gone."""

import msgspec
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import ObjectKey, Resource

from podvisor_controller.subresources.front_proxy import User
from podvisor_controller.subresources.statuses import StatusError
from podvisor_controller.subresources.verbs import GROUP, Verb

REVIEWS = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
# The client waits, and the API server has this at hand.
ANSWER_WITHIN_S = 5.0


class _Status(msgspec.Struct, frozen=True):
    allowed: bool = False
    denied: bool = False
    reason: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: _Status = _Status()


_decode = msgspec.json.Decoder(_Review).decode


async def check(client: KubeClient, user: User, verb: Verb, version: str, key: ObjectKey) -> None:
    """Return when `user` may. Raises StatusError (403) when not, and ApiError when nobody says."""
    manifest = {
        "apiVersion": REVIEWS.api_version,
        "kind": REVIEWS.kind,
        "spec": {
            "user": user.name,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "resourceAttributes": {
                "group": GROUP,
                "version": version,
                "resource": verb.resource.plural,
                "subresource": verb.subresource,
                "verb": verb.verb,
                "namespace": key.namespace,
                "name": key.name,
            },
        },
    }
    answer = await client.create(REVIEWS, None, manifest, timeout_s=ANSWER_WITHIN_S)
    status = _decode(answer).status
    if not status.allowed or status.denied:
        raise _forbidden(user, verb, key, status.reason)


def _forbidden(user: User, verb: Verb, key: ObjectKey, reason: str) -> StatusError:
    plural = verb.resource.plural
    message = (
        f'{plural}.{GROUP} "{key.name}" is forbidden: User "{user.name}" cannot {verb.verb} resource'
        f' "{verb.name}" in API group "{GROUP}" in the namespace "{key.namespace}"'
    )
    details = {"name": key.name, "group": GROUP, "kind": plural}
    return StatusError(403, "Forbidden", f"{message}: {reason}" if reason else message, details)
