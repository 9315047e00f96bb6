"""Volumes that do not answer the exporter: who waits for one touches no other, and none for ever."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from podvisor_controller.exporter import access, app, pieces
from podvisor_controller.exporter.answers import Worker
from podvisor_controller.exporter.sending import Downloads
from podvisor_controller.exporter.tree import holds_disk, open_disk

from tests.unit.controller.exporter_pods import Client, Pod, exporter, fill, new_pod

SHORT_S = 0.05


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    pod = new_pod(tmp_path)
    fill(pod)
    return pod


@pytest.fixture
async def client(pod: Pod) -> AsyncIterator[Client]:
    async with exporter(pod, Downloads(stall_s=SHORT_S), open_s=SHORT_S) as one:
        yield one


class Server:
    """What a volume is on: while it is away nothing of that answers."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.begun: list[threading.Thread] = []

    def hangs(self, work: Callable[..., Any], *, of: str = "") -> Callable[..., Any]:
        """The same work, if it is `of` that volume, as slow as the server."""

        def waiting(*arguments: Any, **named: Any) -> Any:
            if of in str(arguments[0]):
                self.begun.append(threading.current_thread())
                self.answers.wait(20)
            return work(*arguments, **named)

        return waiting


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.answers.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def until_served(client: Client, path: str) -> None:
    async with asyncio.timeout(10):
        while True:
            status, _, _ = await client.get(path, method="HEAD")
            if status == 200:
                return
            await asyncio.sleep(0.01)


def open_files(pod: Pod) -> list[str]:
    """What of the pod's volumes is open."""
    found = []
    for one in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{one}"))
    return [path for path in found if path.startswith(f"{pod.root}/")]


async def test_a_volume_that_hangs_keeps_nobody_from_others(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "open_disk", server.hangs(open_disk, of="devices"))
    # More attempts than a pool has threads.
    for _ in range((os.cpu_count() or 1) + 8):
        status, body, headers = await client.get("/volumes/raw/disk.img")
        assert (status, body, headers["Retry-After"]) == (
            503,
            b'Volume "raw" does not answer.\n',
            "10",
        )
    assert len(server.begun) == 1
    assert server.begun[0].daemon  # the end of the process waits for no volume
    assert (await client.get("/volumes/disk/disk.img"))[0] == 200
    assert (await client.get("/volumes/files/dir/readme.txt"))[1] == b"hello"
    assert (await client.get("/exportready", token=None))[0] == 200
    server.answers.set()
    await until_served(client, "/volumes/raw/disk.img")


async def test_many_at_once_wait_in_few_threads(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "open_disk", server.hangs(open_disk, of="devices"))
    answers = await asyncio.gather(*(client.get("/volumes/raw/disk.img") for _ in range(20)))
    assert {status for status, _, _ in answers} == {503}
    assert len(server.begun) <= 4


async def test_what_is_opened_late_is_closed(
    pod: Pod, client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def noted(*arguments: Any, **named: Any) -> int:
        opened.append(open_disk(*arguments, **named))
        return opened[-1]

    monkeypatch.setattr(app, "open_disk", server.hangs(noted))
    assert (await client.get("/volumes/raw/disk.img"))[0] == 503
    server.answers.set()
    await until(lambda: bool(opened))
    await until(lambda: not open_files(pod))


async def test_a_download_of_what_hangs_is_broken_off_and_the_next_one_refused(
    pod: Pod, client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_pieces = pieces.file_pieces

    def hanging(descriptor: int, start: int, stop: int) -> pieces.Pieces:
        if stop > start:
            server.hangs(lambda _: None)("")
        yield from file_pieces(descriptor, start, stop)

    monkeypatch.setattr(pieces, "file_pieces", hanging)
    with pytest.raises(aiohttp.ClientError):
        await client.get("/volumes/raw/disk.img")
    assert (await client.get("/volumes/raw/disk.img"))[0] == 503
    assert len(server.begun) == 1
    assert server.begun[0].daemon
    assert open_files(pod)
    server.answers.set()
    await until_served(client, "/volumes/raw/disk.img")
    await until(lambda: not open_files(pod))


async def test_manifests_wait_for_no_volume_for_ever(
    pod: Pod, client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.write_manifests(exportName="copy", host="h", authority="PEM")
    monkeypatch.setattr(app, "holds_disk", server.hangs(holds_disk, of="volumes/2"))
    status, body, _ = await client.get("/internal/manifests/all")
    assert (status, body) == (503, b'Volume "files" does not answer.\n')
    assert (await client.get("/internal/manifests/secret"))[0] == 200


async def test_a_token_that_cannot_be_read_is_told_of(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "READ_S", SHORT_S)
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", server.hangs(read, of="/token/"))
    for path in ("/volumes/disk/disk.img", "/none"):
        status, body, _ = await client.get(path)
        assert (status, body) == (503, b"The directory of the token does not answer.\n")
    assert (await client.get("/exportready", token=None))[0] == 503
    assert len(server.begun) == 1
    server.answers.set()
    await until_served(client, "/volumes/disk/disk.img")
    assert (await client.get("/exportready", token=None))[0] == 200


async def test_an_exporter_of_which_no_volume_answers_is_not_ready(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = new_pod(tmp_path / "alone")
    pod.device("raw", b"x")
    monkeypatch.setattr(app, "open_disk", server.hangs(open_disk))
    async with exporter(pod, open_s=SHORT_S) as client:
        assert (await client.get("/exportready", token=None))[0] == 200
        assert (await client.get("/volumes/raw/disk.img"))[0] == 503
        status, body, _ = await client.get("/exportready", token=None)
        assert (status, body) == (503, b"Nothing that is served answers.\n")
        server.answers.set()
        await until_served(client, "/volumes/raw/disk.img")
        assert (await client.get("/exportready", token=None))[0] == 200


async def test_work_is_done_in_order_and_what_fails_ends_nothing() -> None:
    worker, done = Worker("test"), []

    def fails() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await worker.submit(fails)
    assert await worker.submit(lambda: 7) == 7
    worker.end(lambda: done.append("closed"))
    await until(lambda: done == ["closed"])
