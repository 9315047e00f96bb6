"""The links by which people find launchers, while pods come and go."""

import os
from pathlib import Path

import pytest
from podvisor_handler.launchers.registry import LauncherRegistry
from podvisor_handler.rpc.links import LauncherLinks, link_target

from tests.unit.handler.builders import pod
from tests.unit.handler.fake_launcher import OTHER_POD_UID, POD_UID

OLD, NEW = pod(), pod(uid=OTHER_POD_UID, name="virt-launcher-myvm-fghij")
NAME = "default_myvm.sock"


@pytest.fixture
def registry(tmp_path: Path) -> LauncherRegistry:
    registry = LauncherRegistry("/pods")
    LauncherLinks(tmp_path, registry).start()
    return registry


def pod_uid_behind(path: Path) -> str:
    target = os.readlink(path)
    (uid,) = [uid for uid in (POD_UID, OTHER_POD_UID) if uid in target]
    return uid


def test_the_pod_that_came_last_is_linked(tmp_path: Path, registry: LauncherRegistry) -> None:
    registry.pod_changed(None, OLD)
    registry.pod_changed(None, NEW)
    assert pod_uid_behind(tmp_path / NAME) == OTHER_POD_UID
    registry.pod_changed(OLD, None)
    assert pod_uid_behind(tmp_path / NAME) == OTHER_POD_UID


def test_when_it_leaves_the_other_is_linked_again(
    tmp_path: Path, registry: LauncherRegistry
) -> None:
    registry.pod_changed(None, OLD)
    registry.pod_changed(None, NEW)
    registry.pod_changed(NEW, None)
    assert pod_uid_behind(tmp_path / NAME) == POD_UID
    registry.pod_changed(OLD, None)
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_handler_left_is_put_right(tmp_path: Path) -> None:
    registry = LauncherRegistry("/pods")
    registry.pod_changed(None, OLD)
    (tmp_path / NAME).symlink_to("/elsewhere")
    (tmp_path / "default_gone.sock").symlink_to("/nowhere")
    LauncherLinks(tmp_path, registry).start()
    (connection,) = registry.all()
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]
    assert os.readlink(tmp_path / NAME) == link_target(connection.pod)
