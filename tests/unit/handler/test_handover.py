"""A volume from one pod to another, for real: processes, control groups, mounts and sockets. Needs root."""

import contextlib
import ctypes
import fcntl
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from podvisor.launcher.v1 import launcher_pb2
from podvisor_common.aio.threads import in_own_thread
from podvisor_handler.linux.process import PinnedProcess
from podvisor_handler.storage.handover import (
    HandoverRefused,
    Receiver,
    VolumeHandover,
    untrusted_open_volume,
)
from podvisor_handler.storage.plan import Device, HandOver, Image
from podvisor_handler.storage.volumes import VolumeNotReady, VolumeRefused, VolumeSilent

from tests.unit.handler.builders import HOLDER_UID
from tests.unit.handler.fake_launcher import (
    OTHER_POD_UID,
    POD_UID,
    control_group,
    needs_root,
    sockets_directory,
)
from tests.unit.handler.pod_tree import VOLUME, PodTree, freeze, mounted, thaw, tree_in
from tests.unit.handler.volume_taker import Taker

pytestmark = needs_root

GIB = 1 << 30
F_OFD_SETLK = 37  # of <fcntl.h>, a lock of the open file and not of the process
IMAGE = HandOver(Image("data", VOLUME, "disk.img", create=True), False, GIB, HOLDER_UID, 1)
READ = replace(IMAGE, access=Image("data", VOLUME, "disk.img", create=False), read_only=True)
DEVICE = replace(IMAGE, access=Device("data", "/dev/podvisor/data", read_only=False))


@dataclass
class Node:
    """A pod that holds a volume and a launcher in another; both pods' processes are this test's own."""

    pods: Path
    tree: PodTree

    async def hand_over(self, order: HandOver, *, answers_within_s: float = 5.0) -> None:
        with self.launcher() as receiver:
            await VolumeHandover(str(self.pods), order, receiver, answers_within_s).arrives()

    @contextlib.contextmanager
    def launcher(self) -> Iterator[Receiver]:
        process = PinnedProcess.open(os.getpid())
        try:
            yield Receiver(POD_UID, process)
        finally:
            process.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    pods, tree = tmp_path / "pods", tree_in(tmp_path)
    tree.sockets = sockets_directory(pods, HOLDER_UID)
    with control_group(POD_UID, HOLDER_UID):
        yield Node(pods, tree)


def flags_of(file: int) -> int:
    return fcntl.fcntl(file, fcntl.F_GETFL)


@pytest.mark.parametrize(
    ("order", "mode"), [(IMAGE, os.O_RDWR), (READ, os.O_RDONLY)], ids=["written to", "only read"]
)
async def test_an_image(node: Node, order: HandOver, mode: int) -> None:
    node.tree.image.write_bytes(b"precious")
    taker = Taker()
    with node.tree.running(), taker.serving(node.pods):
        await node.hand_over(order)
        ((said, file),) = taker.taken
        assert said == launcher_pb2.VolumeHandover(disk="data", capacity_bytes=GIB)
        assert flags_of(file) & os.O_ACCMODE == mode
        assert os.path.samestat(os.fstat(file), node.tree.image.stat())
    assert node.tree.image.read_bytes() == b"precious"
    assert node.tree.image.stat().st_uid == (0 if order.read_only else 107)


async def test_an_empty_claim_gets_an_empty_image(node: Node) -> None:
    taker = Taker()
    with node.tree.running(), taker.serving(node.pods):
        await node.hand_over(IMAGE)
        assert os.fstat(taker.taken[0][1]).st_size == 0
    assert node.tree.image.stat().st_uid == 107


@pytest.mark.parametrize("mode", [0o600, 0o640])
async def test_what_the_launchers_user_may_not_read_it_is_not_given(node: Node, mode: int) -> None:
    node.tree.image.write_bytes(b"root's")
    node.tree.image.chmod(mode)
    taker = Taker()
    with node.tree.running(), taker.serving(node.pods):
        with pytest.raises(VolumeNotReady, match="Permission denied"):
            await node.hand_over(READ)
        assert taker.taken == []


def forget_capabilities() -> None:
    """This thread is root by name only, but for being somebody else."""
    header = struct.pack("=Ii", 0x20080522, 0)
    kept = 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID
    data = struct.pack("=6I", kept, kept, 0, 0, 0, 0)
    assert ctypes.CDLL(None).capset(header, data) == 0


