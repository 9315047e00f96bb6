"""Who may download: whoever shows the token. Nothing of a request but readiness is looked at before."""

import hmac
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from podvisor_common.api.export.names import TOKEN_HEADER, TOKEN_KEY

from podvisor_controller.exporter.answers import Storage
from podvisor_controller.exporter.settings import READY_PATH

# How long a directory of the pod's own may take, which is in its node's memory.
READ_S = 5.0


class Token:
    """The token as it is in its file, which the kubelet writes anew when the Secret changes."""

    def __init__(self, directory: str) -> None:
        self._path = Path(directory) / TOKEN_KEY
        self._storage = Storage("The directory of the token")

    @property
    def is_stuck(self) -> bool:
        """It cannot be read, and nobody gets anything."""
        return self._storage.is_stuck

    async def read(self) -> bytes:
        """The token, without the end of a line; empty when there is none. Raises NoAnswer."""
        return await self._storage.run(self._read, READ_S)

    async def is_shown(self, request: web.Request) -> bool:
        """Whether the request has it, as a header or in its query. Takes the same time whatever is shown. Raises NoAnswer."""
        token = await self.read()
        shown = (request.headers.get(TOKEN_HEADER, ""), request.query.get(TOKEN_HEADER, ""))
        matches = [
            hmac.compare_digest(one.encode(errors="backslashreplace"), token) for one in shown
        ]
        return bool(token) and any(matches)

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes().rstrip(b"\r\n")
        except FileNotFoundError:
            return b""


def only_with(token: Token) -> Middleware:
    """The middleware that answers 401 to everybody else."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path != READY_PATH and not await token.is_shown(request):
            raise web.HTTPUnauthorized(text="The token is missing or wrong.\n")
        return await handler(request)

    return check
