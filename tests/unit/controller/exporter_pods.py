"""An exporter on a real port with TLS, in a directory that is laid out as its pod is."""

import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
from podvisor_common.api.meta import now
from podvisor_common.http.server import serve_http
from podvisor_common.tls.authority import CertificateAuthority
from podvisor_controller.exporter.app import OPEN_S, exporter_app
from podvisor_controller.exporter.sending import Downloads
from podvisor_controller.exporter.settings import Settings, Volume
from yarl import URL

TOKEN = "a-token-of-twenty-ch"
MIB = 1 << 20


@dataclass
class Pod:
    """The file system of an exporter's pod, and the settings for it."""

    root: Path
    volumes: list[Volume]
    authority: CertificateAuthority

    @property
    def settings(self) -> Settings:
        return Settings(
            tuple(self.volumes),
            now() + timedelta(hours=1),
            port=0,
            directories=str(self.root / "volumes"),
            devices=str(self.root / "devices"),
            token_directory=str(self.root / "token"),
            identity_directory=str(self.root / "identity"),
        )

    def directory(self, name: str) -> Path:
        """A new volume with a file system."""
        path = self.root / "volumes" / str(len(self.volumes))
        path.mkdir(parents=True)
        self.volumes.append(Volume(name))
        return path

    def device(self, name: str, content: bytes) -> None:
        """A new volume without one."""
        path = self.root / "devices" / str(len(self.volumes))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        self.volumes.append(Volume(name, block=True))

    def write_manifests(self, **ingredients: Any) -> None:
        (self.root / "identity" / "manifests.json").write_text(json.dumps(ingredients))


def new_pod(tmp_path: Path) -> Pod:
    """A pod without volumes, with the token TOKEN and a certificate for this machine."""
    authority = CertificateAuthority.create("test", now=now(), valid_for=timedelta(hours=1))
    pair = authority.issue("exporter", ["127.0.0.1"], now=now(), valid_for=timedelta(hours=1))
    for name in ("token", "identity"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "token" / "token").write_text(TOKEN)
    (tmp_path / "identity" / "tls.crt").write_bytes(pair.certificate)
    (tmp_path / "identity" / "tls.key").write_bytes(pair.key)
    return Pod(tmp_path, [], authority)


class Client:
    """Downloads with the token, over TLS that it checks."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def get(
        self, path: str, *, token: str | None = TOKEN, method: str = "GET", **headers: str
    ) -> tuple[int, bytes, Mapping[str, str]]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["x-kubevirt-export-token"] = token
        url = URL(self.base + path, encoded=True)
        async with self.session.request(method, url, headers=sent, allow_redirects=False) as answer:
            return answer.status, await answer.read(), answer.headers


@asynccontextmanager
async def exporter(
    pod: Pod, downloads: Downloads | None = None, *, open_s: float = OPEN_S
) -> AsyncIterator[Client]:
    """The exporter of the pod, and one who downloads from it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = pod.root / "identity"
    server.load_cert_chain(identity / "tls.crt", identity / "tls.key")
    app = exporter_app(pod.settings, downloads, open_s=open_s)
    trusting = ssl.create_default_context(cadata=pod.authority.certificate.decode())
    async with (
        serve_http(app, host="127.0.0.1", port=0, tls=server, grace_s=0.1) as port,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusting), auto_decompress=False
        ) as session,
    ):
        yield Client(session, f"https://127.0.0.1:{port}")


def fill(pod: Pod) -> None:
    """Volumes: `disk` with a sparse disk image, `raw` a device, `files` with files."""
    image = pod.directory("disk") / "disk.img"
    with image.open("wb") as file:
        file.truncate(5 * MIB + 123)
        for offset in (0, 2 * MIB + 77):
            file.seek(offset)
            file.write(os.urandom(70_000))
    pod.device("raw", os.urandom(3 * MIB))
    files = pod.directory("files")
    (files / "readme.txt").write_text("hello")
    (files / "sub").mkdir()
    (files / "sub" / "data.bin").write_bytes(os.urandom(1000))
