"""Reading from the development cluster as `kubectl get` does, without a process for each look: those cost the tests more than the guests.

Invariant: it only reads. What a person would do to the cluster is done with kubectl.
"""

import base64
import json
import ssl
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from podvisor_common.kube.resources import Resource

Json = dict[str, Any]
_TIMEOUT = aiohttp.ClientTimeout(total=20)
_ENDLESS = aiohttp.ClientTimeout(total=None, sock_connect=20)
# Every resource of the cluster in two answers: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#aggregated-discovery
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@dataclass(slots=True)
class Api:
    """The API server of a kubeconfig with one cluster and one user, whose certificates it holds."""

    kubeconfig: Path
    _connection: tuple[str, ssl.SSLContext] | None = None
    _resources: dict[str, Resource] = field(default_factory=dict)

    async def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """The object by any name that kubectl knows its kind by, or None when it does not exist."""
        resource = await self._resource(kind)
        async with self._answer(resource.path(namespace, name)) as answer:
            if answer.status == 404:
                return None
            return await _decoded(answer)

    async def list(
        self, kind: str, namespace: str | None, *, labels: str = "", fields: str = ""
    ) -> Json:
        """The list of a namespace's objects, or of all namespaces'."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        path = (await self._resource(kind)).path(namespace)
        async with self._answer(path, {key: text for key, text in query.items() if text}) as answer:
            return await _decoded(answer)

    async def states(
        self, kind: str, namespace: str, name: str, first: Json
    ) -> AsyncGenerator[Json | None]:
        """The states of one object since the list `first` of it: as it was there, None for its absence, then after each change."""
        path = (await self._resource(kind)).path(namespace)
        fields = f"metadata.name={name}"
        while True:
            yield first["items"][0] if first["items"] else None
            version = first["metadata"]["resourceVersion"]
            query = {"watch": "1", "fieldSelector": fields, "resourceVersion": version}
            async with self._answer(path, query, _ENDLESS) as answer:
                answer.raise_for_status()
                while line := await answer.content.readline():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    yield None if event["type"] == "DELETED" else event["object"]
            first = await self.list(kind, namespace, fields=fields)

    @asynccontextmanager
    async def _answer(
        self,
        path: str,
        query: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
        accept: str = "application/json",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A connection for each answer: no test has to end one."""
        server, trust = self.connection()
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=16 << 20) as session,
            session.get(server + path, params=query, ssl=trust, headers={"Accept": accept}) as answer,
        ):  # fmt: skip
            try:
                yield answer
            finally:
                await _hang_up(answer)

    def connection(self) -> tuple[str, ssl.SSLContext]:
        """The server's URL, and TLS to it as the kubeconfig's user."""
        self._connection = self._connection or _read(self.kubeconfig)
        return self._connection

    async def _resource(self, kind: str) -> Resource:
        name = kind.lower()
        if name not in self._resources:
            self._resources = await self._discovered()
        return self._resources[name]

    async def _discovered(self) -> dict[str, Resource]:
        """Every resource by all of its names. The core group's come first, and the version that its group prefers."""
        found: dict[str, Resource] = {}
        for path in ("/api", "/apis"):
            async with self._answer(path, accept=_DISCOVERY) as answer:
                groups = (await _decoded(answer))["items"]
            for group in groups:
                for version in group["versions"]:
                    for one in version.get("resources", ()):
                        _note(found, group["metadata"].get("name", ""), version["version"], one)
        return found


def _note(found: dict[str, Resource], group: str, version: str, one: Json) -> None:
    plural, kind = one["resource"], one["responseKind"]["kind"]
    resource = Resource(group, version, plural, kind, namespaced=one["scope"] == "Namespaced")
    full_names = (f"{plural}.{group}", f"{plural}.{version}.{group}")
    for name in (plural, one.get("singularResource"), *one.get("shortNames", ()), *full_names):
        if name:
            found.setdefault(name, resource)


async def _hang_up(answer: aiohttp.ClientResponse) -> None:
    """End an answer that was not read to its end, without the farewell of TLS, which the loop of a test would not outlive."""
    if answer.connection is None or answer.connection.protocol is None:
        return
    protocol = answer.connection.protocol
    closed = protocol.closed
    protocol.abort()
    if closed is not None:
        await closed


async def _decoded(answer: aiohttp.ClientResponse) -> Json:
    answer.raise_for_status()
    content: Json = await answer.json()
    return content


def _read(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    config = json.loads(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    trust = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as both:
        for part in ("client-certificate-data", "client-key-data"):
            both.write(base64.b64decode(user[part]))
        both.flush()
        trust.load_cert_chain(both.name)
    return cluster["server"], trust