@pytest.mark.parametrize("exists", [True, False])
async def test_root_may_be_nobody_to_the_volumes_server(node: Node, exists: bool) -> None:
    node.tree.claim.chmod(0o700)
    if exists:
        node.tree.image.write_bytes(b"precious")
        node.tree.image.chmod(0o600)
        os.chown(node.tree.image, 107, 107)
    os.chown(node.tree.claim, 107, 107)

    def work(root: int) -> int:
        forget_capabilities()
        file = untrusted_open_volume(root, IMAGE.access, read_only=False)
        try:
            return os.fstat(file).st_uid
        finally:
            os.close(file)

    with node.tree.running() as process, process.opened("root", os.O_PATH) as root:
        assert await in_own_thread(lambda: work(root), name="nobody") == 107


@pytest.mark.parametrize(
    ("file_system", "expected"), [("ext4", os.O_DIRECT), ("ramfs", 0)], ids=["can", "cannot"]
)
async def test_past_the_page_cache_where_the_file_system_can(
    node: Node, tmp_path: Path, file_system: str, expected: int
) -> None:
    taker = Taker()
    with (
        mounted(tmp_path, file_system) as node.tree.claim,
        node.tree.running(),
        taker.serving(node.pods),
    ):
        await node.hand_over(IMAGE)
        assert flags_of(taker.taken[0][1]) & os.O_DIRECT == expected


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[int]:
    """The number of a block device."""
    backing = tmp_path / "backing"
    backing.touch()
    os.truncate(backing, 1 << 20)
    command = ["losetup", "-f", "--show", str(backing)]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("no loop devices here")
    name = found.stdout.strip()
    try:
        yield os.stat(name).st_rdev
    finally:
        subprocess.run(["losetup", "-d", name], check=True)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_device(node: Node, loop_device: int, read_only: bool) -> None:
    os.mknod(node.tree.device, 0o60660, loop_device)
    taker = Taker()
    with node.tree.running(), taker.serving(node.pods):
        await node.hand_over(replace(DEVICE, read_only=read_only))
        _, file = taker.taken[0]
        assert os.fstat(file).st_rdev == loop_device
        assert flags_of(file) & os.O_ACCMODE == (os.O_RDONLY if read_only else os.O_RDWR)


def link(image: Path) -> None:
    image.symlink_to("/etc/passwd")


@pytest.mark.parametrize("order", [IMAGE, READ], ids=["written to", "only read"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (link, "is a symbolic link"),
        (os.mkfifo, "is a named pipe"),
        (Path.mkdir, "is a directory"),
        (lambda image: os.mknod(image, 0o60600, os.makedev(7, 99)), "is a block device"),
    ],
    ids=["link", "fifo", "directory", "device"],
)
async def test_what_is_no_image_reaches_nobody(
    node: Node, order: HandOver, make: Callable[[Path], None], says: str
) -> None:
    make(node.tree.image)
    taker = Taker()
    with node.tree.running(), taker.serving(node.pods):
        with pytest.raises(VolumeRefused, match=says):
            await node.hand_over(order)
        assert taker.taken == []


@pytest.mark.parametrize(
    "make",
    [
        lambda node: os.mknod(node, 0o20600, os.makedev(1, 5)),
        lambda node: node.symlink_to("/dev/sda"),
        lambda node: node.write_text("no device"),
    ],
    ids=["character device", "link", "file"],
)
async def test_what_is_no_device_reaches_nobody(node: Node, make: Callable[[Path], None]) -> None:
    make(node.tree.device)
    with node.tree.running(), Taker().serving(node.pods), pytest.raises(VolumeRefused):
        await node.hand_over(DEVICE)


@pytest.mark.parametrize("order", [IMAGE, READ], ids=["written to", "only read"])
async def test_a_directory_that_nobody_mounted_is_no_volume(node: Node, order: HandOver) -> None:
    node.tree.mounts = "true"
    (node.tree.root / VOLUME.lstrip("/") / "disk.img").write_text("the image's own")
    with (
        node.tree.running(),
        Taker().serving(node.pods),
        pytest.raises(VolumeRefused, match="nothing is mounted on"),
    ):
        await node.hand_over(order)


async def test_a_holder_outside_of_its_pod_is_nobody(node: Node) -> None:
    node.tree.sockets = sockets_directory(node.pods, OTHER_POD_UID)
    order = replace(IMAGE, holder=OTHER_POD_UID)
    with (
        node.tree.running(),
        Taker().serving(node.pods),
        pytest.raises(VolumeRefused, match="not in a container of pod"),
    ):
        await node.hand_over(order)
    assert not node.tree.image.exists()


