"""Every manifest in examples/ is taken as it is written, and becomes what it promises. A new file is covered by being there."""

import asyncio
from pathlib import Path

import pytest
import yaml

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.machine import Machine

EXAMPLES = ROOT / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
_STARTS = ("Always", "Once", "RerunOnFailure")


def _objects(path: Path) -> list[Json]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _starts(obj: Json) -> bool:
    """The object is a machine that runs as soon as it is there."""
    if obj["kind"] == "VirtualMachineInstance":
        return True
    is_first = obj["apiVersion"].endswith("/v1alpha1")
    return obj["kind"] == "VirtualMachine" and (
        is_first or obj["spec"].get("runStrategy") in _STARTS
    )


async def _generations(cluster: Cluster, objects: list[Json]) -> list[int]:
    """How often each object's specification has changed. Every one of them is there."""
    generations = []
    for obj in objects:
        state = await cluster.get(obj["kind"], obj["metadata"]["name"])
        assert state is not None, obj["metadata"]
        generations.append(state["metadata"].get("generation", 0))
    return generations


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_example_is_taken_without_a_change(path: Path) -> None:
    """The API server and admission accept it under strict validation."""
    done = await Cluster("default").kubectl("apply", "--dry-run=server", "-f", str(path))
    assert len(done.stdout.splitlines()) == len(_objects(path))


async def test_examples_do_what_they_promise(cluster: Cluster) -> None:
    """All of them at once: each object is there, each machine that starts runs, to apply them again changes none, and all go away
    when they are deleted."""
    await asyncio.gather(*map(cluster.apply, FILES))
    objects = [obj for path in FILES for obj in _objects(path)]
    names = [obj["metadata"]["name"] for obj in objects if _starts(obj)]
    assert len(names) == len(set(names)), names
    await asyncio.gather(*(Machine(cluster, name).running(within_s=60) for name in names))
    before = await _generations(cluster, objects)
    await asyncio.gather(*map(cluster.apply, FILES))
    assert await _generations(cluster, objects) == before
    await cluster.kubectl("delete", "-f", str(EXAMPLES), "--cascade=foreground", "--timeout=40s")
    for kind in ("vm", "vmi", "pods"):
        assert await cluster.all(kind) == [], kind
