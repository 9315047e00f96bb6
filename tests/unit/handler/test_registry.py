"""Finding, authenticating and following launchers, over real sockets in a real pods directory."""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core
from podvisor_common.errors import Retryable
from podvisor_handler.launchers import connection as connection_module
from podvisor_handler.launchers.connection import LauncherConnection
from podvisor_handler.launchers.registry import LauncherRegistry, launcher_pod
from podvisor_handler.launchers.state import Connection
from podvisor_handler.linux.process import cgroup_is_within, cgroup_names_pod

from tests.unit.handler.builders import pod
from tests.unit.handler.fake_launcher import (
    OTHER_POD_UID,
    POD_UID,
    VMI_UID,
    FakeLauncher,
    control_group,
    needs_root,
    serving,
    sockets_directory,
    until,
)

pytestmark = needs_root


@contextlib.asynccontextmanager
async def registry_of(pods: Path, *known: core.Pod) -> AsyncIterator[LauncherRegistry]:
    """A running registry that has seen the pods."""
    registry = LauncherRegistry(str(pods))
    task = asyncio.create_task(registry.run(), name="registry")
    for each in known:
        registry.pod_changed(None, each)
    try:
        yield registry
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def connection(registry: LauncherRegistry, uid: str = POD_UID) -> LauncherConnection:
    found = registry.of_pod(uid)
    assert found is not None
    return found


def state(registry: LauncherRegistry, uid: str = POD_UID) -> Connection:
    return connection(registry, uid).state


async def connected(registry: LauncherRegistry, uid: str = POD_UID) -> LauncherConnection:
    await until(registry, lambda: state(registry, uid) is Connection.CONNECTED)
    return connection(registry, uid)


async def refused(registry: LauncherRegistry) -> None:
    await until(registry, lambda: connection(registry).refusal is not None)
    assert state(registry) is Connection.WAITING


async def test_a_socket_that_appears_is_dialled(tmp_path: Path) -> None:
    """Every directory of the path comes into being only after the handler began to wait."""
    with control_group(POD_UID):
        async with registry_of(tmp_path, pod()) as registry:
            await asyncio.sleep(0)
            assert state(registry) is Connection.WAITING
            async with serving(FakeLauncher(), tmp_path):
                found = await connected(registry)
                assert found.report is not None
                assert found.report.state == domain_pb2.DOMAIN_STATE_NONE


async def test_a_socket_that_is_there_already_is_dialled(tmp_path: Path) -> None:
    with control_group(POD_UID):
        async with serving(FakeLauncher(), tmp_path), registry_of(tmp_path, pod()) as registry:
            await connected(registry)


