"""What the benchmark of volumes makes of what it measured, and the program that guests and pods transfer blocks with. No cluster."""

import asyncio
import shutil
from pathlib import Path

import pytest
from podvisor_common.api import v1

from tests.perf import block_io, plugging, volumes
from tests.perf.block_io import PATTERNS
from tests.perf.plugging import GuestDevices, Times
from tests.perf.volumes import Start
from tests.support.process import run


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
async def test_blocks_are_transferred_and_timed(tmp_path: Path) -> None:
    disk, tool = tmp_path / "disk.img", str(tmp_path / "tool")
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    script = block_io.script(await block_io.built(), str(disk), 2, tool=tool)
    times = block_io.parse((await run("sh", "-c", script)).stdout)
    assert {name: len(found) for name, found in times.items()} == dict.fromkeys(PATTERNS, 2)
    assert all(0 < took_s < 20 for found in times.values() for took_s in found)
    # Whole blocks without a hole in the first half, nothing in the other.
    content = disk.read_bytes()
    assert content[: 32 << 20].count(0) < (32 << 20) / 128
    assert not any(content[32 << 20 :])


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (["disk.img", "r", "4096", "1", "4096"], 1),
        (["disk.img", "r", "many", "1", "4096", "random"], 1),
        (["disk.img", "r", "2097152", "1", "4194304", "random"], 1),
        (["disk.img", "r", "4096", "1", "512", "random"], 1),
        (["missing", "r", "4096", "1", "4096", "random"], 2),
        (["disk.img", "r", "4096", "3", "12288", "sequential"], 3),  # there are two blocks
        (["disk.img", "r", "4096", "2", "8192", "sequential"], 0),
    ],
)
async def test_a_transfer_that_was_none_is_not_timed(
    tmp_path: Path, words: list[str], exit_code: int
) -> None:
    tool = tmp_path / "tool"
    tool.write_bytes(await block_io.built())
    tool.chmod(0o755)
    (tmp_path / "disk.img").write_bytes(bytes(8192))
    done = await run(str(tool), str(tmp_path / words[0]), *words[1:], check=False)
    assert done.exit_code == exit_code
    assert bool(done.stdout) == (exit_code == 0)


def test_io_of_a_guest_is_shown_by_that_of_a_pod() -> None:
    pod = {name: [0.1, 0.2, 0.4] for name in PATTERNS}
    guests = {"virtio": {name: [0.2, 0.6] for name in PATTERNS}}
    found = {figure.key: figure for figure in block_io.figures("file", guests, pod)}
    ratio = found["io_random_read_virtio_file"]
    assert ratio.samples == pytest.approx([1, 3])
    assert "TCG" in ratio.title or "KVM" in ratio.title
    read, write = found["io_random_read_pod_file"], found["io_sequential_write_pod_file"]
    assert (read.unit, read.median) == ("1/s", 2500)
    assert (write.unit, write.median) == ("MiB/s", 160)


def test_the_launchers_share_begins_when_it_can_be_told_of_the_disks() -> None:
    wired_last = v1.StartTimeline(launcher_ready=700, network_ready=800, disks_ready=850)
    assert volumes.disks_ms(wired_last) == 50
    ready_last = v1.StartTimeline(launcher_ready=820, network_ready=800, disks_ready=850)
    assert volumes.disks_ms(ready_last) == 30


def test_a_large_image_is_compared_with_the_small_one_of_the_same_turn() -> None:
    found = {kind: [Start(1.0, 20), Start(2.0, 30), Start(3.0, 40)] for kind in volumes.KINDS}
    found["large"] = [Start(1.1, 20), Start(2.0, 30), Start(6.0, 40)]
    figures = {figure.key: figure for figure in volumes.start_figures(found)}
    assert figures["large_by_small"].samples == pytest.approx([1.1, 1.0, 2.0])
    assert figures["large_by_small"].budget == volumes.NOISE
    assert figures["over_large_by_small"].median == 1
    assert (figures["running_all"].median, figures["disks_all"].median) == (2.0, 30)


def test_every_volume_of_a_kind_has_a_source_and_its_claim() -> None:
    for kind in volumes.KINDS.values():
        assert set(kind.volumes) <= volumes.SOURCES.keys()
        assert not kind.makes or kind.makes in volumes.CLAIMS
    machine = volumes._machine("m", volumes.ALL)["spec"]
    names = [disk["name"] for disk in machine["domain"]["devices"]["disks"]]
    assert (
        names == [volume["name"] for volume in machine["volumes"]] == ["root", "seed", *volumes.ALL]
    )


def test_space_of_overlays_is_read_from_a_listing() -> None:
    assert volumes.parse_listing("392 root.qcow2\n8 a b.qcow2\n") == {"root": 200704, "a b": 4096}
    assert volumes.parse_listing("") == {}


async def test_a_guest_tells_when_a_device_came() -> None:
    guest = GuestDevices()
    guest.note(1.0, frozenset({"vda"}))
    waiting = asyncio.create_task(guest.first(lambda found: "sda" in found, after_s=2.0))
    await asyncio.sleep(0)
    guest.note(3.0, frozenset({"vda"}))
    guest.note(4.0, frozenset({"vda", "sda"}))
    assert await waiting == 4.0
    assert guest.now == {"vda", "sda"}
    assert await guest.first(lambda found: "sda" not in found, after_s=2.0) == 3.0
    with pytest.raises(TimeoutError, match=r"the guest has .*sda"):
        await guest.first(lambda found: "sdb" in found, after_s=0, within_s=0.01)


def test_hot_plug_has_a_figure_for_each_step_on_each_bus() -> None:
    figures = plugging.figures({"virtio": [Times(1, 2, 3, 4), Times(2, 3, 4, 5)], "scsi": [Times(1, 1, 1, 1)]})  # fmt: skip
    assert len({figure.key for figure in figures}) == 8
    visible = next(figure for figure in figures if figure.key == "plug_visible_virtio")
    assert (visible.samples, visible.unit) == ([2, 3], "s")
