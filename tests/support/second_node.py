"""The development cluster's second node: brought up for a test, cut off, killed, and taken away again with all it had.

Invariant: what is done to its container is done by name; the cluster is left with its first node alone.
"""

from collections.abc import Callable

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.process import Completed, run

NODE = "node2"
CONTAINER = f"podvisor-{NODE}-1"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_VOLUMES = f"podvisor_{NODE}-containerd podvisor_{NODE}-kubelet"
_CLUSTER = Cluster("kubevirt")


async def bring_up() -> None:
    """Start it, and wait until machines can be started there."""
    (ROOT / f".dev/{NODE}").mkdir(exist_ok=True)
    await _docker(f"{_COMPOSE} up --detach --no-deps --wait --wait-timeout 120 {NODE}")
    await until_schedulable(within_s=120)


async def take_away() -> None:
    """Remove it and all it had, in whatever state it is."""
    await _docker(f"{_COMPOSE} rm --force --stop {NODE} && docker volume rm --force {_VOLUMES}")
    await _CLUSTER.kubectl("delete", "node", NODE, "--ignore-not-found")
    await _docker(f"rm -rf {ROOT}/.dev/{NODE}")


async def pause() -> None:
    """Nothing on the node goes on, and nobody hears of it."""
    await _docker(f"docker pause {CONTAINER}")


async def resume() -> None:
    """All goes on where it was. One that is not paused is left alone."""
    await _docker(f"docker unpause {CONTAINER} 2>/dev/null || true")


async def switch_off() -> None:
    """Everything on the node is dead at once."""
    await _docker(f"docker kill {CONTAINER}")


async def switch_on() -> None:
    """The node boots with the disks it had."""
    await _docker(f"docker start {CONTAINER}")


async def take_out_of_service() -> None:
    """What an administrator does who has made sure that the node is off."""
    await _CLUSTER.kubectl("taint", "node", NODE, f"{OUT_OF_SERVICE}=nodeshutdown:NoExecute")


async def take_into_service() -> None:
    """Undo that."""
    await _CLUSTER.kubectl("taint", "node", NODE, f"{OUT_OF_SERVICE}-")


async def until_ready_is(status: str, *, within_s: float) -> None:
    """Wait until the node's condition Ready has that status."""
    what = f"Ready is {status}"
    await _CLUSTER.until("node", NODE, _ready_is(status), within_s=within_s, what=what)


async def until_schedulable(*, within_s: float) -> None:
    """Wait until the node is ready and its handler has said that it takes machines."""

    def holds(state: Json | None) -> bool:
        labels = (state or {}).get("metadata", {}).get("labels", {})
        return _ready_is("True")(state) and labels.get("kubevirt.io/schedulable") == "true"

    await _CLUSTER.until("node", NODE, holds, within_s=within_s, what="it takes machines")


def _ready_is(status: str) -> Callable[[Json | None], bool]:
    def holds(state: Json | None) -> bool:
        conditions = (state or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == status for c in conditions)

    return holds


_COMPOSE = f"docker compose --project-directory {ROOT} --file {ROOT}/docker-compose.yml --profile two-nodes"


async def _docker(script: str) -> Completed:
    return await run("bash", "-c", f"set -e; . {ROOT}/dev/env; {script}", timeout_s=180)
