"""A small Kubernetes API server on a real socket, for tests: any resource, resource versions, scripted faults.

It knows lists with pages and selectors, watches with bookmarks, create, update, the three patches (apply is a merge
without ownership), delete with preconditions and finalizers, and status as a subresource of everything. It checks no
schema, runs no admission and deletes pods at once.

    async with FakeApiServer() as server:
        client = KubeClient.for_url(server.url, user_agent="test")
        server.put(PODS, {"metadata": {"namespace": "shop", "name": "a"}})
        server.watch_faults.append(Cut(after_events=1))
        await server.until(lambda: server.get(PODS, key)["status"]["phase"] == "Running")
"""

import asyncio
import copy
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from aiohttp import web
from podvisor_common.kube.resources import ObjectKey, Resource

from tests.unit.kube import fake_objects
from tests.unit.kube.fake_faults import (
    Cut,
    Delay,
    Duplicate,
    End,
    Gone,
    Refuse,
    Repeat,
    Request,
    Stall,
    WatchFault,
)
from tests.unit.kube.fake_objects import Object, PatchFailed

__all__ = [
    "Cut",
    "Delay",
    "Duplicate",
    "End",
    "FakeApiServer",
    "Gone",
    "Refuse",
    "Repeat",
    "Request",
    "Stall",
    "WatchFault",
]

Collection = tuple[str, str]  # group, plural: all versions of a resource are one


@dataclass(frozen=True)
class _Event:
    version: int
    type: str
    collection: Collection
    obj: Object


class Refused(Exception):
    """A request that is answered with a refusal."""

    def __init__(self, refuse: Refuse) -> None:
        self.refuse = refuse


