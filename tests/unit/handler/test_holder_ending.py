"""The real program that holds a volume, and how the handler ends it. Needs root."""

import asyncio
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from podvisor_common.api import core
from podvisor_common.kube.resources import ObjectKey
from podvisor_handler.holders import reconciler as reconciler_module
from podvisor_handler.holders.ending import GuestMayRun, end_holder
from podvisor_handler.holders.plan import EndHolder
from podvisor_handler.holders.reconciler import HolderReconciler, Sources
from podvisor_handler.launchers.endpoint import LauncherUnreachable
from podvisor_handler.linux.process import ForeignProcess
from podvisor_handler.linux.untrusted import UntrustedPathMissing

from tests.unit.handler.builders import HOLDER_UID, holder
from tests.unit.handler.fake_launcher import (
    OTHER_POD_UID,
    POD_UID,
    control_group,
    needs_root,
    sockets_directory,
)
from tests.unit.launcher.native import compiled, eventually

pytestmark = needs_root

KEY = ObjectKey("default", "hp-volume-0123456789")
OTHER_KEY = ObjectKey("default", "hp-volume-other")
LEAVING = holder(deleted=True, owner=OTHER_POD_UID)


@dataclass
class Node:
    """Its pods: this process and all that it starts are of the launcher pod POD_UID and of the one that holds a volume."""

    pods: Path
    program: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def hold(self, pod_uid: str = HOLDER_UID) -> subprocess.Popen[bytes]:
        """Start volume-holder and wait until it listens."""
        sockets = sockets_directory(self.pods, pod_uid)
        process = subprocess.Popen([self.program], cwd=sockets)
        self.started.append(process)
        eventually((sockets / "holder.sock").is_socket)
        return process

    def end(self, holder: str = HOLDER_UID, *once_ended: str) -> None:
        end_holder(str(self.pods), EndHolder(holder, once_ended))

    def reconciler(self, *pods: tuple[ObjectKey, core.Pod]) -> HolderReconciler:
        """Of a handler that knows those pods that hold volumes, and no launcher."""
        sources = Sources(
            pod=dict(pods).get,
            launcher=lambda uid: None,
            has_lost_container=lambda uid: False,
            vmis_naming=lambda uid: [],
            machine=lambda vmi: None,
        )
        return HolderReconciler(str(self.pods), sources, patience_s=0.2)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    # By a relative path: a socket address is short.
    it = Node(tmp_path / "pods", compiled("volume-holder", tmp_path, SOCKETS_DIR=Path(".")))
    with control_group(POD_UID, HOLDER_UID):
        try:
            yield it
        finally:
            for process in it.started:
                process.kill()
                process.wait()


@pytest.mark.parametrize("state", [signal.SIGTERM, signal.SIGSTOP], ids=["told", "stopped"])
def test_a_holder_that_obeys_no_order_ends(node: Node, state: signal.Signals) -> None:
    process = node.hold()
    process.send_signal(state)
    node.end()
    assert process.wait(5) == -signal.SIGKILL


def test_a_holder_outlives_every_process_of_the_launchers_pod(node: Node) -> None:
    process = node.hold()
    with pytest.raises(GuestMayRun):
        node.end(HOLDER_UID, OTHER_POD_UID, POD_UID)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    node.end(HOLDER_UID, OTHER_POD_UID)
    assert process.wait(5) == -signal.SIGKILL


def test_nobody_holds_the_volume(node: Node) -> None:
    with pytest.raises(UntrustedPathMissing):
        node.end()
    process = node.hold()
    process.kill()
    process.wait()
    with pytest.raises(LauncherUnreachable):
        node.end()


def test_a_process_of_another_pod_is_let_live(node: Node) -> None:
    process = node.hold(OTHER_POD_UID)
    with pytest.raises(ForeignProcess):
        node.end(OTHER_POD_UID)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)


async def test_a_holder_that_listens_late_is_ended_when_it_does(node: Node) -> None:
    it = node.reconciler((KEY, LEAVING))
    first = await it.reconcile(KEY)
    process = node.hold()
    second = await it.reconcile(KEY)
    assert process.wait(5) == -signal.SIGKILL
    assert first is not None
    assert second is not None
    assert 0 < first.after_s < second.after_s < 2


async def test_a_holder_that_comes_back_is_ended_again(node: Node) -> None:
    """The kubelet starts it anew when it did not know yet that the pod is to end."""
    it = node.reconciler((KEY, LEAVING))
    for _ in range(2):
        process = node.hold()
        assert await it.reconcile(KEY) is not None
        assert process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize(
    "pod",
    [
        holder(owner=OTHER_POD_UID),
        holder(deleted=True, owner=""),
        holder(deleted=True, owner=POD_UID),
    ],
    ids=["its pod stays", "nobody knows whose it is", "its launcher's pod has a process"],
)
async def test_a_holder_is_let_live(node: Node, pod: core.Pod) -> None:
    process = node.hold()
    await node.reconciler((KEY, pod)).reconcile(KEY)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)


async def test_nothing_is_asked_of_a_pod_that_is_gone(node: Node) -> None:
    assert await node.reconciler().reconcile(KEY) is None


async def test_an_ending_that_hangs_holds_up_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    begun: list[str] = []

    def end(pods_directory: str, order: EndHolder) -> None:
        begun.append(order.holder)
        if order.holder != HOLDER_UID:
            may_go_on.wait(10)
        end_holder(pods_directory, order)

    monkeypatch.setattr(reconciler_module, "end_holder", end)
    hangs = holder(deleted=True, uid="hangs", name=OTHER_KEY.name, owner=OTHER_POD_UID)
    it = node.reconciler((OTHER_KEY, hangs), (KEY, LEAVING))
    process = node.hold()
    async with asyncio.timeout(5):
        assert await it.reconcile(OTHER_KEY) is not None
        assert await it.reconcile(OTHER_KEY) is not None
        await it.reconcile(KEY)
    assert process.wait(5) == -signal.SIGKILL
    assert begun == ["hangs", HOLDER_UID]  # what hangs is begun once
    may_go_on.set()
    await it.reconcile(OTHER_KEY)
    await it.reconcile(OTHER_KEY)
    assert begun[2:] == ["hangs"]
