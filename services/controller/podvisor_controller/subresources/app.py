"""The aggregated API of one replica as a whole: its certificate, whom it believes, and the HTTPS port.

    async with serve_subresources(client, certificates, handlers, port=8444, …) as authentication:
        spawn(group, authentication.run(), name="front proxy")

Every replica does this, whoever leads. A replica is ready without it: webhooks do not wait for what only subresources need.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from podvisor_common.api import core
from podvisor_common.http.server import serve_http
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import CONFIGMAPS

from podvisor_controller.subresources import (
    agent_verbs,
    evacuation_verbs,
    lifecycle_verbs,
    power_verbs,
    stream_verbs,
    volume_verbs,
)
from podvisor_controller.subresources.front_proxy import CONFIG_MAP, FrontProxy
from podvisor_controller.subresources.instances import Handlers
from podvisor_controller.subresources.server import subresource_app
from podvisor_controller.subresources.verbs import Verb
from podvisor_controller.webhooks.certificates import Certificates


def all_verbs(client: KubeClient, handlers: Handlers) -> list[Verb]:
    """What is served."""
    return [
        *lifecycle_verbs.verbs(client),
        *volume_verbs.verbs(client),
        *evacuation_verbs.verbs(client),
        *power_verbs.verbs(client, handlers),
        *agent_verbs.verbs(client, handlers),
        *stream_verbs.verbs(client, handlers),
    ]


@asynccontextmanager
async def serve_subresources(
    client: KubeClient,
    certificates: Certificates,
    handlers: Handlers,
    *,
    port: int,
    product_version: str,
    is_stopping: Callable[[], bool],
) -> AsyncIterator[Informer[core.ConfigMap]]:
    """Serve the API on `port` until the block is left. The caller runs what it yields: from there it is known whom to believe."""
    front_proxy = FrontProxy(certificates.pair)
    certificates.subscribe(front_proxy.present)
    authentication = Informer(
        client,
        CONFIGMAPS,
        core.ConfigMap,
        namespace=CONFIG_MAP.namespace,
        field_selector=f"metadata.name={CONFIG_MAP.name}",
    )
    authentication.subscribe(front_proxy.learn)
    app = subresource_app(
        client,
        front_proxy,
        all_verbs(client, handlers),
        product_version=product_version,
        is_stopping=is_stopping,
    )
    async with serve_http(app, port=port, tls=front_proxy.context):
        yield authentication
