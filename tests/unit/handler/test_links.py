"""The links by which people find launchers, while pods come and go."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.rpc import links
from podvisor_handler.rpc.links import LauncherLinks, link_target

from tests.unit.handler.builders import pod
from tests.unit.handler.fake_launcher import OTHER_POD_UID, POD_UID
from tests.unit.handler.world import directory_until

OLD, NEW = pod(), pod(uid=OTHER_POD_UID, name="virt-launcher-myvm-fghij")
NAME = "default_myvm.sock"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_RETRY_S", 0.05)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[LauncherRegistry]:
    registry = LauncherRegistry("/pods")
    async with linking(tmp_path, registry):
        yield registry


@asynccontextmanager
async def linking(directory: Path, registry: LauncherRegistry) -> AsyncIterator[None]:
    """Links that were made right at least once, and are kept so."""
    (directory / "default_marker.sock").symlink_to("/nowhere")
    task = asyncio.create_task(LauncherLinks(directory, registry).run(), name="links")
    await directory_until(directory, lambda: not is_there(directory / "default_marker.sock"))
    yield
    task.cancel()


def is_there(path: Path) -> bool:
    return os.path.lexists(path)


def names_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def pod_uid_behind(path: Path) -> str:
    target = os.readlink(path)
    (uid,) = [uid for uid in (POD_UID, OTHER_POD_UID) if uid in target]
    return uid


async def test_the_pod_that_came_last_is_linked(tmp_path: Path, registry: LauncherRegistry) -> None:
    registry.pod_changed(None, OLD)
    registry.pod_changed(None, NEW)
    assert pod_uid_behind(tmp_path / NAME) == OTHER_POD_UID
    registry.pod_changed(OLD, None)
    assert pod_uid_behind(tmp_path / NAME) == OTHER_POD_UID


async def test_when_it_leaves_the_other_is_linked_again(
    tmp_path: Path, registry: LauncherRegistry
) -> None:
    registry.pod_changed(None, OLD)
    registry.pod_changed(None, NEW)
    registry.pod_changed(NEW, None)
    assert pod_uid_behind(tmp_path / NAME) == POD_UID
    registry.pod_changed(OLD, None)
    assert names_in(tmp_path) == []


async def test_what_an_earlier_handler_left_is_put_right(tmp_path: Path) -> None:
    registry = LauncherRegistry("/pods")
    registry.pod_changed(None, OLD)
    (tmp_path / NAME).symlink_to("/elsewhere")
    (tmp_path / "default_gone.sock").symlink_to("/nowhere")
    async with linking(tmp_path, registry):
        (connection,) = registry.all()
        await directory_until(tmp_path, lambda: names_in(tmp_path) == [NAME])
        assert os.readlink(tmp_path / NAME) == link_target(connection.pod)


async def test_a_link_that_cannot_be_made_is_made_later(
    tmp_path: Path, registry: LauncherRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk keeps nobody from following the launcher."""
    seen = []
    registry.subscribe(lambda connection, gone: seen.append(gone))
    blocker = tmp_path / f".{NAME}"
    (blocker / "in the way").mkdir(parents=True)
    registry.pod_changed(None, OLD)
    assert seen == [False]
    assert not is_there(tmp_path / NAME)
    (blocker / "in the way").rmdir()
    blocker.rmdir()
    await directory_until(tmp_path, lambda: is_there(tmp_path / NAME))
