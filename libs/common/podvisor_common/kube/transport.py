"""kubernetes_asyncio without its models: where the cluster is and how to authenticate; and the pooled session for it.

Importing any submodule of kubernetes_asyncio normally runs its packages' __init__ files, which import every API and
about 1500 generated models (72 MiB). Here the packages are entered into sys.modules as bare ones, with their real
search paths but without running those files; only the submodules named below are loaded. This relies on the shape of
the generated package, which an import test guards. It must stay the only module that imports kubernetes_asyncio.
"""

import importlib
import importlib.util
import logging
import os
import socket
import ssl
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any, Protocol, cast

import aiohttp

TOKEN_RENEWAL_S = 60.0
CONNECTION_LIMIT = 100
KEEPALIVE_S = 60.0
READ_BUFFER_BYTES = 256 * 1024
# What the other side has not acknowledged by then is given up, with its connection. Otherwise the kernel would go on sending
# it, even for a client that has given up, and a write that a former leader made before it was cut off from the API server
# would arrive minutes after another one leads.
UNACKNOWLEDGED_S = 2.5
# An idle connection is probed after this time, and is lost when the probe is not acknowledged some time later. Otherwise a
# watch whose other end has lost it would be waited on until the API server's next bookmark is overdue.
PROBE_AFTER_S = 15
PROBE_WAIT_S = 5

_PACKAGES = ("kubernetes_asyncio", "kubernetes_asyncio.client", "kubernetes_asyncio.config")


class Configuration(Protocol):
    """The part of kubernetes_asyncio's Configuration that is used here."""

    host: str
    verify_ssl: bool
    ssl_ca_cert: str | None
    cert_file: str | None
    key_file: str | None
    tls_server_name: str | None
    proxy: str | None

    async def auth_settings(self) -> Mapping[str, Mapping[str, str]]: ...


class _Unavailable:
    """Stands for the names that only the unused, model-based half of the library needs."""

    def __init__(self, *_: object, **__: object) -> None:
        raise NotImplementedError("kubernetes_asyncio's generated client is kept out of podvisor")


def _enter_bare_packages() -> None:
    if "kubernetes_asyncio" in sys.modules:
        return
    spec = importlib.util.find_spec("kubernetes_asyncio")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("kubernetes_asyncio is not installed")
    root = list(spec.submodule_search_locations)
    for name in _PACKAGES:
        module = ModuleType(name, "bare package, see podvisor_common.kube.transport")
        tail = name.split(".")[1:]
        module.__path__ = [os.path.join(path, *tail) for path in root]
        sys.modules[name] = module
        if tail:
            setattr(sys.modules["kubernetes_asyncio"], tail[0], module)
    client = cast(Any, sys.modules["kubernetes_asyncio.client"])
    client.Configuration = _load("client.configuration").Configuration
    client.ApiClient = _Unavailable


def _load(submodule: str) -> Any:
    return importlib.import_module(f"kubernetes_asyncio.{submodule}")


_enter_bare_packages()
_configuration = _load("client.configuration")
# Its DEBUG lines hold response bodies, and with them Secrets.
logging.getLogger("kubernetes_asyncio").setLevel(logging.WARNING)

ConfigurationMissing: type[Exception] = _load("config.config_exception").ConfigException


def configuration_for(url: str) -> Configuration:
    """The configuration of an API server that needs no credentials, such as a test's."""
    configuration = _configuration.Configuration()
    configuration.host = url.rstrip("/")
    return cast(Configuration, configuration)


async def configuration_from_environment() -> Configuration:
    """The configuration from the files in KUBECONFIG, or else from the pod's service account.

    Tokens are renewed from where they came (the service account's file, tokenFile, a plugin, OIDC) about every minute.
    ConfigurationMissing when there is neither.
    """
    configuration = _configuration.Configuration()
    kubeconfig = os.environ.get("KUBECONFIG", "")
    if kubeconfig:
        # Loaded only here: with YAML and the plugins' protocols it is half of what the library costs a pod.
        loader = await _load("config.kube_config").load_kube_config(
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
        configuration.refresh_api_key_hook = _token_renewal(loader)
    else:
        _load("config.incluster_config").load_incluster_config(client_configuration=configuration)
    return cast(Configuration, configuration)


def _token_renewal(loader: Any) -> Callable[[Any], Awaitable[None]]:
    renewed_s = time.monotonic()

    async def renew(configuration: Any) -> None:
        nonlocal renewed_s
        if time.monotonic() - renewed_s < TOKEN_RENEWAL_S:
            return
        renewed_s = time.monotonic()
        await loader.load_and_set(configuration)

    return renew


def open_session(configuration: Configuration) -> aiohttp.ClientSession:
    """A session with the configuration's TLS and proxy, to be closed by the caller.

    The environment's proxy variables are looked at here, once; a .netrc never is.
    """
    connector = aiohttp.TCPConnector(
        limit=CONNECTION_LIMIT,
        keepalive_timeout=KEEPALIVE_S,
        ssl=_tls(configuration) if configuration.host.startswith("https:") else True,
        socket_factory=_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        proxy=configuration.proxy or _proxy_from_environment(configuration.host),
        read_bufsize=READ_BUFFER_BYTES,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, type_, protocol, *_ = address
    made = socket.socket(family, type_, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, PROBE_AFTER_S),
        (socket.TCP_KEEPINTVL, PROBE_WAIT_S),
        (socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED_S * 1000)),
    ):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _proxy_from_environment(url: str) -> str | None:
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


async def authorization(configuration: Configuration) -> str | None:
    """The value of the Authorization header, fresh; None when the connection authenticates or nothing does."""
    setting = (await configuration.auth_settings()).get("BearerToken")
    return setting["value"] if setting else None


# What may come out of a session or the renewal of a token; ssl.SSLError and ConnectionError are OSErrors.
TRANSPORT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ConfigurationMissing)
