"""The exporter on a real port with TLS, with real files."""

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from podvisor_common.api.meta import now
from podvisor_controller.exporter.look import look
from podvisor_controller.exporter.pieces import GZIP_READ_BYTES
from podvisor_controller.exporter.serving import run
from podvisor_controller.exporter.settings import Settings, SettingsError, Volume

from tests.unit.controller.exporter_pods import MIB, TOKEN, Client, Pod, exporter, fill, new_pod


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return new_pod(tmp_path)


@pytest.fixture
async def client(pod: Pod) -> AsyncIterator[Client]:
    fill(pod)
    async with exporter(pod) as one:
        yield one


def image_of(pod: Pod) -> bytes:
    return (pod.root / "volumes" / "0" / "disk.img").read_bytes()


async def test_a_disk_is_served_as_it_is(pod: Pod, client: Client) -> None:
    status, body, headers = await client.get("/volumes/disk/disk.img")
    assert (status, body) == (200, image_of(pod))
    assert headers["Content-Length"] == str(5 * MIB + 123)
    status, body, _ = await client.get("/volumes/raw/disk.img")
    assert (status, body) == (200, (pod.root / "devices" / "1").read_bytes())


@pytest.mark.parametrize("volume", ["disk", "raw"])
async def test_a_disk_is_served_compressed(pod: Pod, client: Client, volume: str) -> None:
    status, body, headers = await client.get(f"/volumes/{volume}/disk.img.gz")
    assert (status, headers["Content-Type"]) == (200, "application/gzip")
    assert "Content-Encoding" not in headers
    _, raw, _ = await client.get(f"/volumes/{volume}/disk.img")
    assert gzip.decompress(body) == raw


async def test_what_is_empty_of_a_disk_hardly_takes_anything(pod: Pod) -> None:
    image = pod.directory("disk") / "disk.img"
    with image.open("wb") as file:
        file.truncate(200 * GZIP_READ_BYTES + 1)
    async with exporter(pod) as client:
        _, body, _ = await client.get("/volumes/disk/disk.img.gz")
    assert len(body) < 300_000
    digest = hashlib.sha256()
    with gzip.open(io.BytesIO(body)) as unpacked:
        while piece := unpacked.read(MIB):
            digest.update(piece)
    assert digest.digest() == hashlib.sha256(bytes(200 * GZIP_READ_BYTES + 1)).digest()


async def test_a_disk_of_nothing(pod: Pod) -> None:
    (pod.directory("disk") / "disk.img").touch()
    async with exporter(pod) as client:
        assert (await client.get("/volumes/disk/disk.img"))[:2] == (200, b"")
        _, body, _ = await client.get("/volumes/disk/disk.img.gz")
        assert gzip.decompress(body) == b""
        assert (await client.get("/volumes/disk/disk.img", Range="bytes=0-"))[0] == 416


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-", 1000, None),
        ("bytes=-500", -500, None),
        ("bytes=100-99999999999", 100, None),
    ],
)
async def test_a_download_can_go_on(
    pod: Pod, client: Client, asked: str, start: int, stop: int | None
) -> None:
    status, body, headers = await client.get("/volumes/disk/disk.img", Range=asked)
    whole = image_of(pod)
    assert (status, body) == (206, whole[start:stop])
    assert headers["Content-Range"].endswith(f"/{len(whole)}")


@pytest.mark.parametrize("asked", ["bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "x"])
async def test_a_range_that_is_none_is_ignored(client: Client, asked: str) -> None:
    status, body, _ = await client.get("/volumes/raw/disk.img", Range=asked)
    assert (status, len(body)) == (200, 3 * MIB)


async def test_a_range_behind_the_end_is_refused(client: Client) -> None:
    status, _, headers = await client.get("/volumes/raw/disk.img", Range=f"bytes={3 * MIB}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{3 * MIB}")


async def test_a_download_does_not_go_on_with_another_disk(client: Client) -> None:
    _, _, headers = await client.get("/volumes/raw/disk.img", method="HEAD")
    assert headers["Content-Length"] == str(3 * MIB)
    etag = headers["ETag"]
    status, _, _ = await client.get("/volumes/raw/disk.img", Range="bytes=9-", If_Range=etag)
    assert status == 206
    status, _, _ = await client.get("/volumes/raw/disk.img", Range="bytes=9-", If_Range='"old"')
    assert status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/volumes/disk/disk.img",
        "/volumes/files/dir/",
        "/internal/manifests/secret",
        "/volumes/none/disk.img",
        "/none",
    ],
)
@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], "\u00e4"])
async def test_nobody_gets_anything_without_the_token(
    client: Client, path: str, token: str | None
) -> None:
    status, body, _ = await client.get(path, token=token)
    assert status == 401
    assert TOKEN.encode() not in body


async def test_readiness_needs_no_token(client: Client) -> None:
    assert (await client.get("/exportready", token=None))[:2] == (200, b"OK")


async def test_a_token_may_be_in_the_address(client: Client) -> None:
    path = f"/volumes/raw/disk.img?x-kubevirt-export-token={TOKEN}"
    assert (await client.get(path, token=None))[0] == 200


async def test_a_token_that_is_replaced_counts_at_once(pod: Pod, client: Client) -> None:
    file = pod.root / "token" / "token"
    file.write_text("another\n")
    assert (await client.get("/volumes/raw/disk.img"))[0] == 401
    assert (await client.get("/volumes/raw/disk.img", token="another"))[0] == 200
    file.write_text("")
    assert (await client.get("/volumes/raw/disk.img", token=""))[0] == 401
    file.unlink()
    assert (await client.get("/volumes/raw/disk.img", token=""))[0] == 401