class FakeApiServer:
    """An async context manager; its state can be read and changed from the test at any time."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.watch_faults: deque[WatchFault] = deque()
        self.refusals: deque[Refuse] = deque()
        self.forbidden: set[str] = set()  # resources that may only be read
        self.hang = False  # accept requests and never answer
        self.hang_for: set[str] = set()  # the same, for these user agents
        self.response_headers: dict[str, str] = {}
        self.version = 100
        self._oldest_version = 0
        self._objects: dict[Collection, dict[ObjectKey, Object]] = {}
        self._events: list[_Event] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    # What a test does.

    def put(self, res: Resource, obj: Object) -> Object:
        """Create or replace an object as a whole, status included."""
        obj = copy.deepcopy(obj)
        key = ObjectKey(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        old = self._objects.setdefault((res.group, res.plural), {}).get(key)
        obj.setdefault("apiVersion", res.api_version)
        obj.setdefault("kind", res.kind)
        meta = obj["metadata"]
        meta.setdefault("uid", old["metadata"]["uid"] if old else str(uuid4()))
        meta.setdefault("generation", 1)
        meta.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        return self._store((res.group, res.plural), key, obj, "MODIFIED" if old else "ADDED")

    def get(self, res: Resource, key: ObjectKey) -> Object | None:
        """The stored object, to be looked at only."""
        return self._objects.get((res.group, res.plural), {}).get(key)

    def list(self, res: Resource) -> list[Object]:
        """All stored objects of the resource, in key order."""
        objects = self._objects.get((res.group, res.plural), {})
        return [objects[key] for key in sorted(objects)]

    def remove(self, res: Resource, key: ObjectKey) -> None:
        """Delete an object at once, finalizers or not."""
        self._remove((res.group, res.plural), key)

    def bookmark(self, res: Resource) -> None:
        """Send a bookmark with the current version to the watches of the resource."""
        obj = {
            "apiVersion": res.api_version,
            "kind": res.kind,
            "metadata": {"resourceVersion": str(self.version), "creationTimestamp": None},
        }
        self._publish(_Event(self.version, "BOOKMARK", (res.group, res.plural), obj))

    def compact(self) -> None:
        """Forget the past: watches from any version before now get 410."""
        self._oldest_version = self.version

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the server's state or requests; bound it by the test's timeout."""
        async with self._changed:
            await self._changed.wait_for(condition)

    # How it is stored.

    def _store(self, collection: Collection, key: ObjectKey, obj: Object, type_: str) -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._objects.setdefault(collection, {})[key] = obj
        self._publish(_Event(self.version, type_, collection, copy.deepcopy(obj)))
        return obj

    def _remove(self, collection: Collection, key: ObjectKey) -> None:
        obj = copy.deepcopy(self._objects[collection].pop(key))
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        self._publish(_Event(self.version, "DELETED", collection, obj))

    def _publish(self, event: _Event) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify(), name="fake-apiserver-notify")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # How it answers.

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body: Any = json.loads(raw) if raw else None
        query = dict(request.query)
        self.requests.append(
            Request(request.method, request.path, query, dict(request.headers), body)
        )
        self._wake()
        try:
            if self.hang or request.headers.get("User-Agent") in self.hang_for:
                await asyncio.Event().wait()
            if self.refusals:
                raise Refused(self.refusals.popleft())
            group, namespace, plural, name, subresource = parse_path(request.path)
            collection = (group, plural)
            if plural in self.forbidden and request.method != "GET":
                raise Refused(Refuse(403, "Forbidden"))
            if query.get("watch") == "1":
                return await self._watch(request, collection, namespace, query)
            if not name and request.method == "GET":
                return self._reply(self._list(collection, namespace, query))
            key = ObjectKey(namespace, name)
            if request.method == "POST":
                return self._reply(self._create(collection, namespace, body), 201)
            old = self._objects.get(collection, {}).get(key)
            is_apply = request.method == "PATCH" and "apply" in request.content_type
            if is_apply and old is None and not subresource:
                body["metadata"] = body.get("metadata", {}) | {"name": name}
                return self._reply(self._create(collection, namespace, body), 201)
            if old is None:
                raise Refused(Refuse(404, "NotFound", f'{plural} "{name}" not found'))
            if request.method == "GET":
                return self._reply(old)
            if request.method == "DELETE":
                return self._reply(self._delete(collection, key, old, body or {}))
            new = _written(old, self.requests)
            if query.get("dryRun") == "All":
                return self._reply(fake_objects.changed(old, new, subresource=subresource))
            return self._reply(self._change(collection, key, old, new, subresource))
        except Refused as refused:
            return self._reply_refusal(refused.refuse)

    def _reply(self, obj: Object, status: int = 200) -> web.Response:
        return web.json_response(obj, status=status, headers=self.response_headers)

    def _reply_refusal(self, refuse: Refuse) -> web.Response:
        body = {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "code": refuse.status,
            "reason": refuse.reason,
            "message": refuse.message,
            "details": {"causes": [{"field": name} for name in refuse.fields]},
        }
        return web.json_response(body, status=refuse.status, headers=refuse.headers)

    def _list(self, collection: Collection, namespace: str, query: dict[str, str]) -> Object:
        objects = self._objects.get(collection, {})
        selected = [
            objects[key]
            for key in sorted(objects)
            if namespace in ("", key.namespace) and fake_objects.matches(objects[key], query)
        ]
        version, _, start = query.get("continue", f"{self.version}:0").partition(":")
        if int(version) < self._oldest_version:
            raise Refused(Refuse(410, "Expired", "the continue token has expired"))
        end = int(start) + int(query.get("limit") or len(selected))
        metadata = {"resourceVersion": version}
        if end < len(selected):
            metadata["continue"] = f"{version}:{end}"
        return {"kind": "List", "metadata": metadata, "items": selected[int(start) : end]}

    def _create(self, collection: Collection, namespace: str, obj: Object) -> Object:
        meta = obj["metadata"]
        if "name" not in meta:
            meta["name"] = meta["generateName"] + uuid4().hex[:5]
        if namespace:
            meta["namespace"] = namespace
        key = ObjectKey(namespace, meta["name"])
        if key in self._objects.get(collection, {}):
            message = f'{collection[1]} "{key.name}" already exists'
            raise Refused(Refuse(409, "AlreadyExists", message))
        meta |= {
            "uid": str(uuid4()),
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        return self._store(collection, key, obj, "ADDED")

    def _change(
        self, collection: Collection, key: ObjectKey, old: Object, new: Object, subresource: str
    ) -> Object:
        version = new["metadata"].get("resourceVersion", "")
        if version and version != old["metadata"]["resourceVersion"]:
            raise Refused(Refuse(409, "Conflict", "the object has been modified"))
        obj = fake_objects.changed(old, new, subresource=subresource)
        obj["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if obj == old:
            return old
        if "deletionTimestamp" in obj["metadata"] and not obj["metadata"].get("finalizers"):
            self._objects[collection][key] = obj
            self._remove(collection, key)
            return obj
        return self._store(collection, key, obj, "MODIFIED")

    def _delete(
        self, collection: Collection, key: ObjectKey, old: Object, options: Object
    ) -> Object:
        for name, value in (options.get("preconditions") or {}).items():
            if old["metadata"].get(name) != value:
                raise Refused(Refuse(409, "Conflict", f"the {name} is another"))
        if not old["metadata"].get("finalizers"):
            self._remove(collection, key)
            return {"kind": "Status", "status": "Success"}
        if "deletionTimestamp" in old["metadata"]:
            return old
        obj = copy.deepcopy(old)
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        return self._store(collection, key, obj, "MODIFIED")

    async def _watch(
        self, request: web.Request, collection: Collection, namespace: str, query: dict[str, str]
    ) -> web.StreamResponse:
        fault = self.watch_faults.popleft() if self.watch_faults else None
        if isinstance(fault, Refuse):
            raise Refused(fault)
        response = web.StreamResponse(headers=self.response_headers)
        response.content_type = "application/json"
        await response.prepare(request)
        since = int(query["resourceVersion"])
        if since < self._oldest_version:
            await response.write(_GONE)
            return response
        if isinstance(fault, Delay):
            await fault.release.wait()
        position = sent = 0
        first = b""
        while True:
            if fault is not None and sent >= getattr(fault, "after_events", 1):
                if isinstance(fault, Duplicate):
                    position, fault, since = 0, None, 0
                elif isinstance(fault, Repeat):
                    await response.write(first)
                    fault = None
                elif await self._break(request, response, fault):
                    return response
            if position == len(self._events):
                await self._event_at(position)
            event = self._events[position]
            position += 1
            if event.collection != collection or event.version < since + (event.type != "BOOKMARK"):
                continue
            if event.type != "BOOKMARK":
                is_other = namespace not in ("", event.obj["metadata"].get("namespace", ""))
                if is_other or not fake_objects.matches(event.obj, query):
                    continue
            line = json.dumps({"type": event.type, "object": event.obj}).encode() + b"\n"
            first = first or line
            await response.write(line * (2 if isinstance(fault, Duplicate) else 1))
            sent += 1

    async def _event_at(self, position: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._events) > position)

    async def _break(
        self, request: web.Request, response: web.StreamResponse, fault: WatchFault
    ) -> bool:
        """Do what the fault says at this point; whether the watch is over."""
        match fault:
            case Gone():
                await response.write(_GONE)
                return True
            case Cut():
                await response.write(b'{"type":"ADDED","object":{"meta')
                assert request.transport is not None
                request.transport.abort()
                return True
            case End():
                return True
            case Stall():
                await asyncio.Event().wait()
        return False


_GONE = (
    json.dumps(
        {
            "type": "ERROR",
            "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
        }
    ).encode()
    + b"\n"
)


def parse_path(path: str) -> tuple[str, str, str, str, str]:
    """Group, namespace, plural, name and subresource of a path; what it lacks is empty. The version does not matter."""
    parts = path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = [*rest, "", ""][:3]
    return group, namespace, plural, name, subresource


def _written(old: Object, requests: list[Request]) -> Object:
    *earlier, request = requests
    body, content_type = request.body, request.headers.get("Content-Type", "")
    if request.method == "PUT":
        return dict(body)
    if content_type == "application/json-patch+json":
        try:
            return fake_objects.json_patch(old, body)
        except PatchFailed as error:
            raise Refused(Refuse(422, "Invalid", f"patch failed at {error}")) from error
    if content_type == "application/merge-patch+json":
        return dict(fake_objects.merge_patch(old, body))
    if content_type == "application/apply-patch+yaml":
        same = (r for r in reversed(earlier) if (r.path, r.query) == (request.path, request.query))
        before = next(same, None)
        return fake_objects.apply(old, body, before.body if before is not None else {})
    raise Refused(Refuse(415, "UnsupportedMediaType", content_type))