async def test_reports_are_followed(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    with control_group(POD_UID):
        async with serving(launcher, tmp_path), registry_of(tmp_path, pod()) as registry:
            found = await connected(registry)
            await launcher.report(state=domain_pb2.DOMAIN_STATE_RUNNING, uid=VMI_UID)
            await until(
                registry,
                lambda: (
                    found.report is not None
                    and found.report.state == domain_pb2.DOMAIN_STATE_RUNNING
                ),
            )


async def test_a_restarted_launcher_is_dialled_again(tmp_path: Path) -> None:
    """A new process has a new inode and a new epoch; in between the guest's last state stays known."""
    with control_group(POD_UID):
        async with registry_of(tmp_path, pod()) as registry:
            async with serving(FakeLauncher(epoch=1), tmp_path):
                found = await connected(registry)
            await until(registry, lambda: found.state is Connection.UNRESPONSIVE)
            assert found.report is not None
            assert found.report.epoch == 1
            assert found.silent_since_s is not None
            async with serving(FakeLauncher(epoch=2), tmp_path):
                await connected(registry)
                assert not found.is_over
                assert found.report.epoch == 2
                assert found.silent_since_s is None


async def test_a_launcher_whose_container_has_no_process_left_is_over(tmp_path: Path) -> None:
    """As after kill -9 of the container's first process: nobody waits for a launcher there any more."""
    async with AsyncExitStack() as stack:
        with control_group(POD_UID):
            registry = await stack.enter_async_context(registry_of(tmp_path, pod()))
            async with serving(FakeLauncher(), tmp_path):
                found = await connected(registry)
            await until(registry, lambda: found.state is Connection.UNRESPONSIVE)
            assert not found.is_over
        await until(registry, lambda: found.is_over)
        assert found.state is Connection.UNRESPONSIVE


async def test_a_look_for_processes_that_fails_ends_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor to be had nothing is known of the guest, and the launcher is dialled again."""
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(_: str) -> bool:
        loop.call_soon_threadsafe(looked.set)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(connection_module, "has_process_within", fail)
    with control_group(POD_UID):
        async with registry_of(tmp_path, pod()) as registry:
            async with serving(FakeLauncher(epoch=1), tmp_path):
                found = await connected(registry)
            async with asyncio.timeout(5):
                await looked.wait()
            async with serving(FakeLauncher(epoch=2), tmp_path):
                await until(registry, lambda: found.state is Connection.CONNECTED)
                assert not found.is_over


async def test_nobody_looks_for_processes_after_an_end_that_was_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look reads all of /proc, and launchers end all the time."""
    looks: list[str] = []
    monkeypatch.setattr(connection_module, "has_process_within", looks.append)
    ended = FakeLauncher()
    ended.current.state = domain_pb2.DOMAIN_STATE_ENDED
    with control_group(POD_UID):
        async with registry_of(tmp_path, pod()) as registry:
            async with serving(ended, tmp_path):
                found = await connected(registry)
            await until(registry, lambda: found.state is Connection.UNRESPONSIVE)
            async with serving(FakeLauncher(epoch=2), tmp_path):
                await connected(registry)
    assert looks == []


async def test_a_launcher_that_failed_is_tried_again(tmp_path: Path) -> None:
    """Nothing in its directory tells that it has recovered."""
    with control_group(POD_UID):
        async with (
            serving(FakeLauncher(failures=1), tmp_path),
            registry_of(tmp_path, pod()) as registry,
        ):
            await connected(registry)


async def test_a_replaced_socket_ends_the_session_with_the_old_one(tmp_path: Path) -> None:
    old, new = FakeLauncher(epoch=1), FakeLauncher(epoch=2)
    with control_group(POD_UID):
        async with registry_of(tmp_path, pod()) as registry, serving(old, tmp_path):
            found = await connected(registry)
            async with serving(new, tmp_path):
                await until(registry, lambda: found.report is not None and found.report.epoch == 2)


async def test_a_symlink_to_the_socket_of_another_pod_is_refused(tmp_path: Path) -> None:
    with control_group(POD_UID, OTHER_POD_UID):
        async with serving(FakeLauncher(), tmp_path, OTHER_POD_UID):
            target = sockets_directory(tmp_path, OTHER_POD_UID) / "launcher.sock"
            link = sockets_directory(tmp_path) / "launcher.sock"
            link.symlink_to(target)
            both = (pod(), pod(uid=OTHER_POD_UID))
            async with registry_of(tmp_path, *both) as registry:
                await refused(registry)
                await connected(registry, OTHER_POD_UID)
                link.unlink()
                async with serving(FakeLauncher(), tmp_path):
                    await connected(registry)


async def test_a_symlink_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    with control_group(POD_UID, OTHER_POD_UID):
        async with serving(FakeLauncher(), tmp_path, OTHER_POD_UID):
            directory = sockets_directory(tmp_path)
            directory.rmdir()
            directory.symlink_to(sockets_directory(tmp_path, OTHER_POD_UID))
            both = (pod(), pod(uid=OTHER_POD_UID))
            async with registry_of(tmp_path, *both) as registry:
                await refused(registry)
                await connected(registry, OTHER_POD_UID)


async def test_what_is_not_a_socket_is_refused(tmp_path: Path) -> None:
    with control_group(POD_UID, OTHER_POD_UID):
        (sockets_directory(tmp_path) / "launcher.sock").write_text("")
        async with (
            serving(FakeLauncher(), tmp_path, OTHER_POD_UID),
            registry_of(tmp_path, pod(), pod(uid=OTHER_POD_UID)) as registry,
        ):
            await refused(registry)
            await connected(registry, OTHER_POD_UID)


async def test_a_listener_outside_of_the_pod_is_refused(tmp_path: Path) -> None:
    with control_group(OTHER_POD_UID):
        async with (
            serving(FakeLauncher(), tmp_path, POD_UID),
            serving(FakeLauncher(), tmp_path, OTHER_POD_UID),
            registry_of(tmp_path, pod(), pod(uid=OTHER_POD_UID)) as registry,
        ):
            await refused(registry)
            await connected(registry, OTHER_POD_UID)


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        (FakeLauncher(contract_version=0), "LauncherIncompatible"),
        (FakeLauncher(uid="99999999-2222-4333-8444-555555555555"), "ReportRefused"),
        (FakeLauncher(message="x" * 100_000), "ReportRefused"),
    ],
    ids=["speaks no known contract", "reports another machine", "reports too much"],
)
async def test_a_launcher_that_cannot_be_believed(
    tmp_path: Path, stranger: FakeLauncher, reason: str
) -> None:
    with control_group(POD_UID):
        async with registry_of(tmp_path, pod()) as registry:
            found = connection(registry)
            async with serving(stranger, tmp_path):
                await until(registry, lambda: found.refusal is not None)
                assert found.report is None
                assert getattr(found.refusal, "reason", "") == reason
            async with serving(FakeLauncher(), tmp_path):
                await connected(registry)
                assert found.refusal is None


