"""Brings the custom resource definitions of a directory into the cluster: `python -m … crds
DIRECTORY`.

The chart runs it before every upgrade, because Helm installs definitions once and never again.
Applied server-side and by force: the files are the truth for everything but the conversion entry,
which is the controller's.
"""

import asyncio
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import yaml
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError
from podvisor_common.kube.resources import CRDS, ObjectKey
from podvisor_common.obs.logging import configure_logging

FIELD_MANAGER = "podvisor-crds"
# A definition of the size of ours is compiled when it is written.
APPLY_TIMEOUT_S = 30.0

_log = structlog.stdlib.get_logger(__name__)


def load_definitions(directory: Path) -> list[dict[str, Any]]:
    """The definitions in the `*.yaml` files of a directory. ValueError when there are none or other
    objects.
    """
    definitions = [
        document
        for path in sorted(directory.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]
    if not definitions:
        raise ValueError(f"no definitions in {directory}")
    for definition in definitions:
        if definition.get("kind") != CRDS.kind:
            raise ValueError(f"not a {CRDS.kind} in {directory}: {definition.get('kind')}")
    return [_without_conversion(definition) for definition in definitions]


async def apply_definitions(client: KubeClient, definitions: Iterable[Mapping[str, Any]]) -> None:
    """Apply them one after the other. Raises ApiError; repeating it is safe."""
    for definition in definitions:
        name = definition["metadata"]["name"]
        await client.apply(
            CRDS,
            ObjectKey("", name),
            definition,
            field_manager=FIELD_MANAGER,
            force=True,
            timeout_s=APPLY_TIMEOUT_S,
        )
        _log.info("definition applied", crd=name)


def main(arguments: Sequence[str]) -> int:
    """The program; returns the exit code."""
    configure_logging("crd-upgrade")
    (directory,) = arguments
    definitions = load_definitions(Path(directory))
    try:
        asyncio.run(_apply(definitions))
    except ApiError as error:
        _log.error("definitions not applied", error=str(error))
        return 1
    return 0


async def _apply(definitions: Sequence[Mapping[str, Any]]) -> None:
    async with await KubeClient.from_environment(user_agent="podvisor-crds") as client:
        await apply_definitions(client, definitions)


def _without_conversion(definition: Mapping[str, Any]) -> dict[str, Any]:
    spec = {key: value for key, value in definition["spec"].items() if key != "conversion"}
    return {**definition, "spec": spec}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
