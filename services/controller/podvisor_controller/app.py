"""The virt-controller process: what runs in every replica, and what only in the leading one.

Invariant: webhooks, caches and metrics go on whoever leads. Losing the lease ends reconciling within two seconds, or else
the process; the replica then stands for election again.
"""

import asyncio
import os

import structlog
from podvisor_common.aio.tasks import spawn
from podvisor_common.http.server import serve_http
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.leader import LeaderElection, LeadershipLost, LeadingTaskStuck
from podvisor_common.obs.metrics import Health, observability_app
from prometheus_client import REGISTRY

from podvisor_controller.controllers import COMPONENT, Controllers
from podvisor_controller.settings import Settings
from podvisor_controller.webhooks.app import serve_webhooks

LEASE = "virt-controller"

_log = structlog.get_logger(__name__)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one replica until `stop` is set, then hand the lease back and end."""
    async with await KubeClient.from_environment(user_agent=COMPONENT) as client:
        await serve(client, settings, stop)


async def serve(client: KubeClient, settings: Settings, stop: asyncio.Event) -> None:
    """As run(), with a client of the caller's."""
    controllers = Controllers(client, settings)
    health = Health()
    health.add_readiness("caches", controllers.not_synced)
    app = observability_app(REGISTRY, health)
    webhooks = serve_webhooks(
        client,
        settings.pod_namespace,
        port=settings.webhook_port,
        defaults=controllers.admission_defaults,
    )
    async with (
        serve_http(app, port=settings.observability_port),
        webhooks as certificates,
        asyncio.TaskGroup() as group,
    ):
        health.add_readiness("webhooks", certificates.not_ready)
        _log.info("started", pod=settings.pod_name, launcher_image=settings.launcher_image)
        background = [
            spawn(group, controllers.watch(), name="caches"),
            spawn(group, certificates.run(), name="certificates"),
        ]
        leading = spawn(group, _stand_for_election(client, settings, controllers), name="election")
        await stop.wait()
        leading.cancel()
        await asyncio.wait([leading])
        for task in background:
            task.cancel()


async def _stand_for_election(
    client: KubeClient, settings: Settings, controllers: Controllers
) -> None:
    while True:
        election = LeaderElection(client, settings.pod_namespace, LEASE, settings.pod_name)
        try:
            await election.run(controllers.lead)
        except LeadingTaskStuck:
            # Another replica may be at work already: not even an orderly end may be waited for.
            _log.critical("reconciling did not end with the lease")
            os._exit(1)
        except LeadershipLost:
            _log.warning("standing for election again", pod=settings.pod_name)
