"""Volumes and clients such as nobody who means well would leave or send: nothing leads out of a volume, and nobody holds much."""

import asyncio
import dataclasses
import errno
import gzip
import io
import logging
import os
import socket
import ssl
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import structlog
from podvisor_controller.exporter.look import look
from podvisor_controller.exporter.pieces import MOST_LEVELS, archive_pieces
from podvisor_controller.exporter.sending import Downloads
from podvisor_controller.exporter.serving import run

from tests.unit.controller.exporter_pods import MIB, TOKEN, Client, Pod, exporter, new_pod


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return new_pod(tmp_path)


@pytest.fixture
async def hostile(pod: Pod) -> AsyncIterator[Client]:
    """A volume that its guest has prepared: everything in it leads, or hangs, who follows it."""
    secret = pod.root / "secret"
    secret.mkdir()
    (secret / "key").write_text("of the pod")
    files = pod.directory("files")
    (files / "link").symlink_to(secret / "key")
    (files / "up").symlink_to("../..")
    (files / "away").symlink_to(secret)
    (files / "loop").symlink_to("loop")
    os.mkfifo(files / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(files / "socket"))
    os.mkdir(os.fsencode(files) + b'/\xff<b>&"')
    (files / "lost+found").mkdir()
    (files / "lost+found" / "x").touch()
    (files / ("n" * 200)).write_text("long")
    (files / "new\nline").write_text("lines")
    async with exporter(pod) as client:
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "link",
        "up/",
        "up/secret/key",
        "away/",
        "away/key",
        "loop",
        "pipe",
        "socket",
        "..",
        "../",
        "../0/link",
        "%2e%2e/",
        "%2e%2e%2fsecret%2fkey",
        "..%2f..%2fsecret/key",
        "a%00b",
        "//",
        "lost+found/..",
    ],
)
async def test_nothing_leads_out_of_a_volume(hostile: Client, path: str) -> None:
    status, body, _ = await hostile.get(f"/volumes/files/dir/{path}")
    assert status == 404
    assert b"of the pod" not in body


async def test_names_are_shown_as_text_and_linked_by_their_bytes(hostile: Client) -> None:
    _, body, _ = await hostile.get("/volumes/files/dir/")
    assert b"<b>" not in body
    assert b'<a href="./%FF%3Cb%3E%26%22/">' in body
    assert (await hostile.get("/volumes/files/dir/%FF%3Cb%3E%26%22/"))[0] == 200
    assert b'<a href="./new%0Aline">' in body
    assert (await hostile.get("/volumes/files/dir/new%0Aline"))[:2] == (200, b"lines")


