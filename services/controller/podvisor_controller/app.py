"""The virt-controller process: what runs in every replica, and what only in the leading one.

Invariant: webhooks, subresources, caches and metrics go on whoever leads. Losing the lease ends reconciling within two seconds, or else
the process; the replica then stands for election again. A replica that is told to stop hands the lease back at once and
answers webhooks for a while longer, until the cluster sends it no more.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import structlog
from podvisor_common.aio.tasks import spawn
from podvisor_common.api import core
from podvisor_common.http.server import serve_http
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.leader import LeaderElection, LeadershipLost, LeadingTaskStuck
from podvisor_common.kube.resources import ObjectKey
from podvisor_common.obs.metrics import Health, observability_app
from prometheus_client import REGISTRY

from podvisor_controller.controllers import COMPONENT, Controllers
from podvisor_controller.handlers.app import HandlerAccess, serve_handlers
from podvisor_controller.settings import Settings
from podvisor_controller.subresources.app import serve_subresources
from podvisor_controller.webhooks.app import serve_webhooks
from podvisor_controller.webhooks.certificates import Certificates

LEASE = "virt-controller"

_log = structlog.get_logger(__name__)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run one replica until `stop` is set, then hand the lease back and end."""
    async with await KubeClient.from_environment(user_agent=COMPONENT) as client:
        await serve(client, settings, stop)


async def serve(client: KubeClient, settings: Settings, stop: asyncio.Event) -> None:
    """As run(), with a client of the caller's."""
    controllers = Controllers(client, settings)
    election = LeaderElection(client, settings.pod_namespace, LEASE, settings.pod_name)
    health = Health()
    health.add_readiness("caches", controllers.not_synced)
    app = observability_app(REGISTRY, health)
    async with (
        serve_http(app, port=settings.observability_port),
        served(client, settings, controllers, election, stop) as asked,
        asyncio.TaskGroup() as group,
    ):
        health.add_readiness("webhooks", asked.certificates.not_ready)
        _log.info("started", pod=settings.pod_name, launcher_image=settings.launcher_image)
        background = [
            spawn(group, controllers.watch(), name="caches"),
            spawn(group, asked.certificates.run(), name="certificates"),
            spawn(group, asked.authentication.run(), name="front proxy"),
            spawn(group, asked.handlers.run(), name="handlers"),
        ]
        leading = spawn(group, stand_for_election(election, controllers.lead), name="election")
        await stop.wait()
        leading.cancel()
        await asyncio.wait([leading])
        # Not a wait for something: the time that the node proxies take to learn that this endpoint is going.
        await asyncio.sleep(settings.drain_s)
        for task in background:
            task.cancel()


@dataclass(frozen=True, slots=True)
class Served:
    """What goes on behind the ports of a replica, to be run by whoever has opened them."""

    certificates: Certificates
    authentication: Informer[core.ConfigMap]
    handlers: HandlerAccess


@asynccontextmanager
async def served(
    client: KubeClient,
    settings: Settings,
    controllers: Controllers,
    election: LeaderElection,
    stop: asyncio.Event,
) -> AsyncIterator[Served]:
    """Serve webhooks, certificates for handlers, and subresources until the block is left. The caller runs what it yields."""
    webhooks = serve_webhooks(
        client,
        settings.pod_namespace,
        port=settings.webhook_port,
        lives=settings.certificate_lives,
        defaults=controllers.admission_defaults,
        review_eviction=controllers.evictions.review,
        leads=lambda: election.is_leader,
        is_stopping=stop.is_set,
    )
    async with (
        webhooks as certificates,
        serve_handlers(
            client,
            certificates,
            settings.pod_namespace,
            port=settings.identity_port,
            life=settings.certificate_lives.leaf,
            is_node=lambda name: controllers.caches.nodes.get(ObjectKey("", name)) is not None,
        ) as handlers,
        serve_subresources(
            client,
            certificates,
            handlers,
            port=settings.subresource_port,
            product_version=version("podvisor-controller"),
            is_stopping=stop.is_set,
        ) as authentication,
    ):
        yield Served(certificates, authentication, handlers)


async def stand_for_election(election: LeaderElection, lead: Callable[[], Awaitable[None]]) -> None:
    """Run `lead` whenever the lease is held, until cancelled. Ends the process when `lead` outlives the lease."""
    while True:
        try:
            await election.run(lead)
        except LeadingTaskStuck:
            # Another replica may be at work already: not even an orderly end may be waited for.
            _log.critical("reconciling did not end with the lease")
            os._exit(1)
        except LeadershipLost:
            _log.warning("standing for election again")
