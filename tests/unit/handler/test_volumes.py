"""The volumes of a pod, given to the launcher's user for real: a process with a root and mounts of its own. Needs root."""

import os
import shlex
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from podvisor_common.errors import Retryable
from podvisor_handler.storage.plan import Device, Image
from podvisor_handler.storage.volumes import VolumeNotReady, VolumePreparation, VolumeRefused
from podvisor_handler.vmi.status import OWN_SYNCHRONIZED_REASONS

from tests.unit.handler.pod_tree import VOLUME, PodTree, tree_in

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes mounts")

IMAGE = Image("data", VOLUME, "disk.img", create=True)
FOUND = Image("data", VOLUME, "disk.img", create=False)
DEVICE = Device("data", "/dev/podvisor/data", read_only=False)


@pytest.fixture
def tree(tmp_path: Path) -> PodTree:
    return tree_in(tmp_path)


def owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


async def test_an_empty_claim_gets_an_empty_image(tree: PodTree) -> None:
    with tree.running() as process:
        for _ in range(2):
            await VolumePreparation().run(process, (IMAGE,))
            assert owner_and_mode(tree.image) == (107, 107, 0o660)
            assert tree.image.stat().st_size == 0


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o644), (0o400, 0o600), (0o4755, 0o755)])
async def test_an_image_is_given_as_it_is(tree: PodTree, before: int, after: int) -> None:
    tree.image.write_bytes(b"precious")
    tree.image.chmod(before)
    with tree.running() as process:
        await VolumePreparation().run(process, (FOUND,))
    assert owner_and_mode(tree.image) == (107, 107, after)
    assert tree.image.read_bytes() == b"precious"


async def test_an_image_that_is_not_to_be_made_is_not(tree: PodTree) -> None:
    with tree.running() as process:
        await VolumePreparation().run(process, (FOUND,))
    assert list(tree.claim.iterdir()) == []


async def test_what_is_right_stays(tree: PodTree) -> None:
    """Not even its other names matter: the launcher's user could write to it before."""
    tree.image.write_bytes(b"precious")
    os.chown(tree.image, 107, 0)
    tree.image.chmod(0o400)
    (tree.claim / "other").hardlink_to(tree.image)
    before = tree.image.stat()
    with tree.running() as process:
        await VolumePreparation().run(process, (IMAGE,))
    assert tree.image.stat().st_ctime_ns == before.st_ctime_ns


def link(image: Path) -> None:
    image.with_name("secret").write_text("root's")
    image.symlink_to("secret")


def hard_link(image: Path) -> None:
    image.with_name("secret").write_text("root's")
    image.hardlink_to(image.with_name("secret"))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (link, "disk.img is a symbolic link"),
        (lambda image: image.symlink_to("/nowhere"), "disk.img is a symbolic link"),
        (hard_link, "disk.img has more than one name"),
        (os.mkfifo, "disk.img is a named pipe"),
        (Path.mkdir, "disk.img is a directory"),
        (lambda image: os.mknod(image, 0o20600, os.makedev(1, 3)), "is a character device"),
        (lambda image: os.mknod(image, 0o60600, os.makedev(7, 99)), "is a block device"),
    ],
    ids=["link", "dangling link", "hard link", "fifo", "directory", "character", "block"],
)
async def test_what_is_no_image_is_refused(
    tree: PodTree, make: Callable[[Path], None], says: str
) -> None:
    make(tree.image)
    before = {path.name: owner_and_mode(path) for path in tree.claim.iterdir()}
    with tree.running() as process, pytest.raises(VolumeRefused, match=says) as refused:
        await VolumePreparation().run(process, (IMAGE,))
    assert str(refused.value).startswith('Volume "data": ')
    assert {path.name: owner_and_mode(path) for path in tree.claim.iterdir()} == before


async def test_a_directory_that_nobody_mounted_is_refused(tree: PodTree) -> None:
    tree.mounts = "true"
    with tree.running() as process, pytest.raises(VolumeRefused, match="nothing is mounted on"):
        await VolumePreparation().run(process, (IMAGE,))
    assert list((tree.root / VOLUME.lstrip("/")).iterdir()) == []


async def test_a_link_on_the_way_is_not_followed(tree: PodTree) -> None:
    outside = tree.root / "elsewhere"
    (tree.root / "run/podvisor/volumes").rename(outside)
    (tree.root / "run/podvisor/volumes").symlink_to("../../elsewhere")
    with tree.running() as process, pytest.raises(VolumeRefused):
        await VolumePreparation().run(process, (IMAGE,))
    assert list(tree.claim.iterdir()) == []


async def test_a_volume_that_is_not_in_the_pod(tree: PodTree) -> None:
    elsewhere = Image("other", "/run/podvisor/volumes/other", "disk.img", create=True)
    with tree.running() as process, pytest.raises(VolumeNotReady, match='"other": it is not'):
        await VolumePreparation().run(process, (elsewhere,))


