"""Calls to the API server: raw bytes out of it, msgspec-encoded bodies into it.

Invariants: every call has a deadline; every answer of 400 or more becomes a typed ApiError; every PATCH names its
content type; no body is ever logged. It does not cache, retry or decode objects: informers, queues and callers do.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
import structlog
from yarl import URL

from podvisor_common.kube import metrics, transport
from podvisor_common.kube.errors import ApiUnavailable, error_from_response
from podvisor_common.kube.lines import LineSplitter
from podvisor_common.kube.resources import ObjectKey, Resource

Manifest = Mapping[str, Any] | msgspec.Struct

# Longer than the ten seconds that an overloaded API server takes, for what is given up then may be done all the same.
DEFAULT_TIMEOUT_S = 15.0
LIST_TIMEOUT_S = 30.0
# The API server sends a bookmark about every minute; silence for longer than this means that the stream is dead.
WATCH_INACTIVITY_S = 90.0

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"

_WARNINGS_REMEMBERED = 256

_log = structlog.get_logger(__name__)


class KubeClient:
    """One API server, one connection pool. Use it as an async context manager."""

    def __init__(self, configuration: transport.Configuration, *, user_agent: str) -> None:
        self._configuration = configuration
        self._base = configuration.host
        self._user_agent = user_agent
        self._session = transport.open_session(configuration)
        self._warned: set[str] = set()

    @classmethod
    async def from_environment(cls, *, user_agent: str) -> Self:
        """A client for the cluster of KUBECONFIG, or the one this pod runs in."""
        return cls(await transport.configuration_from_environment(), user_agent=user_agent)

    @classmethod
    def for_url(cls, url: str, *, user_agent: str) -> Self:
        """A client for an API server that asks for no credentials."""
        return cls(transport.configuration_for(url), user_agent=user_agent)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the pool; running calls fail."""
        await self._session.close()

    async def get(
        self,
        res: Resource,
        key: ObjectKey,
        *,
        subresource: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """One object."""
        return await self._call("GET", _path(res, key, subresource), timeout_s=timeout_s)

    async def list_page(
        self,
        res: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        continue_: str = "",
        resource_version: str = "",
        timeout_s: float = LIST_TIMEOUT_S,
    ) -> bytes:
        """One page of a list; `limit` 0 asks for everything. ApiExpired when `continue_` is too old."""
        query = _query(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else "",
            **{"continue": continue_},
            resourceVersion=resource_version,
        )
        return await self._call("GET", res.path(namespace), query=query, timeout_s=timeout_s)

    async def watch(
        self,
        res: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        timeout_s: float,
        inactivity_s: float = WATCH_INACTIVITY_S,
    ) -> AsyncGenerator[bytes, None]:
        """The lines of one watch, which the server ends after `timeout_s`; bookmarks are asked for.

        Ends when the server does. ApiExpired when the version is too old; ApiUnavailable when the stream breaks, or
        stays silent for `inactivity_s`. Close the iterator (contextlib.aclosing) to end it early.
        """
        query = _query(
            watch="1",
            allowWatchBookmarks="true",
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            timeoutSeconds=str(int(timeout_s)),
        )
        splitter = LineSplitter()
        try:
            async with asyncio.timeout(DEFAULT_TIMEOUT_S):
                response = await self._send("GET", res.path(namespace), query=query)
            try:
                while True:
                    async with asyncio.timeout(inactivity_s):
                        chunk = await response.content.readany()
                    if not chunk:
                        return
                    for line in splitter.feed(chunk):
                        yield line
            finally:
                _abandon(response)
        except transport.TRANSPORT_ERRORS as error:
            raise _no_answer("watch", error) from error

    async def create(
        self,
        res: Resource,
        namespace: str | None,
        manifest: Manifest,
        *,
        dry_run: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """Create an object and return it, or with `dry_run` only what would be created.

        ApiAlreadyExists when the name is taken.
        """
        query = _query(dryRun="All" if dry_run else "")
        return await self._call(
            "POST", res.path(namespace), query=query, body=manifest, timeout_s=timeout_s
        )

    async def update(
        self,
        res: Resource,
        key: ObjectKey,
        manifest: Manifest,
        *,
        subresource: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """Replace an object that is ours as a whole; decoded partial objects must never come back this way."""
        path = _path(res, key, subresource)
        return await self._call("PUT", path, body=manifest, timeout_s=timeout_s)

    async def merge_patch(
        self,
        res: Resource,
        key: ObjectKey,
        patch: Manifest,
        *,
        subresource: str | None = None,
        dry_run: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """RFC 7386. With metadata.resourceVersion in it, ApiConflict when the object has moved on. With `dry_run` only checked."""
        path, query = _path(res, key, subresource), _query(dryRun="All" if dry_run else "")
        return await self._call(
            "PATCH", path, _MERGE_PATCH, query=query, body=patch, timeout_s=timeout_s
        )

    async def json_patch(
        self,
        res: Resource,
        key: ObjectKey,
        ops: Sequence[Mapping[str, Any]],
        *,
        subresource: str | None = None,
        dry_run: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """RFC 6902. ApiInvalid when a `test` operation does not hold. With `dry_run` only checked."""
        path, query = _path(res, key, subresource), _query(dryRun="All" if dry_run else "")
        return await self._call(
            "PATCH", path, _JSON_PATCH, query=query, body=ops, timeout_s=timeout_s
        )

    async def apply(
        self,
        res: Resource,
        key: ObjectKey,
        manifest: Manifest,
        *,
        field_manager: str,
        force: bool = False,
        subresource: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """Server-side apply. ApiConflict when another manager owns a field and `force` is not set."""
        query = _query(fieldManager=field_manager, force="true" if force else "")
        path = _path(res, key, subresource)
        return await self._call(
            "PATCH", path, _APPLY_PATCH, query=query, body=manifest, timeout_s=timeout_s
        )

    async def delete(
        self,
        res: Resource,
        key: ObjectKey,
        *,
        grace_period_s: int | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """Begin the deletion of an object; the object as it is now, or a Status when nothing of it is left.

        ApiConflict when it is not the one of `uid` and `resource_version`.
        """
        options: dict[str, Any] = {}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation is not None:
            options["propagationPolicy"] = propagation
        preconditions = _query(uid=uid or "", resourceVersion=resource_version or "")
        if preconditions:
            options["preconditions"] = preconditions
        return await self._call(
            "DELETE", res.path(key.namespace, key.name), body=options, timeout_s=timeout_s
        )

    async def _call(
        self,
        method: str,
        path: str,
        content_type: str = _JSON,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        timeout_s: float,
    ) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                async with await self._send(
                    method, path, content_type, query=query, body=body
                ) as response:
                    return await response.read()
        except transport.TRANSPORT_ERRORS as error:
            raise _no_answer(method, error) from error

    async def _send(
        self,
        method: str,
        path: str,
        content_type: str = _JSON,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> aiohttp.ClientResponse:
        """The response, of a status below 300, once its headers are there; closing it and the deadline are the caller's."""
        # Compression is worth less than the time it takes, here and in the API server.
        headers = {
            "User-Agent": self._user_agent,
            "Accept": _JSON,
            "Accept-Encoding": "identity",
        }
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers["Content-Type"] = content_type
        url = URL(self._base + path, encoded=True).with_query(query)
        started_s = time.monotonic()
        code = "<error>"
        try:
            token = await transport.authorization(self._configuration)
            if token is not None:
                headers["Authorization"] = token
            response = await self._session.request(
                method,
                url,
                headers=headers,
                data=data,
                timeout=_NO_TOTAL_TIMEOUT,
                allow_redirects=False,
                server_hostname=self._configuration.tls_server_name,
            )
            code = str(response.status)
        finally:
            metrics.observe_request(method, code, time.monotonic() - started_s)
        self._log_warnings(response)
        if response.status < 300:
            return response
        async with response:
            raise error_from_response(response.status, response.headers, await response.read())

    def _log_warnings(self, response: aiohttp.ClientResponse) -> None:
        """Log each of the API server's warnings once, such as the use of a deprecated field."""
        for warning in response.headers.getall("Warning", ()):
            if warning in self._warned or len(self._warned) >= _WARNINGS_REMEMBERED:
                continue
            self._warned.add(warning)
            _log.info("warning from the API server", warning=warning)


# Deadlines are ours (asyncio.timeout); the library's own, five minutes in total, would cut watches.
_NO_TOTAL_TIMEOUT = aiohttp.ClientTimeout(total=None)


def _abandon(response: aiohttp.ClientResponse) -> None:
    """Close a stream's connection at once; a TLS farewell could keep it for long, and nobody would wait for it."""
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def _path(res: Resource, key: ObjectKey, subresource: str | None) -> str:
    return res.path(key.namespace, key.name, subresource)


def _query(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}


def _no_answer(what: str, error: BaseException) -> ApiUnavailable:
    reason = "Timeout" if isinstance(error, TimeoutError) else "TransportError"
    return ApiUnavailable(0, reason, f"{what}: {type(error).__name__}: {error}")
