"""What a failed case leaves behind for whoever looks into it: logs, events, objects, domain XML, processes, the history.

Invariant: collects only; never raises because something is missing, since something is broken already.
"""

import re
import shutil
from pathlib import Path

from tests.support.cluster import ROOT, Cluster, on_node
from tests.support.process import run

ARTEFACTS = ROOT / ".dev/artefacts"

_NODE_LOOKS = {
    "processes.txt": "ps -eo pid,ppid,user,stat,lstart,etimes,args",
    "domains.json": "grpcurl -plaintext -unix /run/podvisor/handler.sock podvisor.handler.v1.HandlerService/ListDomains",
    "network.txt": "ip -br addr; nft list ruleset; ls -l /run/netns /run/podvisor/launchers",
    "pods-tree.txt": "ls -l /var/lib/kubelet/pods",
}
_OBJECTS = "virtualmachines,virtualmachineinstances,pods,persistentvolumeclaims"


def directory_of(test: str) -> Path:
    """The directory for the artefacts of a test."""
    directory = ARTEFACTS / re.sub(r"[^A-Za-z0-9.-]+", "_", test).strip("_")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def forget_old() -> None:
    """Remove what earlier runs left."""
    shutil.rmtree(ARTEFACTS, ignore_errors=True)


async def collect(cluster: Cluster, directory: Path) -> None:
    """Write down the scene."""

    async def write(name: str, *command: str) -> None:
        try:
            done = await run(*command, check=False, timeout_s=20)
        except TimeoutError:
            (directory / name).write_text("no answer within 20 s\n")
            return
        (directory / name).write_text(done.stdout + done.stderr)

    kubectl = str(ROOT / "dev/kubectl")
    ours = (kubectl, "-n", cluster.namespace)
    await write("objects.yaml", *ours, "get", _OBJECTS, "-o", "yaml")
    await write(
        "events.txt",
        *ours,
        "get",
        "events.events.k8s.io",
        "--sort-by",
        ".metadata.creationTimestamp",
    )
    await write("nodes.yaml", kubectl, "get", "nodes", "-o", "yaml")
    for container in ("compute", "guest-console-log"):
        await write(
            f"launchers-{container}.log", *ours, "logs", "-l", "kubevirt.io=virt-launcher",
            "-c", container, "--prefix", "--tail=-1", "--timestamps",
        )  # fmt: skip
    for component in ("virt-handler", "virt-controller"):
        logs = (kubectl, "-n", "kubevirt", "logs", "-l", f"app.kubernetes.io/component={component}")
        await write(f"{component}.log", *logs, "--prefix", "--tail=2000", "--timestamps")
        await write(f"{component}-previous.log", *logs, "--prefix", "--tail=2000", "--previous")
    for name, look in _NODE_LOOKS.items():
        await write(name, str(ROOT / "dev/node"), "node1", "sh", "-c", look)
    for name in await _links(cluster):
        await write(
            f"{name}.xml.json", str(ROOT / "dev/node"), "node1", "grpcurl", "-plaintext", "-max-time", "5",
            "-unix", f"/run/podvisor/launchers/{name}",
            "podvisor.launcher.v1.LauncherService/GetDomainXml",
        )  # fmt: skip


async def _links(cluster: Cluster) -> list[str]:
    listing = await on_node(
        "sh", "-c", f"cd /run/podvisor/launchers && ls -d {cluster.namespace}_*", check=False
    )
    return listing.stdout.split()
