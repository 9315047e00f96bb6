"""The API server goes away for everybody: users, the kubelet, the rest of the cluster and podvisor."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.faults.replicas import CONTROLLER_PODS, HANDLER_PODS, INSTALL
from tests.perf.measure import AUDIT_LOG, OURS, READING
from tests.support.cluster import ROOT, Cluster
from tests.support.process import run

_CONTAINER = "podvisor-apiserver-1"
# From the start of its process until it answers.
BACK_WITHIN_S = 60.0


@dataclass(slots=True)
class Outage:
    """When nobody was answered, in seconds as of time.time()."""

    began_s: float = field(default_factory=time.time)
    back_s: float = 0.0


@asynccontextmanager
async def api_server_away() -> AsyncIterator[Outage]:
    """The API server's process is dead for the body; then it is started again and answers."""
    await _docker("kill", _CONTAINER)
    outage = Outage()
    try:
        yield outage
    finally:
        await _docker("start", _CONTAINER)
        await _answers()
        outage.back_s = time.time()


async def _answers() -> None:
    """Ask until it is ready. Each attempt costs the time of a process, which is pause enough."""
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            done = await Cluster("default").kubectl("get", "--raw=/readyz", check=False)
            if done.exit_code == 0:
                return


async def _docker(*args: str) -> None:
    await run("bash", "-c", f". {ROOT}/dev/env && docker {' '.join(args)}", timeout_s=60)


async def restarts() -> dict[str, int]:
    """How often the containers of each of podvisor's pods were started again."""
    found = {}
    for selector in (CONTROLLER_PODS, HANDLER_PODS):
        for pod in await INSTALL.all("pods", *selector):
            statuses = pod["status"]["containerStatuses"]
            found[pod["metadata"]["name"]] = sum(each["restartCount"] for each in statuses)
    return found


@dataclass(slots=True)
class Ledger:
    """What podvisor's accounts asked for, by the API server's audit log."""

    # By `account verb resource`, events and leases apart.
    writes: Counter[str] = field(default_factory=Counter)
    # The same, by namespace/name of what was written.
    written: Counter[str] = field(default_factory=Counter)
    events: int = 0
    lists: Counter[str] = field(default_factory=Counter)  # by `pod path`

    def of(self, names: Iterable[str]) -> int:
        """Writes about objects of these names."""
        return sum(self.written[name] for name in names)


def ledger(mark: int) -> Ledger:
    """All that was answered since audit_mark() gave `mark`."""
    found = Ledger()
    with AUDIT_LOG.open("rb") as log:
        log.seek(mark)
        for line in log:
            if not line.endswith(b"\n"):
                break
            entry = json.loads(line)
            account = entry["user"]["username"].rsplit(":", 1)[-1]
            if account not in OURS or entry["stage"] != "ResponseComplete":
                continue
            if "dryRun=All" in entry["requestURI"]:
                continue
            target = entry.get("objectRef", {})
            resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
            if entry["verb"] == "list" and "continue=" not in entry["requestURI"]:
                pod = entry["user"]["extra"]["authentication.kubernetes.io/pod-name"][0]
                path = entry["requestURI"].partition("?")[0]
                found.lists[f"{pod} {path}"] += 1
            if entry["verb"] in READING or resource == "leases":
                continue
            if resource == "events":
                found.events += 1
                continue
            found.writes[f"{account} {entry['verb']} {resource}"] += 1
            found.written[f"{target.get('namespace', '')}/{target.get('name', '')}"] += 1
    return found
