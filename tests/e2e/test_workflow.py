"""What a developer waits for: `make up` again, and an edited service in the running cluster."""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import ROOT, Cluster
from tests.support.process import run

UP_AGAIN_S = 90.0
RELOAD_S = 15.0

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]


@pytest.fixture
def edit() -> Iterator[Path]:
    """A new module of the handler, gone again afterwards."""
    module = ROOT / "services/handler/podvisor_handler/edited.py"
    module.write_text(f'"""Written by a test at {time.time_ns()}."""\n')
    yield module
    module.unlink(missing_ok=True)


async def handler_image() -> str:
    """The image that every node's handler has."""
    state = await Cluster("kubevirt").get("daemonset", "virt-handler")
    assert state is not None
    assert state["status"]["updatedNumberScheduled"] == state["status"]["numberReady"]
    return str(state["spec"]["template"]["spec"]["containers"][0]["image"])


async def pods() -> set[str]:
    """The product's pods, by uid, without that of the upgrade's hook."""
    ours = "app.kubernetes.io/component in (virt-controller,virt-handler)"
    return {pod["metadata"]["uid"] for pod in await Cluster("kubevirt").all("pods", labels=ours)}


async def test_up_again_changes_nothing() -> None:
    before = await pods()
    began_s = time.monotonic()
    done = await run("make", "-C", str(ROOT), "up", timeout_s=150)
    assert time.monotonic() - began_s < UP_AGAIN_S
    assert not re.search("building and pushing", done.stderr), done.stderr
    assert await pods() == before


async def test_an_edited_service_is_in_the_cluster_within_a_quarter_of_a_minute(edit: Path) -> None:
    before = await handler_image()
    began_s = time.monotonic()
    await run("make", "-C", str(ROOT), "reload", "SERVICE=handler", timeout_s=90)
    took_s = time.monotonic() - began_s
    assert await handler_image() != before
    await asyncio.to_thread(edit.unlink)
    await run("make", "-C", str(ROOT), "reload", "SERVICE=handler", timeout_s=90)
    assert await handler_image() == before
    assert took_s < RELOAD_S