@pytest.mark.parametrize(
    ("launchers", "agreed", "has_dhcpv6", "has_hardware"),
    [(1, 1, False, False), (2, 2, True, False), (3, 3, True, True), (7, 3, True, True)],
)
async def test_the_older_contract_is_spoken(
    tmp_path: Path, launchers: int, agreed: int, has_dhcpv6: bool, has_hardware: bool
) -> None:
    with control_group(POD_UID):
        async with (
            serving(FakeLauncher(contract_version=launchers), tmp_path),
            registry_of(tmp_path, pod()) as registry,
        ):
            await connected(registry)
            build = connection(registry).build
            assert (build.contract_version, build.has_dhcpv6) == (agreed, has_dhcpv6)
            assert build.has_hardware == has_hardware


async def test_endless_reports_are_taken_at_a_bounded_pace(tmp_path: Path) -> None:
    with control_group(POD_UID):
        async with (
            serving(FakeLauncher(floods=True), tmp_path),
            registry_of(tmp_path, pod()) as registry,
        ):
            await connected(registry)
            taken: list[float] = []
            registry.subscribe(lambda _, gone: taken.append(time.monotonic()))
            await until(registry, lambda: len(taken) >= 25)
            assert taken[24] - taken[0] > 0.3


async def test_a_pod_that_leaves_is_forgotten(tmp_path: Path) -> None:
    with control_group(POD_UID):
        async with serving(FakeLauncher(), tmp_path), registry_of(tmp_path, pod()) as registry:
            await connected(registry)
            seen: list[bool] = []
            registry.subscribe(lambda _, gone: seen.append(gone))
            registry.pod_changed(pod(), None)
            assert registry.of_pod(POD_UID) is None
            assert seen == [True]


