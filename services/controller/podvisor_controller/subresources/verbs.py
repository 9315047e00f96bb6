"""The table of verbs: what is served, and how one is described.

A verb is one entry of a tuple like volume_verbs.verbs(); routes, discovery and authorization follow from it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from podvisor_common.kube.resources import ObjectKey, Resource

GROUP = "subresources.kubevirt.io"
# The first one is preferred.
VERSIONS = ("v1", "v1alpha3")

# What the API server calls them when it asks whether somebody may.
_VERBS = {"GET": "get", "PUT": "update", "POST": "create", "DELETE": "delete", "PATCH": "patch"}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a verb by somebody who may."""

    request: web.Request
    resource: Resource
    key: ObjectKey


@dataclass(frozen=True, slots=True)
class Verb:
    """`method` on `subresource` of a machine or an instance. `handle` answers, or raises StatusError or ApiError."""

    method: str
    resource: Resource
    subresource: str
    handle: Callable[[Call], Awaitable[web.StreamResponse]]
    kind: str = ""  # of the body
    rest: str = ""  # of the path, a pattern with names of its own

    @property
    def verb(self) -> str:
        """Its name in roles."""
        return _VERBS[self.method]

    @property
    def name(self) -> str:
        """Its resource in roles and in discovery."""
        return f"{self.resource.plural}/{self.subresource}"
