"""Manifests by which what is exported can be made again in another cluster with KubeVirt's Containerized Data Importer. Pure.

Invariant: no manifest but that of the Secret has the token in it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import yaml
from podvisor_common.api.export.names import TOKEN_HEADER

from podvisor_controller.exporter.settings import Volume

YAML = "application/yaml"
JSON = "application/json"

Json = dict[str, Any]


class ExportedClaim(msgspec.Struct, frozen=True, rename="camel"):
    """A claim as a machine knows it, and the volume by which its content is served."""

    name: str
    volume: str
    spec: dict[str, Any]


class Ingredients(msgspec.Struct, frozen=True, rename="camel"):
    """What the controller says of an export: `machine` is None where none is exported."""

    export_name: str
    host: str
    authority: str
    namespace: str = ""
    machine: dict[str, Any] | None = None
    claims: tuple[ExportedClaim, ...] = ()


def volume_path(volume: str, file: str) -> str:
    """Where a volume is served in the form that has this file name."""
    return f"/volumes/{volume}/{file}"


def everything(
    ingredients: Ingredients, volumes: Sequence[Volume], with_disk: Mapping[str, bool]
) -> list[Json]:
    """The authority's certificates, the machine and its volumes. `with_disk` says of each volume whether it has a disk image."""
    served = {volume.name for volume in volumes}
    data_volumes = [
        _data_volume(ingredients, claim, is_disk=with_disk[claim.volume])
        for claim in ingredients.claims
        if claim.volume in served
    ]
    machine = [ingredients.machine] if ingredients.machine is not None else []
    return [_authority(ingredients), *machine, *data_volumes]


def header_secret(ingredients: Ingredients, token: str) -> list[Json]:
    """The Secret that an importer takes the token from."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _secret_name(ingredients)},
            "stringData": {"token": f"{TOKEN_HEADER}:{token}"},
        }
    ]


def written(resources: Sequence[Json], accept: str) -> tuple[str, str]:
    """The manifests as text, and its type: documents of YAML for who asks for that, else a list in JSON."""
    if accept == YAML:
        documents = [yaml.safe_dump(one, sort_keys=False) + "---\n" for one in resources]
        return "".join(documents), YAML
    whole = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": list(resources)}
    return json.dumps(whole, indent=4), JSON


def _authority(ingredients: Ingredients) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _authority_name(ingredients)},
        "data": {"ca.pem": ingredients.authority},
    }


def _data_volume(ingredients: Ingredients, claim: ExportedClaim, *, is_disk: bool) -> Json:
    file = "disk.img.gz" if is_disk else "disk.tar.gz"
    source = {
        "url": f"https://{ingredients.host}{volume_path(claim.volume, file)}",
        "certConfigMap": _authority_name(ingredients),
        "secretExtraHeaders": [_secret_name(ingredients)],
    }
    kind = {} if is_disk else {"contentType": "archive"}
    return {
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "DataVolume",
        "metadata": {"name": claim.name, "namespace": ingredients.namespace},
        "spec": {"source": {"http": source}, **kind, "pvc": claim.spec},
    }


def _authority_name(ingredients: Ingredients) -> str:
    return f"export-ca-cm-{ingredients.export_name}"


def _secret_name(ingredients: Ingredients) -> str:
    return f"header-secret-{ingredients.export_name}"
