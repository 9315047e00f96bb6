"""What the API server and its clients read of this API before they call it. Pure.

The API server asks for `/apis` in its aggregated form first, and makes that itself of the lists below where it gets
another one. An APIService is available as long as its version's list is answered.
"""

import platform
from collections.abc import Iterable, Mapping
from typing import Any

from podvisor_controller.subresources.verbs import GROUP, VERSIONS, Verb

Document = Mapping[str, Any]


def documents(verbs: Iterable[Verb], product_version: str) -> dict[str, Document]:
    """Every document by its path."""
    verbs = list(verbs)
    group = _group()
    about = {"title": GROUP, "version": product_version}
    version = _version(product_version)
    found: dict[str, Document] = {
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]},
        f"/apis/{GROUP}": {"kind": "APIGroup", "apiVersion": "v1", **group},
        "/openapi/v2": {"swagger": "2.0", "info": about, "paths": {}},
        "/openapi/v3": {
            "paths": {
                f"apis/{GROUP}/{one}": {"serverRelativeURL": f"/openapi/v3/apis/{GROUP}/{one}"}
                for one in VERSIONS
            }
        },
        "/version": version,
    }
    for one in VERSIONS:
        found[f"/apis/{GROUP}/{one}"] = _resources(one, verbs)
        found[f"/apis/{GROUP}/{one}/version"] = version
        found[f"/openapi/v3/apis/{GROUP}/{one}"] = {"openapi": "3.0.0", "info": about, "paths": {}}
    return found | {"/": {"paths": sorted([*found, "/healthz"])}}


def _group() -> Document:
    versions = [{"groupVersion": f"{GROUP}/{one}", "version": one} for one in VERSIONS]
    return {"name": GROUP, "versions": versions, "preferredVersion": versions[0]}


def _resources(version: str, verbs: list[Verb]) -> Document:
    """The list of a version: each subresource once, with all that can be done to it."""
    entries: dict[str, dict[str, Any]] = {}
    for verb in verbs:
        entry = entries.setdefault(
            verb.name,
            {
                "name": verb.name,
                "singularName": "",
                "namespaced": True,
                "kind": verb.kind or verb.resource.kind,
                "verbs": [],
            },
        )
        if verb.verb not in entry["verbs"]:
            entry["verbs"].append(verb.verb)
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{GROUP}/{version}",
        "resources": list(entries.values()),
    }


def _version(product_version: str) -> Document:
    """As KubeVirt's clients read it; its `goVersion` is what we are made with."""
    return {
        "gitVersion": f"v{product_version}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": f"python{platform.python_version()}",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{platform.machine()}",
    }