async def test_a_call_in_flight_when_the_pod_leaves_is_no_cancellation(tmp_path: Path) -> None:
    launcher = FakeLauncher(hangs=True)
    with control_group(POD_UID):
        async with serving(launcher, tmp_path), registry_of(tmp_path, pod()) as registry:
            found = await connected(registry)
            call = asyncio.create_task(found.shutdown(5), name="call")
            await launcher.until(lambda: launcher.shutdowns == [5])
            registry.pod_changed(pod(), None)
            with pytest.raises(Retryable):
                await call


async def test_a_directory_that_goes_is_told_of(tmp_path: Path) -> None:
    (tmp_path / POD_UID).mkdir()
    changed = asyncio.Event()
    async with registry_of(tmp_path) as registry:
        registry.subscribe_directory(changed.set)
        await asyncio.sleep(0)
        (tmp_path / POD_UID).rmdir()
        async with asyncio.timeout(5):
            await changed.wait()


async def test_no_descriptor_stays_behind(tmp_path: Path) -> None:
    def ours() -> list[str]:
        targets = []
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                targets.append(os.readlink(f"/proc/self/fd/{number}"))
        return sorted(t for t in targets if "launcher.sock" in t or "pidfd" in t or "inotify" in t)

    before = ours()
    with control_group(POD_UID):
        async with registry_of(tmp_path, pod()) as registry:
            for epoch in range(1, 4):
                async with serving(FakeLauncher(epoch=epoch), tmp_path):
                    await connected(registry)
                    assert len(ours()) == len(before) + 3
                await until(registry, lambda: state(registry) is Connection.UNRESPONSIVE)
    assert ours() == before


async def test_a_terminal_pod_keeps_its_last_report(tmp_path: Path) -> None:
    with control_group(POD_UID):
        async with serving(FakeLauncher(), tmp_path), registry_of(tmp_path, pod()) as registry:
            found = await connected(registry)
            registry.pod_changed(pod(), pod(phase="Succeeded", exit_code=0))
            await until(registry, lambda: found.state is Connection.UNRESPONSIVE)
            assert found.report is not None


@pytest.mark.parametrize(
    ("text", "names_it"),
    [
        (f"0::/kubepods/burstable/pod{POD_UID}/abc", True),
        (f"4:memory:/kubepods/burstable/pod{POD_UID}/abc\n0::/", True),
        (
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod"
            f"{POD_UID.replace('-', '_')}.slice/cri-containerd-abc.scope",
            True,
        ),
        (f"0::/../../pod{POD_UID}/abc", True),
        (f"0::/kubepods/pod{OTHER_POD_UID}/abc", False),
        (f"0::/kubepods/pod{OTHER_POD_UID}/xpod{POD_UID}", False),
        (f"0::/{POD_UID}", False),
        ("", False),
    ],
)
def test_control_groups(text: str, names_it: bool) -> None:
    assert cgroup_names_pod(text, POD_UID) is names_it


@pytest.mark.parametrize(
    ("text", "within"),
    [
        ("0::/kubepods/pod1/abc", True),
        ("4:memory:/kubepods/pod1/abc\n0::/", True),
        ("0::/kubepods/pod1/abc/below", True),
        ("0::/kubepods/pod1/abcd", False),
        ("0::/kubepods/pod1", False),
        ("", False),
    ],
)
def test_a_containers_control_group(text: str, within: bool) -> None:
    assert cgroup_is_within(text, "/kubepods/pod1/abc") is within


@pytest.mark.parametrize(
    "name", ["", "../../etc/x", "a/../x", "a\0b", "ü" * 200, "Upper", "a" * 254, "-a", "a\n"]
)
def test_a_pod_that_claims_what_no_machine_is_called_is_no_launcher(name: str) -> None:
    """Whoever may create a pod writes its annotations, and names become files on the node."""
    assert launcher_pod(pod(domain=name)) is None


def test_a_pod_of_a_machine_is_a_launcher() -> None:
    found = launcher_pod(pod(domain="my.vm-1"))
    assert found is not None
    assert (found.vmi_name, found.vmi_uid) == ("my.vm-1", VMI_UID)