async def test_an_archive_has_links_as_links_and_nothing_that_is_no_file(hostile: Client) -> None:
    _, body, _ = await hostile.get("/volumes/files/disk.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        members = {one.name: one for one in archive}
    assert {name for name, one in members.items() if one.issym()} == {
        "./link",
        "./up",
        "./away",
        "./loop",
    }
    assert "./" + "n" * 200 in members
    assert not {"./pipe", "./socket", "./lost+found"} & members.keys()
    assert b"of the pod" not in gzip.decompress(body)


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
async def test_a_disk_image_that_is_none_is_not_opened(pod: Pod, kind: str) -> None:
    image = pod.directory("disk") / "disk.img"
    if kind == "link":
        image.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(image)
    else:
        image.mkdir()
    assert look(pod.settings).disks == ()
    async with exporter(pod) as client:
        assert (await client.get("/volumes/disk/disk.img"))[0] == 404
        assert (await client.get("/volumes/disk/dir/"))[0] == 200


async def test_what_is_nested_too_deeply_is_left_out_of_an_archive(pod: Pod) -> None:
    path = pod.directory("files")
    for _ in range(MOST_LEVELS + 1):
        path = path / "d"
        path.mkdir()
    (pod.root / "volumes" / "0" / "z").touch()
    async with exporter(pod) as client:
        names = await archived(client)
        assert (await client.get("/volumes/files/dir/"))[0] == 200
    assert "./z" in names
    assert len(names) == MOST_LEVELS + 1


async def test_what_cannot_be_read_is_left_out_of_an_archive(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file of another user's takes nobody the others. Tests may run as root, who reads everything."""
    files = pod.directory("files")
    for name in ("a", "private", "z"):
        (files / name).write_text(name)
    (files / "closed").mkdir()
    (files / "closed" / "x").touch()
    private, closed = (os.stat(files / name).st_ino for name in ("private", "closed"))
    real = os.open

    def open_as_another(path: str | bytes, flags: int, *args: int, **kwargs: int) -> int:
        opened = real(path, flags, *args, **kwargs)
        if not flags & os.O_PATH and os.fstat(opened).st_ino in (private, closed):
            os.close(opened)
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened

    monkeypatch.setattr(os, "open", open_as_another)
    with structlog.testing.capture_logs() as logs:
        async with exporter(pod) as client:
            assert await archived(client) == {".", "./a", "./z"}
    [told] = [one for one in logs if one["event"] == "left out of an archive"]
    assert (told["unreadable"], told["too_deep"]) == (2, 0)
    assert "private" not in str(told)


async def archived(client: Client) -> set[str]:
    """The names in the archive of the volume, which is whole."""
    _, body, _ = await client.get("/volumes/files/disk.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(body))) as archive:
        return set(archive.getnames())


def test_an_archive_that_is_broken_off_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(os.urandom(MIB))
    root = os.open(tmp_path, os.O_RDONLY)
    before = os.listdir("/proc/self/fd")
    made = archive_pieces(root)
    # The first one is gzip's header.
    next(made), next(made)
    assert len(os.listdir("/proc/self/fd")) > len(before)
    made.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    os.close(root)


async def test_nothing_of_a_request_that_is_no_good_is_logged(
    pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    """What is too long may be, or have beside it, a token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    settings = dataclasses.replace(pod.settings, port=port)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run(settings, stop))
        status = await ask_too_much(port)
        stop.set()
    assert status == 400
    formatter = logging.Formatter()
    told = [formatter.format(one) for one in caplog.records if one.name == "aiohttp.server"]
    assert told
    assert "hunter2" not in "".join(told)
    assert any(getattr(one, "kind", "") == "LineTooLong" for one in caplog.records)


async def ask_too_much(port: int) -> int:
    """The status of the answer to a header that is too long."""
    trusting = ssl._create_unverified_context()
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
                break
            except ConnectionError:
                await asyncio.sleep(0.01)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nx: hunter2" + b"x" * 20_000 + b"\r\n\r\n")
        line = await reader.readline()
        writer.close()
    return int(line.split()[1])


async def test_a_client_that_does_not_read_holds_little_and_is_dropped(pod: Pod) -> None:
    image = pod.directory("disk") / "disk.img"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    downloads = Downloads(most=1, stall_s=0.2)
    async with exporter(pod, downloads) as client:
        headers = {"x-kubevirt-export-token": TOKEN}
        url = f"{client.base}/volumes/disk/disk.img"
        async with client.session.get(url, headers=headers) as answer:
            # Nobody reads: what has been sent fills the buffers, and no second download begins before this one is dropped.
            assert answer.status == 200
            status, _, told = await client.get("/volumes/disk/disk.img", method="HEAD")
            assert (status, told["Retry-After"]) == (503, "10")
            async with asyncio.timeout(10):
                while status == 503:
                    status, _, _ = await client.get("/volumes/disk/disk.img", method="HEAD")
            with pytest.raises(aiohttp.ClientError):
                await answer.read()


async def test_a_disk_that_becomes_shorter_does_not_look_complete(pod: Pod) -> None:
    image = pod.directory("disk") / "disk.img"
    with image.open("wb") as file:
        file.truncate(1 << 30)
    async with exporter(pod) as client:
        headers = {"x-kubevirt-export-token": TOKEN}
        async with client.session.get(
            f"{client.base}/volumes/disk/disk.img", headers=headers
        ) as answer:
            os.truncate(image, MIB)
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