async def test_files_are_served_as_a_directory(pod: Pod, client: Client) -> None:
    status, body, headers = await client.get("/volumes/files/dir/")
    assert (status, headers["Content-Type"]) == (200, "text/html")
    assert b'<a href="./readme.txt">readme.txt</a>' in body
    assert b'<a href="./sub/">sub/</a>' in body
    assert (await client.get("/volumes/files/dir/readme.txt"))[:2] == (200, b"hello")
    status, body, _ = await client.get("/volumes/files/dir/sub/data.bin", Range="bytes=10-19")
    data = (pod.root / "volumes" / "2" / "sub" / "data.bin").read_bytes()
    assert (status, body) == (206, data[10:20])
    status, _, headers = await client.get("/volumes/files/dir/sub")
    assert (status, headers["Location"]) == (301, "./sub/")
    status, _, headers = await client.get("/volumes/files/dir")
    assert (status, headers["Location"]) == (301, "dir/")


async def test_files_are_served_as_an_archive(client: Client) -> None:
    status, body, _ = await client.get("/volumes/files/disk.tar.gz")
    assert status == 200
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert sorted(archive.getnames()) == [".", "./readme.txt", "./sub", "./sub/data.bin"]
        readme = archive.extractfile("./readme.txt")
        assert readme is not None
        assert readme.read() == b"hello"


@pytest.mark.parametrize(
    "path",
    [
        "/volumes/files/disk.img",
        "/volumes/files/disk.img.gz",
        "/volumes/disk/dir/",
        "/volumes/disk/disk.tar.gz",
        "/volumes/raw/disk.tar.gz",
        "/volumes/raw/dir/",
        "/volumes/files/dir/none",
        "/volumes/files/dir/readme.txt/x",
    ],
)
async def test_what_there_is_not(client: Client, path: str) -> None:
    assert (await client.get(path))[0] == 404


CLAIM_SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


async def test_manifests_make_the_machine_elsewhere(pod: Pod, client: Client) -> None:
    machine = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "vm"}}
    pod.write_manifests(
        exportName="copy",
        namespace="shop",
        host="virt-export-copy.shop.svc",
        authority="PEM",
        machine=machine,
        claims=[
            {"name": "root", "volume": "disk", "spec": CLAIM_SPEC},
            {"name": "files", "volume": "files", "spec": CLAIM_SPEC},
        ],
    )
    status, body, headers = await client.get("/internal/manifests/all")
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "application/json")
    listed = json.loads(body)
    assert (listed["kind"], listed["apiVersion"]) == ("List", "v1")
    authority, made, root, files = listed["items"]
    assert authority == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "export-ca-cm-copy"},
        "data": {"ca.pem": "PEM"},
    }
    assert made == machine
    assert root == {
        "apiVersion": "cdi.kubevirt.io/v1beta1",
        "kind": "DataVolume",
        "metadata": {"name": "root", "namespace": "shop"},
        "spec": {
            "source": {
                "http": {
                    "url": "https://virt-export-copy.shop.svc/volumes/disk/disk.img.gz",
                    "certConfigMap": "export-ca-cm-copy",
                    "secretExtraHeaders": ["header-secret-copy"],
                }
            },
            "pvc": CLAIM_SPEC,
        },
    }
    assert files["spec"]["contentType"] == "archive"
    assert files["spec"]["source"]["http"]["url"].endswith("/volumes/files/disk.tar.gz")
    assert TOKEN.encode() not in body


async def test_manifests_can_be_had_as_yaml(pod: Pod, client: Client) -> None:
    pod.write_manifests(exportName="copy", host="h", authority="PEM")
    status, body, headers = await client.get(
        "/internal/manifests/secret", Accept="application/yaml"
    )
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "application/yaml")
    [secret, *rest] = [one for one in yaml.safe_load_all(body) if one]
    assert rest == []
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "header-secret-copy"},
        "stringData": {"token": f"x-kubevirt-export-token:{TOKEN}"},
    }


def test_look_tells_disks_from_files(pod: Pod) -> None:
    pod.directory("files")
    (pod.directory("disk") / "disk.img").touch()
    pod.device("raw", b"x")
    assert look(pod.settings).disks == (1, 2)


def test_look_names_the_volume_that_is_not_there(pod: Pod) -> None:
    pod.directory("files")
    pod.volumes.append(Volume("raw", block=True))
    trouble = look(pod.settings).trouble
    assert trouble.startswith('PersistentVolumeClaim "raw" cannot be read: No such file')


async def test_it_ends_well_at_its_deadline(pod: Pod) -> None:
    settings = pod.settings
    object.__setattr__(settings, "deadline", now() + timedelta(seconds=0.2))
    async with asyncio.timeout(10):
        await run(settings, asyncio.Event())


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({}, "EXPORT_VOLUMES"),
        ({"EXPORT_VOLUMES": '[{"block": true}]'}, "EXPORT_VOLUMES"),
        ({"EXPORT_VOLUMES": "[]", "EXPORT_DEADLINE": "soon"}, "EXPORT_DEADLINE"),
    ],
)
def test_an_environment_that_makes_no_sense(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_environment(environment)