async def test_without_a_holder(node: Node) -> None:
    with Taker().serving(node.pods), pytest.raises(VolumeNotReady, match="pod that holds it"):
        await node.hand_over(IMAGE)


@pytest.fixture
def neighbour() -> Iterator[PinnedProcess]:
    """Another process of the launcher's pod."""
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pinned = PinnedProcess.open(sleeper.pid)
    try:
        yield pinned
    finally:
        pinned.close()
        sleeper.communicate(b"\n")


async def test_only_the_launchers_process_gets_it(node: Node, neighbour: PinnedProcess) -> None:
    taker = Taker()
    with node.tree.running(), taker.serving(node.pods):
        with pytest.raises(HandoverRefused):
            await VolumeHandover(str(node.pods), IMAGE, Receiver(POD_UID, neighbour)).arrives()
        assert taker.taken == []


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (launcher_pb2.VolumeReceipt(message="too small"), HandoverRefused, "take it: too small"),
        (launcher_pb2.VolumeReceipt(), HandoverRefused, "no reason given"),
        (b"\xff\xff", HandoverRefused, "does not take it"),
        (b"", HandoverRefused, "does not take it"),
    ],
    ids=["refused", "refused without a word", "nonsense", "nothing"],
)
async def test_what_a_launcher_does_not_take(
    node: Node,
    answer: launcher_pb2.VolumeReceipt | bytes,
    error: type[Exception],
    says: str,
) -> None:
    raw = answer if isinstance(answer, bytes) else answer.SerializeToString()
    with node.tree.running(), Taker(raw).serving(node.pods), pytest.raises(error, match=says):
        await node.hand_over(IMAGE)


async def test_a_launcher_that_does_not_answer_is_left(node: Node) -> None:
    before = open_files()
    with (
        node.tree.running(),
        Taker(None).serving(node.pods),
        pytest.raises(VolumeNotReady, match="does not take it yet"),
    ):
        await node.hand_over(IMAGE)
    assert open_files() == before


async def test_a_launcher_without_such_a_socket(node: Node) -> None:
    before = open_files()
    with node.tree.running(), pytest.raises(VolumeNotReady, match="does not take it yet"):
        await node.hand_over(IMAGE)
    assert open_files() == before


async def test_a_link_in_the_place_of_the_socket(node: Node) -> None:
    taker = Taker()
    with node.tree.running(), taker.serving(node.pods):
        sockets = sockets_directory(node.pods, POD_UID)
        (sockets / "volumes.sock").rename(sockets / "elsewhere.sock")
        (sockets / "volumes.sock").symlink_to("elsewhere.sock")
        with pytest.raises(HandoverRefused):
            await node.hand_over(IMAGE)
        assert taker.taken == []


async def test_a_server_that_answers_late_has_answered(node: Node, tmp_path: Path) -> None:
    taker = Taker()
    with (
        mounted(tmp_path, "ext4") as node.tree.claim,
        node.tree.running(),
        taker.serving(node.pods),
        node.launcher() as receiver,
    ):
        freeze(node.tree.claim)
        handover = VolumeHandover(str(node.pods), IMAGE, receiver, answers_within_s=0.1)
        for _ in range(3):
            with pytest.raises(VolumeSilent, match='"data": its file system does not answer'):
                await handover.arrives()
        names = [thread.name for thread in threading.enumerate()]
        assert sum(name.startswith("hand-over-") for name in names) == 1
        thaw(node.tree.claim)
        handover.answers_within_s = 5.0
        await handover.arrives()
        assert [said.disk for said, _ in taker.taken] == ["data"]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_two_nodes_of_a_device_do_not_know_of_each_others_locks(
    tmp_path: Path, loop_device: int
) -> None:
    """Every container has a node of its own. So it is the claim, never QEMU's lock, that keeps two guests apart."""
    files = []
    for name in ("one", "two"):
        os.mknod(tmp_path / name, 0o60600, loop_device)
        files.append(os.open(tmp_path / name, os.O_RDWR))
    try:
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        for file in files:
            fcntl.fcntl(file, F_OFD_SETLK, whole)
        again = os.open(tmp_path / "one", os.O_RDWR)
        files.append(again)
        with pytest.raises(BlockingIOError):
            fcntl.fcntl(again, F_OFD_SETLK, whole)
    finally:
        for file in files:
            os.close(file)
