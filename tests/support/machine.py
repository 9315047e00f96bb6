"""A virtual machine under test, with the means a person has: its console, ssh, the processes on its node."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from podvisor_controller.vmi.pod import launcher_pod_name

from tests.support.cluster import ROOT, Cluster, Json, on_node
from tests.support.process import Completed, end, run

DEMO_KEY = ROOT / "dev/demo_key"
DISK_IMAGE = "kubevirt/cirros-container-disk-demo:devel"


def user_data(hostname: str, *lines: str) -> str:
    """A cloud-config with the demo key."""
    key = DEMO_KEY.with_suffix(".pub").read_text().strip()
    return "\n".join(
        ["#cloud-config", f"hostname: {hostname}", "ssh_authorized_keys:", f"  - {key}", *lines, ""]
    )


def vmi_spec(name: str, **changes: Any) -> Json:
    """The spec of a small VirtualMachineInstance; `changes` replace top-level fields."""
    disk = {"disk": {"bus": "virtio"}}
    spec: Json = {
        "terminationGracePeriodSeconds": 5,
        "domain": {
            "resources": {"requests": {"memory": "64M"}},
            "devices": {"disks": [{"name": "root", **disk}, {"name": "seed", **disk}]},
        },
        "volumes": [
            {"name": "root", "containerDisk": {"image": DISK_IMAGE}},
            {"name": "seed", "cloudInitNoCloud": {"userData": user_data(name)}},
        ],
    }
    return spec | changes


def vmi(name: str, **changes: Any) -> Json:
    """A small v1 VirtualMachineInstance."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": vmi_spec(name, **changes),
    }


def vm(name: str, *, run_strategy: str = "Always", **changes: Any) -> Json:
    """A small v1 VirtualMachine."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"runStrategy": run_strategy, "template": {"spec": vmi_spec(name, **changes)}},
    }


def phase_is(*phases: str) -> Any:
    """A condition for Cluster.until on a VirtualMachineInstance."""
    return lambda state: state is not None and state.get("status", {}).get("phase") in phases


def gone(state: Json | None) -> bool:
    """A condition for Cluster.until: the object does not exist."""
    return state is None


def condition(state: Json | None, type_: str) -> Json:
    """The object's condition of a type, empty when it has none."""
    conditions = (state or {}).get("status", {}).get("conditions", [])
    found: Json = next((one for one in conditions if one["type"] == type_), {})
    return found


