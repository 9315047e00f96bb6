"""What is served under which address: KubeVirt's addresses, so that virtctl and importers find everything where they look for it.

Invariant: reads only. Nothing is looked for before the token was shown (access.py), nothing is opened but what tree.py opens, and
nothing of that in the event loop.
"""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from podvisor_controller.exporter import manifests, pieces
from podvisor_controller.exporter.access import READ_S, Token, only_with
from podvisor_controller.exporter.answers import NoAnswer, Storage
from podvisor_controller.exporter.ranges import select
from podvisor_controller.exporter.sending import RETRY_AFTER_S, Downloads
from podvisor_controller.exporter.settings import MANIFESTS, READY_PATH, Settings
from podvisor_controller.exporter.tree import (
    NotServed,
    holds_disk,
    inode,
    is_directory,
    open_disk,
    reopened,
    size_of,
)

# How long a volume may take to open a file.
OPEN_S = 30.0

_BINARY = "application/octet-stream"
_GZIP = "application/gzip"
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}

_decode_ingredients = msgspec.json.Decoder(manifests.Ingredients).decode


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that is open for reading, or a directory."""

    descriptor: int
    size_bytes: int = 0
    etag: str = ""
    is_directory: bool = False

    def close(self) -> None:
        os.close(self.descriptor)


class _Exporter:
    def __init__(self, settings: Settings, downloads: Downloads, open_s: float) -> None:
        self._settings = settings
        self._downloads = downloads
        self._token = Token(settings.token_directory)
        self._served_since = secrets.token_hex(4)
        self._open_s = open_s
        self._identity = Storage("The directory of the certificate")
        self._storage = [Storage(f'Volume "{volume.name}"') for volume in settings.volumes]
        self._numbers = {volume.name: n for n, volume in enumerate(settings.volumes)}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[_told_of_no_answer, only_with(self._token)])
        volume = "/volumes/{volume}"
        app.add_routes(
            [
                web.get(READY_PATH, self._ready),
                web.get(f"{volume}/disk.img", self._disk),
                web.get(f"{volume}/disk.img.gz", self._compressed_disk),
                web.get(f"{volume}/disk.tar.gz", self._archive),
                web.get(f"{volume}/dir", self._directory_itself),
                # A name may have newlines in it.
                web.get(f"{volume}/dir/{{path:(?s:.*)}}", self._directory),
                web.get("/internal/manifests/all", self._manifests),
                web.get("/internal/manifests/secret", self._secret_manifest),
            ]
        )
        return app

    async def _ready(self, _: web.Request) -> web.Response:
        # One volume that does not answer takes nobody the others.
        stuck = [storage.is_stuck for storage in self._storage]
        if self._token.is_stuck or (stuck and all(stuck)):
            raise web.HTTPServiceUnavailable(text="Nothing that is served answers.\n")
        return web.Response(text="OK")

    async def _disk(self, request: web.Request) -> web.StreamResponse:
        with self._downloads.place():
            return await self._send_file(request, await self._open(self._open_disk, request))

    async def _compressed_disk(self, request: web.Request) -> web.StreamResponse:
        with self._downloads.place():
            opened = await self._open(self._open_disk, request)
            made = pieces.gzip_pieces(opened.descriptor, opened.size_bytes)
            return await self._send_made(request, _GZIP, opened, made)

    async def _archive(self, request: web.Request) -> web.StreamResponse:
        with self._downloads.place():
            opened = await self._open(self._open_root, request)
            made = pieces.archive_pieces(opened.descriptor)
            return await self._send_made(request, _GZIP, opened, made)

    async def _directory_itself(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPMovedPermanently(location="dir/")

    async def _directory(self, request: web.Request) -> web.StreamResponse:
        with self._downloads.place():
            opened = await self._open(self._open_path, request)
            if not opened.is_directory:
                return await self._send_file(request, opened)
            if not request.rel_url.raw_path.endswith("/"):
                opened.close()
                [*_, last] = _parts_of(request)
                raise web.HTTPMovedPermanently(location=f"./{quote(last)}/")
            made = pieces.listing_pieces(opened.descriptor)
            return await self._send_made(request, "text/html", opened, made)

    async def _manifests(self, request: web.Request) -> web.Response:
        with_disk = await self._with_disk()
        ingredients = await self._ingredients()
        resources = manifests.everything(ingredients, self._settings.volumes, with_disk)
        return _written(resources, request)

    async def _secret_manifest(self, request: web.Request) -> web.Response:
        token = (await self._token.read()).decode(errors="replace")
        return _written(manifests.header_secret(await self._ingredients(), token), request)

    async def _ingredients(self) -> manifests.Ingredients:
        path = Path(self._settings.identity_directory) / MANIFESTS
        return _decode_ingredients(await self._identity.run(path.read_bytes, READ_S))

    async def _with_disk(self) -> dict[str, bool]:
        return {
            name: await self._storage[number].run(partial(self._has_disk, number), self._open_s)
            for name, number in self._numbers.items()
        }

    def _has_disk(self, number: int) -> bool:
        settings = self._settings
        return settings.volumes[number].block or holds_disk(settings.path_of(number))

    async def _open(
        self, open_it: Callable[[int, web.Request], _Opened], request: web.Request
    ) -> _Opened:
        """What is asked for, open.

        HTTPNotFound when there is no such thing, HTTPForbidden when it may not be read, NoAnswer when the volume gives none.
        """
        number = self._numbers.get(request.match_info["volume"])
        if number is None:
            raise web.HTTPNotFound
        work = partial(open_it, number, request)
        try:
            return await self._storage[number].run(work, self._open_s, _Opened.close)
        except (NotServed, ValueError):
            raise web.HTTPNotFound from None
        except PermissionError:
            raise web.HTTPForbidden(text="The exporter may not read this.\n") from None

    def _open_disk(self, number: int, _: web.Request) -> _Opened:
        is_block = self._settings.volumes[number].block
        return self._opened(open_disk(self._settings.path_of(number), is_block=is_block))

    def _open_root(self, number: int, _: web.Request) -> _Opened:
        return self._open_below(number, [])

    def _open_path(self, number: int, request: web.Request) -> _Opened:
        return self._open_below(number, _parts_of(request))

    def _open_below(self, number: int, parts: list[bytes]) -> _Opened:
        if self._has_disk(number):
            raise NotServed
        with inode(self._settings.path_of(number), parts) as found:
            if is_directory(found):
                return _Opened(reopened(found), is_directory=True)
            return self._opened(reopened(found))

    def _opened(self, descriptor: int) -> _Opened:
        size_bytes, changed = size_of(descriptor), os.fstat(descriptor).st_mtime_ns
        # Nobody writes to a volume while this process serves it; a device does not say when somebody did.
        etag = f'"{size_bytes:x}-{changed:x}-{self._served_since}"'
        return _Opened(descriptor, size_bytes, etag)

    async def _send_file(self, request: web.Request, opened: _Opened) -> web.StreamResponse:
        selection = select(request.headers, opened.size_bytes, opened.etag)
        start, stop = selection.start, selection.stop
        response = web.StreamResponse(status=selection.status, headers=_HEADERS | selection.headers)
        response.content_type = _BINARY
        response.content_length = stop - start
        is_wanted = request.method != "HEAD"
        made = pieces.file_pieces(opened.descriptor, start, stop if is_wanted else start)
        return await self._send(request, response, made, opened)

    async def _send_made(
        self, request: web.Request, content_type: str, opened: _Opened, made: pieces.Pieces
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        response.content_type = content_type
        if request.method == "HEAD":
            made = pieces.file_pieces(opened.descriptor, 0, 0)
        together = pieces.put_together(made)
        return await self._send(request, response, together, opened)

    async def _send(
        self,
        request: web.Request,
        response: web.StreamResponse,
        made: pieces.Pieces,
        opened: _Opened,
    ) -> web.StreamResponse:
        storage = self._storage[self._numbers[request.match_info["volume"]]]
        return await self._downloads.send(request, response, made, opened.descriptor, storage)


def exporter_app(
    settings: Settings, downloads: Downloads | None = None, *, open_s: float = OPEN_S
) -> web.Application:
    """The application of one exporter."""
    return _Exporter(settings, downloads or Downloads(), open_s).app()


@web.middleware
async def _told_of_no_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NoAnswer as error:
        raise web.HTTPServiceUnavailable(
            text=f"{error}\n", headers={"Retry-After": str(RETRY_AFTER_S)}
        ) from None


def _parts_of(request: web.Request) -> list[bytes]:
    """The names that the address has below `dir/`. As bytes: nothing says that those of files are text."""
    _, _, path = request.rel_url.raw_path.partition("/dir/")
    return [unquote_to_bytes(part) for part in path.removesuffix("/").split("/") if path]


def _written(resources: list[manifests.Json], request: web.Request) -> web.Response:
    text, content_type = manifests.written(resources, request.headers.get("Accept", ""))
    return web.Response(text=text, content_type=content_type, headers=_HEADERS)