@pytest.mark.parametrize("exists", [True, False])
async def test_what_the_nodes_root_may_not_do_is_the_launchers_to_try(
    tree: PodTree, exists: bool
) -> None:
    """A server may know the launcher's user and not the node's root; here the mount is read-only."""
    if exists:
        tree.image.write_bytes(b"precious")
    target = shlex.quote(f"{tree.root}{VOLUME}")
    tree.mounts = (
        f"mount --bind {shlex.quote(str(tree.claim))} {target}; mount -o remount,bind,ro {target}"
    )
    with tree.running() as process:
        await VolumePreparation().run(process, (IMAGE,))
    assert tree.image.exists() is exists
    assert not exists or tree.image.stat().st_uid == 0


async def test_a_full_file_system_is_told(tree: PodTree) -> None:
    target = shlex.quote(f"{tree.root}{VOLUME}")
    tree.mounts = f"mount -t tmpfs -o nr_inodes=1 tmpfs {target}"
    with tree.running() as process, pytest.raises(VolumeNotReady, match="No space left"):
        await VolumePreparation().run(process, (IMAGE,))


@pytest.mark.parametrize(("read_only", "mode"), [(False, 0o600), (True, 0o400)])
async def test_a_device_is_given(tree: PodTree, read_only: bool, mode: int) -> None:
    os.mknod(tree.device, 0o60660, os.makedev(7, 99))
    with tree.running() as process:
        for _ in range(2):
            access = Device("data", "/dev/podvisor/data", read_only)
            await VolumePreparation().run(process, (access,))
            assert owner_and_mode(tree.device) == (107, 107, mode)


@pytest.mark.parametrize(
    "make",
    [
        lambda node: os.mknod(node, 0o20600, os.makedev(1, 3)),
        lambda node: node.symlink_to("/dev/sda"),
        lambda node: node.write_text("no device"),
    ],
    ids=["character device", "link", "file"],
)
async def test_what_is_no_block_device_is_refused(
    tree: PodTree, make: Callable[[Path], None]
) -> None:
    make(tree.device)
    before = owner_and_mode(tree.device)
    with tree.running() as process, pytest.raises(VolumeRefused, match="not a block device"):
        await VolumePreparation().run(process, (DEVICE,))
    assert owner_and_mode(tree.device) == before


async def test_a_device_that_is_not_there(tree: PodTree) -> None:
    with tree.running() as process, pytest.raises(VolumeNotReady, match="not in the pod"):
        await VolumePreparation().run(process, (DEVICE,))


@pytest.mark.parametrize("error", [VolumeRefused, VolumeNotReady])
def test_a_status_has_a_word_for_every_failure(
    error: type[VolumeRefused] | type[VolumeNotReady],
) -> None:
    assert error.reason in OWN_SYNCHRONIZED_REASONS


async def test_every_failure_is_tried_again(tree: PodTree) -> None:
    """Whoever owns the claim puts it right, and nobody tells the handler."""
    preparation = VolumePreparation()
    tree.image.symlink_to("/etc/passwd")
    with tree.running() as process:
        with pytest.raises(Retryable):
            await preparation.run(process, (IMAGE,))
        tree.image.unlink()
        await preparation.run(process, (IMAGE,))
    assert owner_and_mode(tree.image) == (107, 107, 0o660)


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A file system that lets everybody wait who changes it."""
    device, mount = tmp_path / "device", tmp_path / "frozen"
    mount.mkdir()
    with device.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(device)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(device), str(mount)], check=False).returncode:
        pytest.skip("no loop devices here")
    subprocess.run(["fsfreeze", "-f", str(mount)], check=True)
    try:
        yield mount
    finally:
        thaw(mount)
        subprocess.run(["umount", str(mount)], check=True)


def thaw(mount: Path) -> None:
    subprocess.run(["fsfreeze", "-u", str(mount)], check=False, stderr=subprocess.DEVNULL)


async def test_no_volume_waits_for_another(tree: PodTree, frozen: Path) -> None:
    tree.claim = frozen
    os.mknod(tree.device, 0o60660, os.makedev(7, 99))
    with tree.running() as process:
        with pytest.raises(VolumeNotReady, match='"data": its file system does not answer'):
            await VolumePreparation(answers_within_s=0.5).run(
                process, (IMAGE, Device("other", "/dev/podvisor/data", read_only=False))
            )
        assert owner_and_mode(tree.device) == (107, 107, 0o600)


async def test_a_server_that_does_not_answer_is_waited_for_once(
    tree: PodTree, frozen: Path
) -> None:
    tree.claim = frozen
    other = Image("data", VOLUME, "other.img", create=True)
    preparation = VolumePreparation(answers_within_s=0.1)
    with tree.running() as process:
        for _ in range(3):
            with pytest.raises(VolumeNotReady, match='"data": its file system does not answer'):
                await preparation.run(process, (IMAGE,))
        names = [thread.name for thread in threading.enumerate()]
        assert sum(name.startswith("volumes-") for name in names) == 1
        thaw(frozen)
        preparation.answers_within_s = 5.0
        # What the late attempt was for is not all that is wanted by now.
        await preparation.run(process, (IMAGE, other))
        assert owner_and_mode(frozen / "disk.img") == (107, 107, 0o660)
        assert owner_and_mode(frozen / "other.img") == (107, 107, 0o660)
