"""The webhooks of one replica as a whole: certificates, registration and the HTTPS port.

    async with serve_webhooks(client, namespace, port=8443, …) as certificates:
        health.add_readiness("webhooks", certificates.not_ready)
        spawn(group, certificates.run(), name="certificates")

Every replica does this, whoever leads; only the leading one tells the API server whom to ask and whom to trust.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from podvisor_common.http.server import serve_http
from podvisor_common.kube.client import KubeClient

from podvisor_controller.webhooks.certificates import Certificates
from podvisor_controller.webhooks.defaults import ClusterDefaults
from podvisor_controller.webhooks.judges import webhooks_for
from podvisor_controller.webhooks.rotation import Lives
from podvisor_controller.webhooks.server import Reviewer, webhook_app


@asynccontextmanager
async def serve_webhooks(
    client: KubeClient,
    namespace: str,
    *,
    port: int,
    lives: Lives,
    defaults: Callable[[], ClusterDefaults],
    review_eviction: Reviewer,
    leads: Callable[[], bool],
    is_stopping: Callable[[], bool],
) -> AsyncIterator[Certificates]:
    """Serve admission and conversion on `port` until the block is left.

    The caller runs the certificates' run() in its own task group; until its first pass is through,
    the port answers with a certificate that nobody trusts; `lives` is how long those are valid that it makes. While `is_stopping`, answers end their
    connections, so that the API server keeps none to a process that is about to go.
    """
    certificates = Certificates(client, namespace, leads=leads, lives=lives)
    app = webhook_app(webhooks_for(namespace, defaults, review_eviction), is_stopping=is_stopping)
    async with serve_http(app, port=port, tls=certificates.context):
        yield certificates
