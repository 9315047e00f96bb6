"""The way to the handlers of one replica as a whole: certificates for them, the cache of where they are, and connections.

    async with serve_handlers(client, certificates, namespace, port=8445, …) as handlers:
        spawn(group, handlers.run(), name="handlers")
        async with handlers.on("node1") as handler: …

Every replica does this, whoever leads. A replica is ready without it: webhooks do not wait for what only handlers need.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from podvisor_common.aio.tasks import spawn
from podvisor_common.kube.client import KubeClient

from podvisor_controller.handlers.credentials import ControllerCredentials
from podvisor_controller.handlers.directory import Directory
from podvisor_controller.handlers.issuing import serve_identity
from podvisor_controller.handlers.pool import Handlers
from podvisor_controller.webhooks.certificates import Certificates
from podvisor_controller.webhooks.rotation import Authorities


class HandlerAccess(Handlers):
    """A pool that keeps its own directory, and its credentials from the authority of the day."""

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        authorities: Callable[[], Authorities | None],
        *,
        is_node: Callable[[str], bool],
        life: timedelta,
    ) -> None:
        self.directory = Directory(client, namespace)
        super().__init__(
            address_of=self.directory.address_of,
            is_node=is_node,
            credentials=ControllerCredentials(authorities, life=life).current,
        )

    async def run(self) -> None:
        """Keep directory and connections in order until cancelled."""
        async with asyncio.TaskGroup() as group:
            spawn(group, self.directory.run(), name="informer-handler-pods")
            spawn(group, super().run(), name="handler-connections")


@asynccontextmanager
async def serve_handlers(
    client: KubeClient,
    certificates: Certificates,
    namespace: str,
    *,
    port: int,
    life: timedelta,
    is_node: Callable[[str], bool],
) -> AsyncIterator[HandlerAccess]:
    """Serve certificates to handlers on `port` until the block is left. The caller runs what it yields, which reaches them."""
    access = HandlerAccess(
        client, namespace, lambda: certificates.published, is_node=is_node, life=life
    )
    async with serve_identity(client, certificates, namespace, port=port, life=life):
        yield access
