"""What a launcher pod is not allowed, read from the running processes rather than from the manifest."""

import json

from tests.support.cluster import Cluster, on_node
from tests.support.machine import Machine, vmi

SECRET_WORD = "correct-horse-battery-staple"


async def test_launcher_pod_is_powerless(cluster: Cluster) -> None:
    """uid 107, no capability, no new privileges, seccomp, read-only root, no token: for every process, QEMU included."""
    await cluster.apply(vmi("cell"))
    machine = Machine(cluster, "cell")
    # later containers are still being set up by the runtime when the guest already runs
    await machine.pod_with_console()
    processes = {
        pid: c for pid, c in (await machine.processes()).items() if not c.startswith("/pause")
    }
    assert any("qemu-system" in command for command in processes.values())
    for pid, command in processes.items():
        status = (await on_node("cat", f"/proc/{pid}/status")).stdout
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert fields["Uid"].split() == ["107"] * 4, command
        assert {
            int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        } == {0}, command
        assert fields["NoNewPrivs"].strip() == "1", command
        assert fields["Seccomp"].strip() == "2", command
    pid = next(pid for pid, command in processes.items() if "podvisor_launcher" in command)
    mounts = (await on_node("cat", f"/proc/{pid}/mounts")).stdout.splitlines()
    root = next(line.split() for line in mounts if line.split()[1] == "/")
    assert "ro" in root[3].split(",")
    assert not any("serviceaccount" in line for line in mounts)


async def test_nothing_stands_before_the_guest(cluster: Cluster) -> None:
    """No init container, no sidecar but the console log; the timeline shows every step of the start in order."""
    await cluster.apply(vmi("swift"))
    machine = Machine(cluster, "swift")
    running = await machine.running()
    spec = (await machine.pod())["spec"]
    assert "initContainers" not in spec
    assert [c["name"] for c in spec["containers"]] == ["compute", "guest-console-log"]
    timeline = running["status"]["startTimeline"]
    steps = [
        "podCreated",
        "podScheduled",
        "launcherReady",
        "networkReady",
        "domainStarted",
        "running",
    ]
    assert [timeline[step] for step in steps] == sorted(timeline[step] for step in steps)


async def test_secret_user_data_shows_nowhere(cluster: Cluster) -> None:
    """User-data of a Secret reaches the guest, and no log, event, object but the Secret, or command line."""
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "seed"},
            "stringData": {
                "userdata": f"#!/bin/sh\necho read:$(echo {SECRET_WORD} | wc -c) > /dev/ttyS0\n"
            },
        }
    )
    machine = vmi("quiet")
    machine["spec"]["volumes"][1] = {
        "name": "seed",
        "cloudInitNoCloud": {"secretRef": {"name": "seed"}},
    }
    await cluster.apply(machine)
    quiet = Machine(cluster, "quiet")
    await quiet.console_shows(rf"read:{len(SECRET_WORD) + 1}")
    pod = (await quiet.pod())["metadata"]["name"]
    places = {
        "objects": await cluster.kubectl("get", "vmi,pods,events", "-o", "yaml"),
        "compute log": await cluster.kubectl("logs", pod, "-c", "compute"),
        "handler log": await cluster.kubectl("-n", "kubevirt", "logs", "ds/virt-handler"),
        "controller log": await cluster.kubectl(
            "-n",
            "kubevirt",
            "logs",
            "-l",
            "app.kubernetes.io/component=virt-controller",
            "--tail=-1",
        ),
    }
    for place, shown in places.items():
        assert SECRET_WORD not in shown.stdout, place
    assert not any(SECRET_WORD in command for command in (await quiet.processes()).values())


async def test_sockets_answer_grpcurl(cluster: Cluster) -> None:
    """Both sockets on the node can be listed and called with grpcurl, without any file of ours."""
    await cluster.apply(vmi("curled"))
    await Machine(cluster, "curled").running()
    handler = "/run/podvisor/handler.sock"
    launcher = f"/run/podvisor/launchers/{cluster.namespace}_curled.sock"

    async def grpcurl(socket: str, *what: str) -> str:
        return (await on_node("grpcurl", "-plaintext", "-unix", socket, *what)).stdout

    assert "podvisor.handler.v1.HandlerService" in await grpcurl(handler, "list")
    assert '"curled"' in await grpcurl(handler, "podvisor.handler.v1.HandlerService/ListDomains")
    assert "SERVING" in await grpcurl(handler, "grpc.health.v1.Health/Check")
    assert "podvisor.launcher.v1.LauncherService" in await grpcurl(launcher, "list")
    assert '"contract_version": 3' in await grpcurl(
        launcher, "podvisor.launcher.v1.LauncherService/GetInfo"
    )
    described = await grpcurl(launcher, "podvisor.launcher.v1.LauncherService/GetDomainXml")
    assert json.loads(described)["xml"].startswith("<domain")
