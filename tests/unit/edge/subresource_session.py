"""The aggregated API behind the real server, over TLS, and clients of it: the front proxy, and those who pretend to be it."""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web
from podvisor_common.api import core
from podvisor_common.api.meta import ObjectMeta
from podvisor_common.http.server import serve_http
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import ObjectKey
from podvisor_common.tls.authority import CertificateAuthority, KeyPair
from podvisor_common.tls.contexts import load_pair
from podvisor_controller.subresources.app import all_verbs
from podvisor_controller.subresources.front_proxy import CONFIG_MAP, FrontProxy
from podvisor_controller.subresources.instances import Handlers
from podvisor_controller.subresources.server import subresource_app

from tests.unit.kube.fake_apiserver import FakeApiServer, Refuse, Refused

Json = dict[str, Any]
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
# As the front proxy sends them, each as often as it has a value.
USER = [
    ("X-Remote-User", "jane"),
    ("X-Remote-Group", "devs"),
    ("X-Remote-Group", "system:authenticated"),
    ("X-Remote-Extra-Scopes%2fa", "one"),
]


class NoHandlers:
    """Of verbs that reach no guest."""

    def on(self, node: str) -> AbstractAsyncContextManager[Any]:
        raise AssertionError("this verb is none of a handler's")


NO_HANDLERS = NoHandlers()


class Authorizer(FakeApiServer):
    """An API server that says who may what."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: Callable[[Json], bool] = lambda spec: True
        self.reviews: list[Json] = []
        self.before_change: deque[Callable[[], None]] = deque()
        self.not_admitted: Refuse | None = None  # what is answered to dry runs

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.not_admitted is not None and "dryRun" in request.query:
            return self._reply_refusal(self.not_admitted)
        return await super()._handle(request)

    def _create(self, collection: tuple[str, str], namespace: str, obj: Json) -> Json:
        if collection[1] != "subjectaccessreviews":
            return super()._create(collection, namespace, obj)
        self.reviews.append(obj["spec"])
        allowed = self.allowed(obj["spec"])
        return {**obj, "status": {"allowed": allowed, "reason": "" if allowed else "no role"}}

    def _change(self, *args: Any) -> Json:
        if self.before_change:
            self.before_change.popleft()()
            collection, key, _, new, subresource = args
            if (old := self._objects[collection].get(key)) is None:
                raise Refused(Refuse(404, "NotFound"))
            return super()._change(collection, key, old, new, subresource)
        return super()._change(*args)


def authority(name: str = "front-proxy-ca") -> CertificateAuthority:
    return CertificateAuthority.create(name, now=NOW, valid_for=DAY)


def leaf(signer: CertificateAuthority, name: str) -> KeyPair:
    return signer.issue(name, [name], now=NOW, valid_for=DAY)


def trust_data(*signers: CertificateAuthority) -> dict[str, str]:
    """What the API server writes into the ConfigMap."""
    return {
        "client-ca-file": "",
        "requestheader-client-ca-file": b"".join(one.certificate for one in signers).decode(),
        "requestheader-allowed-names": '["front-proxy-client"]',
        "requestheader-username-headers": '["X-Remote-User"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
    }


def learn(front_proxy: FrontProxy, data: Mapping[str, str]) -> None:
    """Tell of the ConfigMap as its informer does."""
    metadata = ObjectMeta(namespace=CONFIG_MAP.namespace, name=CONFIG_MAP.name)
    front_proxy.learn(CONFIG_MAP, None, core.ConfigMap(metadata=metadata, data=dict(data)))


def client_context(trusted: bytes, pair: KeyPair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trusted.decode())
    if pair is not None:
        load_pair(context, pair)
    return context


@dataclass(frozen=True)
class Served:
    """The API on its port."""

    port: int
    server_authority: CertificateAuthority
    proxy_authority: CertificateAuthority
    front_proxy: FrontProxy

    @asynccontextmanager
    async def asked_by(self, pair: KeyPair | None) -> AsyncIterator[aiohttp.ClientSession]:
        """A client that shows that certificate, or none."""
        context = client_context(self.server_authority.certificate, pair)
        async with aiohttp.ClientSession(
            f"https://127.0.0.1:{self.port}", connector=aiohttp.TCPConnector(ssl=context)
        ) as session:
            yield session

    @property
    def proxy(self) -> KeyPair:
        """The certificate of the API server's front proxy."""
        return leaf(self.proxy_authority, "front-proxy-client")


@asynccontextmanager
async def served(
    client: KubeClient,
    is_stopping: Callable[[], bool] = lambda: False,
    handlers: Handlers = NO_HANDLERS,
) -> AsyncIterator[Served]:
    """The API, which is served for the body and knows its front proxy."""
    server_authority, proxy_authority = authority("server-ca"), authority()
    front_proxy = FrontProxy(leaf(server_authority, "127.0.0.1"))
    learn(front_proxy, trust_data(proxy_authority))
    app = subresource_app(
        client,
        front_proxy,
        all_verbs(client, handlers),
        product_version="1.2.3",
        is_stopping=is_stopping,
    )
    async with serve_http(
        app, host="127.0.0.1", port=0, tls=front_proxy.context, grace_s=0.2
    ) as port:
        yield Served(port, server_authority, proxy_authority, front_proxy)


def path_of(resource: str, key: ObjectKey, verb: str, version: str = "v1") -> str:
    group = f"/apis/subresources.kubevirt.io/{version}"
    return f"{group}/namespaces/{key.namespace}/{resource}/{key.name}/{verb}"
