"""The API server of the controller's tests: the fake one, with dry runs, planned refusals and the real time of day."""

import asyncio
import copy
from collections.abc import Callable
from enum import Enum
from typing import Any

from aiohttp import web
from podvisor_common.api.meta import format_time, now
from podvisor_common.kube.resources import ObjectKey

from tests.unit.kube.fake_apiserver import FakeApiServer, Refuse, Refused, parse_path

Json = dict[str, Any]


class Fate(Enum):
    """What becomes of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"  # nothing was done
    ANSWER_LOST = "answer lost"  # it was done, and the client is not told


class ApiServer(FakeApiServer):
    """The fake API server, with dry runs, refusals of what a test names, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self._refusals: list[tuple[str, str, Refuse]] = []
        self.refused = 0  # planned refusals that were answered; such a request is in no list
        self.created: list[Json] = []  # all that ever was, as it was then
        self.fate_of: Callable[[web.Request], Fate] = lambda _: Fate.ANSWERED
        # What a request waits for before anything comes of it.
        self.delay_of: Callable[[web.Request], asyncio.Event | None] = lambda _: None
        self.absent: set[str] = set()  # API groups that nobody has installed
        self.absent_asked: list[
            str
        ] = []  # the paths of requests for them, which are in no other list
        # Objects that admission takes in no change.
        self.refuses_change: Callable[[Json], bool] = lambda _: False
        # What a policy, a webhook of somebody else or a quota does not let happen.
        self.is_forbidden: Callable[[web.Request], bool] = lambda _: False

    def refuse(self, method: str, path_end: str, refusal: Refuse) -> None:
        """Refuse the next request of that method whose path ends so."""
        self._refusals.append((method, path_end, refusal))

    def _change(
        self, collection: Any, key: ObjectKey, old: Any, new: Any, subresource: str
    ) -> Json:
        if not subresource and self.refuses_change(new):
            raise Refused(Refuse(422, "Invalid", "not admitted"))
        return super()._change(collection, key, old, new, subresource)

    def _store(self, collection: Any, key: ObjectKey, obj: Any, type_: str) -> Json:
        if type_ == "ADDED":
            obj["metadata"]["creationTimestamp"] = format_time(now())
            self.created.append(copy.deepcopy(obj))
        return super()._store(collection, key, obj, type_)

    async def _try(self, request: web.Request) -> web.Response:
        """What would become of it: a name that is taken is the one hindrance that is known here."""
        body = await request.json()
        group, namespace, plural, name, _ = parse_path(request.path)
        key = ObjectKey(namespace, name or body["metadata"].get("name", ""))
        if request.method == "POST" and key in self._objects.get((group, plural), {}):
            return self._reply_refusal(Refuse(409, "AlreadyExists"))
        return self._reply(body, 201)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        for planned in self._refusals:
            method, path_end, refusal = planned
            if request.method == method and request.path.endswith(path_end):
                self._refusals.remove(planned)
                self.refused += 1
                return self._reply_refusal(refusal)
        if any(request.path.startswith(f"/apis/{group}/") for group in self.absent):
            self.absent_asked.append(request.path)
            return web.Response(status=404, text="404 page not found\n")
        if "dryRun" in request.query:
            return await self._try(request)
        if self.is_forbidden(request):
            return self._reply_refusal(Refuse(403, "Forbidden"))
        if (awaited := self.delay_of(request)) is not None:
            await awaited.wait()
        fate = self.fate_of(request)
        if fate is Fate.REFUSED:
            return self._reply_refusal(Refuse(503))
        response = await super()._handle(request)
        return self._reply_refusal(Refuse(503)) if fate is Fate.ANSWER_LOST else response
