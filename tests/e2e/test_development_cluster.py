"""What the product relies on in the cluster it is developed on, proven by pods that use it."""

import json
from typing import Any

import pytest

from tests.support.cluster import ROOT, Cluster, Json, on_node
from tests.support.networks import serving_pod
from tests.support.process import run
from tests.support.talk import asks, node, pod, sends_much

GUEST_IMAGE = "kubevirt/cirros-registry-disk-demo:devel"
TOOLBOX = "podvisor-dev/toolbox:latest"
CONFINED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}

pytestmark = pytest.mark.timeout(120)


def launcher_like_pod(script: str, volumes: list[Json]) -> Json:
    """A pod confined as a launcher is, with image volumes under /images."""
    mounts = [
        {"name": volume["name"], "mountPath": f"/images/{volume['name']}"} for volume in volumes
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsUser": 107,
                "runAsGroup": 107,
                "fsGroup": 107,
                "runAsNonRoot": True,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "probe",
                    "image": TOOLBOX,
                    "command": ["bash", "-ec", script],
                    "securityContext": CONFINED,
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        },
    }


def image_volume(name: str, reference: str) -> Json:
    return {"name": name, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}


def has_ended(pod: Json | None) -> bool:
    return pod is not None and pod["status"].get("phase") in ("Succeeded", "Failed")


async def output_of(cluster: Cluster, pod: Json) -> tuple[str, str]:
    """Run a pod to its end: its phase and what it printed."""
    await cluster.apply(pod)
    ended = await cluster.until("pod", "probe", has_ended, within_s=60, what="the pod has ended")
    assert ended is not None
    return ended["status"]["phase"], (await cluster.kubectl("logs", "probe")).stdout


async def test_unprivileged_pod_reads_a_disk_from_an_image_volume(cluster: Cluster) -> None:
    """uid 107 without a capability sees the guest's disk in a read-only mount of the image, pulled by its docker.io name."""
    script = """
        id -u
        grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
        head -c 4 /images/disk/disk/*.qcow2 | od -An -c
        touch /images/disk/disk/new 2>&1 || true
    """
    phase, printed = await output_of(
        cluster, launcher_like_pod(script, [image_volume("disk", GUEST_IMAGE)])
    )
    assert phase == "Succeeded", printed
    words = printed.split()
    assert words[0] == "107"
    assert words[1:9] == [
        "CapEff:", "0000000000000000", "CapBnd:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2",
    ]  # fmt: skip
    assert words[9:13] == ["Q", "F", "I", "373"]
    assert "Read-only file system" in printed


async def test_missing_image_is_reported_at_once(cluster: Cluster) -> None:
    """The registry stands in for docker.io, so an image that does not exist is a 404 and not a wait for the internet."""
    await cluster.apply(
        launcher_like_pod("true", [image_volume("disk", "kubevirt/does-not-exist:devel")])
    )

    def waits_for_image(pod: Json | None) -> bool:
        statuses: list[dict[str, Any]] = (pod or {}).get("status", {}).get("containerStatuses", [])
        return any(
            status["state"].get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")
            for status in statuses
        )

    await cluster.until("pod", "probe", waits_for_image, within_s=10, what="the pull has failed")


async def test_no_pod_reaches_etcd(cluster: Cluster) -> None:
    """etcd serves whoever connects, so nobody but the apiserver may be able to: not a pod, not its node."""
    connect = "exec 3<>/dev/tcp/172.29.1.9/2379"
    await on_node("timeout", "3", "bash", "-c", connect, node="apiserver")
    phase, printed = await output_of(
        cluster, launcher_like_pod(f"! timeout 3 bash -c '{connect}' 2>/dev/null", [])
    )
    assert phase == "Succeeded", printed
    from_node = await on_node("timeout", "3", "bash", "-c", connect, check=False)
    assert from_node.exit_code != 0


async def test_node_port_answers_the_machine(cluster: Cluster) -> None:
    """A NodePort Service is reachable from outside the cluster at the node's address."""
    answer = "HTTP/1.0 200 OK\\r\\n\\r\\nhello"
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": "web",
                        "image": TOOLBOX,
                        "command": [
                            "bash",
                            "-c",
                            f"while :; do printf '{answer}' | nc -lN 8000; done",
                        ],
                        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
                    }
                ],
            },
        }
    )
    await cluster.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=60s")
    await cluster.kubectl("expose", "pod/web", "--type=NodePort", "--port=80", "--target-port=8000")
    service = await cluster.get("service", "web")
    assert service is not None
    port = service["spec"]["ports"][0]["nodePort"]
    assert await answer_of("172.29.0.11", port) == "hello"


async def answer_of(host: str, port: int) -> str:
    """The body that an HTTP server sends, read as a person with curl would; waits until the Service's rules are there."""
    done = await run(
        "curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "-m", "30",
        f"http://{host}:{port}/",
    )  # fmt: skip
    return done.stdout


async def test_pods_and_services_have_ipv6(cluster: Cluster) -> None:
    """Where the kernel has it: an address beside the one of IPv4, a Service that asks for it, and its name; from pods and from the node."""
    if (await on_node("test", "-e", "/proc/net/if_inet6", check=False)).exit_code != 0:
        pytest.skip("the kernel has no IPv6")
    for name in ("web", "client"):
        await cluster.apply(serving_pod(name))
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "both"},
            "spec": {
                "selector": {"app": "web"},
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [
                    {"name": protocol, "protocol": protocol.upper(), "port": 80, "targetPort": 7000}
                    for protocol in ("tcp", "udp")
                ],
            },
        }
    )
    await cluster.kubectl("wait", "pod/web", "pod/client", "--for=condition=Ready", "--timeout=60s")
    web = await cluster.get("pod", "web")
    assert web is not None
    four, six = (one["ip"] for one in web["status"]["podIPs"])
    questions = [
        *asks(four, "web"),
        *asks(six, "web", ipv6=True),
        *sends_much(six, ipv6=True),
        *asks("both", "web", port=80),
        *asks("both", "web", port=80, ipv6=True),
    ]
    wrong = [
        *await pod(cluster, "client").wrong_answers(questions),
        *await node().wrong_answers(asks(six, "web", ipv6=True)),
    ]
    assert not wrong, "\n".join(wrong)


def test_requests_are_audited() -> None:
    """The audit log names who wrote what; the budgets for our own API writes are counted from it."""
    with (ROOT / ".dev/audit.log").open() as log:
        entries = [json.loads(line) for line, _ in zip(log, range(2000), strict=False)]
    assert {entry["level"] for entry in entries} == {"Metadata"}
    assert any(
        entry["verb"] == "create" and entry["objectRef"]["resource"] == "nodes" for entry in entries
    )
