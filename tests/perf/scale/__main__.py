"""What many machines cost the control plane: create all, wait until all run, stay a while, delete all.

    python -m tests.perf.scale [--vmis 1000] [--nodes 5] [--profile DIRECTORY] [--out FILE.json]

The controller of this checkout takes the lease over from the installed one for the run; the installed replicas go on
answering webhooks, as followers. Needs a development cluster with podvisor, and to be root. Nothing of it stays.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from podvisor_common.kube.client import KubeClient

from tests.perf import measure
from tests.perf.scale.load import Load
from tests.perf.scale.node import LEASE_NAMESPACE
from tests.perf.scale.processes import (
    INSTALL,
    Service,
    start_controller,
    start_handler,
    start_node,
)
from tests.perf.scale.report import Run, figures, table
from tests.support.cluster import ROOT, namespace
from tests.support.process import run as run_command

IDENTITY = "scale-test"
LEASE = "virt-controller"
# The installed leader looks at its lease every 5 to 6 s.
STAND_DOWN_S = 8.0
SETTLE_S = 5.0
IDLE_S = 10.0


async def take_lease() -> None:
    """Make the next leader the controller under test, and wait until the installed leader has noticed."""
    patch = {"spec": {"holderIdentity": IDENTITY, "leaseDurationSeconds": int(STAND_DOWN_S) + 30}}
    await INSTALL.kubectl("patch", "lease", LEASE, "--type=merge", "-p", json.dumps(patch))
    await asyncio.sleep(STAND_DOWN_S)


async def leading(controller: Service) -> None:
    """Wait until the controller under test leads."""
    async with asyncio.timeout(30):
        while True:
            metrics = await controller.metrics()
            if any(metrics.get("leader_election_master_status", {}).values()):
                return
            await asyncio.sleep(0.2)


@asynccontextmanager
async def fleet(vmis: int, nodes: int, profile: str) -> AsyncIterator[Run]:
    """Fake nodes, their handlers and a leading controller, all ready."""
    names = [f"scale-{number}" for number in range(nodes)]
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pvs-")))
        stack.push_async_callback(_forget_nodes, names)
        run = Run(vmis, names)
        for name in names:
            run.nodes.append(await start_node(name, directory / name))
            stack.push_async_callback(run.nodes[-1].stop)
        await asyncio.gather(*(_registered(name) for name in names))
        for name in names:
            # One profiled handler is enough, and the others keep their pace.
            file = f"{profile}/handler.prof" if profile and name == names[0] else ""
            run.handlers.append(await start_handler(name, directory / name, file))
        await take_lease()
        run.controller = await start_controller(
            directory, IDENTITY, f"{profile}/controller.prof" if profile else ""
        )
        stack.push_async_callback(_stop_all, run)
        await asyncio.gather(*(service.ready() for service in run.services))
        await leading(run.controller)
        await asyncio.sleep(SETTLE_S)
        yield run


async def _registered(name: str) -> None:
    await INSTALL.until("node", name, lambda node: node is not None, within_s=30, what="there")


async def _stop_all(run: Run) -> None:
    results = await asyncio.gather(*(service.stop() for service in run.services))
    run.loops = dict(zip([s.name for s in run.services], results, strict=True))


async def _forget_nodes(names: list[str]) -> None:
    await INSTALL.kubectl("delete", "node", "--ignore-not-found", "--wait=false", *names)
    await INSTALL.kubectl("-n", LEASE_NAMESPACE, "delete", "lease", "--ignore-not-found", *names)


async def _server_pids() -> dict[str, int]:
    """The cluster's API server and etcd, whose processes this host sees."""
    found = {}
    for program, service in (("kube-apiserver", "apiserver"), ("etcd", "etcd")):
        look = f". {ROOT}/dev/env && docker inspect -f '{{{{.State.Pid}}}}' podvisor-{service}-1"
        found[program] = int((await run_command("bash", "-c", look)).stdout)
    return found


async def drive(run: Run, namespace_name: str) -> None:
    """The run itself; leaves its marks in `run`."""
    machines = [f"m{number:05}" for number in range(run.vmis)]
    servers = await _server_pids()

    async def mark(moment: str) -> None:
        for service in run.services:
            service.mark(moment)
        run.servers_cpu_s[moment] = {n: measure.cpu_s(pid) for n, pid in servers.items()}
        run.at[moment] = (time.monotonic(), time.time())
        run.audit_at[moment] = measure.audit_mark()
        print(f"» {moment}", flush=True)

    os.environ["KUBECONFIG"] = str(ROOT / ".dev/kubeconfig")
    async with await KubeClient.from_environment(user_agent="scale-test") as client:
        load = run.load = Load(client, namespace_name, run.node_names)
        watching = asyncio.create_task(load.run(), name="load")
        try:
            await mark("empty")
            within_s = 60 + 0.3 * run.vmis
            await _unless(watching, load.create(machines, within_s=within_s))
            await mark("running")
            await asyncio.sleep(SETTLE_S)
            await mark("settled")
            await asyncio.sleep(IDLE_S)
            await mark("idled")
            run.metrics["idled"] = {s.name: await s.metrics() for s in run.services}
            await _unless(watching, load.delete(machines, within_s=within_s))
            await mark("gone")
            run.metrics["gone"] = {s.name: await s.metrics() for s in run.services}
            await asyncio.sleep(SETTLE_S)
            await mark("end")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    spans = (
        ("start", "empty", "settled"),
        ("idle", "settled", "idled"),
        ("deletion", "idled", "end"),
    )
    for phase, begin, _ in spans:
        run.writes[phase] = measure.writes_since(run.audit_at[begin], namespace_name)
    # What came later belongs to the later phase.
    run.writes["start"].by_call.subtract(run.writes["idle"].by_call)
    run.writes["idle"].by_call.subtract(run.writes["deletion"].by_call)


async def _unless(watching: asyncio.Task[None], work: Any) -> None:
    """Do the work; fail at once when the watching does."""
    working = asyncio.ensure_future(work)
    await asyncio.wait({watching, working}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        watching.result()
    await working


async def measured(vmis: int, nodes: int, profile: str = "") -> Run:
    """One whole run."""
    name = f"perf-scale-{int(time.time())}"
    async with namespace(name), fleet(vmis, nodes, profile) as run:
        await drive(run, name)
    return run


async def main() -> None:
    """Parse the arguments, measure, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vmis", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument(
        "--profile", default="", help="directory for cProfiles of controller and handler"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = await measured(options.vmis, options.nodes, options.profile)
    print(table(run))
    if options.out:
        content = {figure.key: figure.as_json() for figure in figures(run)}
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
