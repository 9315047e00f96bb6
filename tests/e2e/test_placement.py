"""Where a machine's pod may run is the manifest's to say; an eviction ends the guest or, when so asked, waits for somebody."""

from typing import Any

from tests.faults.guest import booted, counting_vm, counting_vmi, lived_on, witness_of
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, condition, evict, gone, phase_is, vm, vmi

# No node has it: the pod can be looked at, and no guest is started.
NOWHERE = {"podvisor.test/nowhere": "true"}
AFFINITY = {
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 7,
                "podAffinityTerm": {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchLabels": {"app": "placed"}},
                },
            }
        ]
    },
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {
                    "matchExpressions": [
                        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
                    ]
                }
            ]
        }
    },
}
SPREAD = [
    {
        "maxSkew": 2,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "placed"}},
    }
]
TOLERATION = {"key": "dedicated", "operator": "Equal", "value": "vms", "effect": "NoSchedule"}
DNS = {
    "nameservers": ["192.0.2.53"],
    "searches": ["shop.example"],
    "options": [{"name": "ndots", "value": "2"}],
}


def covers(wanted: Any, found: Any) -> bool:
    """Whether `found` says what `wanted` does; what the API server filled in does not matter."""
    if isinstance(wanted, dict):
        return all(key in found and covers(value, found[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return len(wanted) == len(found) and all(map(covers, wanted, found))
    return bool(wanted == found)


async def test_the_pod_gets_what_the_manifest_says(cluster: Cluster) -> None:
    """Node selector, affinity, tolerations, spreading, priority, scheduler, resolver and names are the pod's."""
    priority = f"{cluster.namespace}-high"
    await cluster.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": priority},
            "value": 1000,
        }
    )
    copied: Json = {
        "affinity": AFFINITY,
        "topologySpreadConstraints": SPREAD,
        "schedulerName": "nobody",
        "priorityClassName": priority,
        "dnsPolicy": "None",
        "dnsConfig": DNS,
        "hostname": "desk",
        "subdomain": "office",
    }
    try:
        await cluster.apply(vmi("placed", nodeSelector=NOWHERE, tolerations=[TOLERATION], **copied))
        spec = (await Machine(cluster, "placed").unplaced_pod())["spec"]
    finally:
        await cluster.kubectl("delete", "priorityclass", priority)
    differing = {
        key: spec.get(key) for key, value in copied.items() if not covers(value, spec.get(key))
    }
    assert differing == {}
    assert NOWHERE.items() <= spec["nodeSelector"].items()
    assert TOLERATION in spec["tolerations"]
    assert spec["priority"] == 1000
    assert "nodeName" not in spec


async def test_a_machine_that_fits_nowhere_says_so(cluster: Cluster) -> None:
    """The scheduler's complaint is the machine's status; the machine goes as any other."""
    await cluster.apply(vm("misfit", nodeSelector=NOWHERE))
    state = await cluster.until(
        "vm",
        "misfit",
        lambda one: (one or {}).get("status", {}).get("printableStatus") == "ErrorUnschedulable",
        within_s=30,
        what="ErrorUnschedulable",
    )
    assert condition(state, "PodScheduled")["status"] == "False"
    await cluster.kubectl("delete", "vm", "misfit", "--timeout=20s")
    assert await cluster.all("pods") == []


async def test_an_evicted_machine_starts_anew(cluster: Cluster) -> None:
    """Without a strategy the guest is shut down as its pod goes, and its machine gets another one."""
    await cluster.apply(counting_vm("drained"))
    machine = Machine(cluster, "drained")
    before = await machine.running()
    pod = await machine.pod()
    evicted = await machine.evict()
    assert evicted.exit_code == 0, evicted.stderr
    await cluster.until("pod", pod["metadata"]["name"], gone, within_s=60, what="the pod is gone")
    after = await machine.running(not_uid=before["metadata"]["uid"], within_s=60)
    assert "evacuationNodeName" not in after["status"]


async def test_external_strategy_waits_for_somebody(cluster: Cluster) -> None:
    """An eviction is refused so that a drain tries again, and the status says which node is to be left."""
    machine = await booted(cluster, counting_vmi("guarded", evictionStrategy="External"))
    before = await witness_of(machine)
    node = (await machine.pod())["spec"]["nodeName"]
    text = f'Eviction triggered evacuation of VMI "{cluster.namespace}/guarded"'

    drained = await cluster.kubectl(
        "drain", node, "--dry-run=server", "--pod-selector=vmi.kubevirt.io/id=guarded",
        "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=8s",
        check=False,
    )  # fmt: skip
    assert text in drained.stdout + drained.stderr
    rehearsed = await machine.evict(dry_run=True)
    assert text in rehearsed.stderr
    state = await cluster.get("vmi", "guarded")
    assert state is not None
    assert "evacuationNodeName" not in state["status"]

    for words in (text, f"Evacuation in progress: {text}"):
        refused = await machine.evict()
        assert "TooManyRequests" in refused.stderr
        assert f"denied the request: {words}" in refused.stderr
    marked = await cluster.until(
        "vmi",
        "guarded",
        lambda one: condition(one, "EvictionRequested").get("status") == "True",
        within_s=10,
        what="the condition tells of the eviction",
    )
    assert marked is not None
    assert marked["status"]["evacuationNodeName"] == node
    await lived_on(machine, before)

    # Whoever watches has brought the work elsewhere, and ends the guest.
    await cluster.kubectl("delete", "vmi", "guarded", "--timeout=40s")
    assert await cluster.all("pods") == []


async def test_a_guest_that_has_ended_stands_in_nobodys_way(cluster: Cluster) -> None:
    """The pod of an ended guest may be evicted, whatever the strategy."""
    machine = await booted(cluster, counting_vmi("done", evictionStrategy="External"))
    pod = (await machine.pod())["metadata"]["name"]
    await machine.ssh("poweroff", check=False)
    await cluster.until("vmi", "done", phase_is("Succeeded"), within_s=40, what="the guest ended")
    if await cluster.get("pod", pod) is not None:
        evicted = await machine.evict()
        assert evicted.exit_code == 0, evicted.stderr


async def test_pods_without_a_guest_are_evicted_as_ever(cluster: Cluster) -> None:
    """Nothing is asked about a pod without a launcher's name, and one that only has the name may go."""
    for name in ("worker", "virt-launcher-impostor"):
        await cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name},
                "spec": {
                    "nodeSelector": NOWHERE,
                    "containers": [{"name": "idle", "image": "podvisor-dev/toolbox:latest"}],
                },
            }
        )
        evicted = await evict(cluster, name)
        assert evicted.exit_code == 0, evicted.stderr
        await cluster.until("pod", name, gone, within_s=20, what="the pod is gone")
