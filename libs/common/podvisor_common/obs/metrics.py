"""The observability endpoint of a service: /metrics, /healthz, /readyz.

Liveness asks only whether the event loop answers (and what the service registers as fatal);
readiness asks every registered check. Neither may call the API server: a pod that is restarted
because the control plane is away helps nobody.
"""

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Check = Callable[[], str | None]
"""Returns None when all is well, else a sentence that says what is missing. Must be quick and must
not wait.
"""


def new_registry() -> CollectorRegistry:
    """A registry of its own with the process's memory, descriptors and garbage collection."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class Health:
    """The named checks behind /healthz (alive) and /readyz (ready)."""

    def __init__(self) -> None:
        self._alive: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def add_liveness(self, name: str, check: Check) -> None:
        """Failing this check has the kubelet restart the container: only for what a restart heals."""
        self._alive[name] = check

    def add_readiness(self, name: str, check: Check) -> None:
        """Failing this check takes the pod out of its Service."""
        self._ready[name] = check

    def not_alive(self) -> dict[str, str]:
        return _failures(self._alive)

    def not_ready(self) -> dict[str, str]:
        return _failures({**self._alive, **self._ready})


def observability_app(registry: CollectorRegistry, health: Health) -> web.Application:
    """The aiohttp application for the metrics port."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def healthz(_: web.Request) -> web.Response:
        return _verdict(health.not_alive())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(health.not_ready())

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app


def _failures(checks: Mapping[str, Check]) -> dict[str, str]:
    return {name: problem for name, check in checks.items() if (problem := check()) is not None}


def _verdict(failures: Mapping[str, str]) -> web.Response:
    if not failures:
        return web.Response(text="ok\n")
    lines = "".join(f"{name}: {problem}\n" for name, problem in failures.items())
    return web.Response(status=503, text=lines)