@dataclass(frozen=True, slots=True)
class Machine:
    """One VirtualMachineInstance by name."""

    cluster: Cluster
    name: str

    async def running(self, *, within_s: float = 40, not_uid: str | None = None) -> Json:
        """Wait until the instance runs; `not_uid` asks for another instance than that one."""

        def holds(state: Json | None) -> bool:
            return (
                bool(phase_is("Running")(state))
                and state is not None
                and state["metadata"]["uid"] != not_uid
            )

        state = await self.cluster.until(
            "vmi", self.name, holds, within_s=within_s, what="phase Running"
        )
        assert state is not None
        return state

    async def pod(self) -> Json:
        """The newest launcher pod of the machine."""
        pods = await self.cluster.all("pods", labels=f"vmi.kubevirt.io/id={self.name}")
        assert pods, f"{self.name} has no launcher pod"
        pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
        return pods[-1]

    async def pod_says(self, type_: str, status: str, *, within_s: float = 10) -> Json:
        """The launcher pod as soon as a condition of it says that. Ready decides whether Services lead to it."""
        pod = await self.cluster.until(
            "pod",
            (await self.pod())["metadata"]["name"],
            lambda pod: condition(pod, type_).get("status") == status,
            within_s=within_s,
            what=f"{type_}: {status}",
        )
        assert pod is not None
        return pod

    async def unplaced_pod(self) -> Json:
        """The launcher pod of an instance that fits no node, of which its status says nothing, as soon as it is there."""
        instance = await self.cluster.get("vmi", self.name)
        assert instance is not None
        pod = await self.cluster.until(
            "pod",
            launcher_pod_name(self.name, instance["metadata"]["uid"]),
            lambda state: state is not None,
            within_s=20,
            what="the pod is there",
        )
        assert pod is not None
        return pod

    @asynccontextmanager
    async def console(self) -> AsyncIterator[AsyncIterator[str]]:
        """The serial console's log as the container `guest-console-log` shows it, growing chunk by chunk."""
        pod = await self.pod_with_console()
        process = await asyncio.create_subprocess_exec(
            str(ROOT / "dev/kubectl"), "-n", self.cluster.namespace, "logs", "-f", pod, "-c", "guest-console-log",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

        async def chunks() -> AsyncIterator[str]:
            assert process.stdout is not None
            while chunk := await process.stdout.read(1 << 16):
                yield chunk.decode(errors="replace")

        try:
            yield chunks()
        finally:
            await end(process)

    async def pod_with_console(self) -> str:
        """The name of the launcher pod once its console can be read: the guest may run before the kubelet says so."""
        await self.running()
        pod: str = (await self.pod())["metadata"]["name"]

        def readable(state: Json | None) -> bool:
            containers = (state or {}).get("status", {}).get("containerStatuses", [])
            return any(c["name"] == "guest-console-log" and c["started"] for c in containers)

        await self.cluster.until(
            "pod", pod, readable, within_s=20, what="guest-console-log has started"
        )
        return pod

    async def console_shows(self, pattern: str, *, within_s: float = 60) -> str:
        """Follow the console until `pattern` (a regular expression) has appeared; return all text so far."""
        text = ""
        try:
            async with asyncio.timeout(within_s), self.console() as chunks:
                async for chunk in chunks:
                    text += chunk
                    if re.search(pattern, text):
                        return text
        except TimeoutError:
            pass
        scene = await self.cluster.scene("vmi", self.name)
        raise AssertionError(f"console of {self.name} never showed {pattern!r}:\n{text}\n{scene}")

    async def expose_ssh(self) -> int:
        """Make a NodePort Service for the machine's ssh port and return the port."""
        await self.cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": f"{self.name}-ssh"},
                "spec": {
                    "type": "NodePort",
                    "selector": {"vmi.kubevirt.io/id": self.name},
                    "ports": [{"name": "ssh", "port": 22}],
                },
            }
        )
        service = await self.cluster.get("service", f"{self.name}-ssh")
        assert service is not None
        port: int = service["spec"]["ports"][0]["nodePort"]
        return port

    async def ssh(self, command: str, *, check: bool = True, timeout_s: float = 30) -> Completed:
        """Run a command in the guest through the machine's NodePort Service, with the demo key."""
        return await run(*await self._ssh(command), check=check, timeout_s=timeout_s)

    @asynccontextmanager
    async def prints(self, command: str) -> AsyncIterator[AsyncIterator[str]]:
        """The lines that a command in the guest prints, as they come. A command that prints no more lives on in the guest."""
        process = await asyncio.create_subprocess_exec(
            *await self._ssh(command),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip

        async def lines() -> AsyncIterator[str]:
            assert process.stdout is not None
            while line := await process.stdout.readline():
                yield line.decode(errors="replace").rstrip("\n")

        try:
            yield lines()
        finally:
            await end(process)

    async def _ssh(self, command: str) -> list[str]:
        service = await self.cluster.get("service", f"{self.name}-ssh")
        if service is not None:
            port = service["spec"]["ports"][0]["nodePort"]
        else:
            port = await self.expose_ssh()
            # A Service leads to it only then, and each node learns of that a moment later: hence the attempts.
            await self.pod_says("Ready", "True", within_s=30)
        key = private_key()
        return [
            "ssh", "-i", key, "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ConnectionAttempts=10",
            f"root@{await node_address()}", command,
        ]  # fmt: skip

    async def uptime_s(self) -> float:
        """Seconds since the guest booted, by its own clock."""
        return float((await self.ssh("cat /proc/uptime")).stdout.split()[0])

    async def evict(self, *, dry_run: bool = False) -> Completed:
        """Ask for the eviction of the launcher pod."""
        pod = await self.pod()
        return await evict(self.cluster, pod["metadata"]["name"], dry_run=dry_run)

    async def processes(self) -> dict[int, str]:
        """The node's processes of the launcher pod: pid to command line."""
        return await pod_processes((await self.pod())["metadata"]["uid"])

    async def kill(self, pattern: str, signal: str = "KILL") -> int:
        """Send a signal to the one process of the pod whose command line contains `pattern`; return its pid."""
        found = [pid for pid, command in (await self.processes()).items() if pattern in command]
        assert len(found) == 1, (
            f"{len(found)} processes match {pattern!r}: {await self.processes()}"
        )
        await on_node("kill", f"-{signal}", str(found[0]))
        return found[0]


async def evict(cluster: Cluster, pod: str, *, dry_run: bool = False) -> Completed:
    """Ask for the eviction of a pod, as a drain does. What the API server answers is the caller's to judge."""
    eviction: Json = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": cluster.namespace},
    }
    if dry_run:
        eviction["deleteOptions"] = {"dryRun": ["All"]}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction"
    return await cluster.kubectl(
        "create", "--raw", path, "-f", "-", stdin=json.dumps(eviction), check=False
    )


async def pod_processes(uid: str, *, node: str = "node1") -> dict[int, str]:
    """A node's processes of the pod with that uid: pid to command line."""
    listing = await on_node(
        "sh", "-c",
        f"for p in $(grep -lsE 'pod({uid}|{uid.replace('-', '_')})' /proc/[0-9]*/cgroup | cut -d/ -f3);"
        " do printf '%s ' $p; tr '\\0' ' ' < /proc/$p/cmdline; echo; done",
        node=node,
    )  # fmt: skip
    lines = (line.split(" ", 1) for line in listing.stdout.splitlines() if " " in line)
    return {int(pid): command.strip() for pid, command in lines}


async def node_address(node: str = "node1") -> str:
    """The address at which the host reaches a node's NodePorts: the first of its address families."""
    state = await Cluster("default").get("node", node)
    assert state is not None, f"there is no {node}"
    addresses = state["status"]["addresses"]
    return str(next(one["address"] for one in addresses if one["type"] == "InternalIP"))


def private_key() -> str:
    """The file of the demo key, as ssh takes it."""
    # git does not keep the mode that ssh insists on
    os.chmod(DEMO_KEY, 0o600)
    return str(DEMO_KEY)
