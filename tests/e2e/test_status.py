"""What `kubectl get` and `kubectl describe` tell of machines: where one runs and since when, and why another does not."""

import asyncio
from collections import Counter

import pytest

from tests.faults.audit import ledger
from tests.perf.measure import audit_mark, writes_since
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, vm

NO_IMAGE = "podvisor/does-not-exist:devel"
NO_MACHINE_TYPE = "pc-q35-99.9"
QUIET_S = 300
HEARTBEAT_S = 60


def fine() -> Json:
    """A machine whose template has labels and annotations, and which has other ones of its own."""
    machine = vm("fine", terminationGracePeriodSeconds=1)
    machine["metadata"]["labels"] = {"whose": "the-machines"}
    machine["spec"]["template"]["metadata"] = {
        "labels": {"tier": "web"},
        "annotations": {"note": "from the template"},
    }
    return machine


def unfit() -> Json:
    return vm("unfit", nodeSelector={"no-such-label": "true"})


def noimage() -> Json:
    machine = vm("noimage")
    machine["spec"]["template"]["spec"]["volumes"][0]["containerDisk"]["image"] = NO_IMAGE
    return machine


def rejected() -> Json:
    machine = vm("rejected")
    machine["spec"]["template"]["spec"]["domain"]["machine"] = {"type": NO_MACHINE_TYPE}
    return machine


def condition(state: Json, type_: str) -> Json:
    conditions = state["status"].get("conditions", [])
    found: Json = next((one for one in conditions if one["type"] == type_), {})
    return found


async def says(cluster: Cluster, name: str, *words: str, within_s: float = 30) -> Json:
    """Wait until the machine's status is one of `words`."""

    def holds(state: Json | None) -> bool:
        return (state or {}).get("status", {}).get("printableStatus") in words

    state = await cluster.until("vm", name, holds, within_s=within_s, what=" or ".join(words))
    assert state is not None
    return state


async def columns(cluster: Cluster, kind: str, name: str) -> dict[str, str]:
    """What `kubectl get` prints of an object of which every column is filled."""
    head, row = (await cluster.kubectl("get", kind, name)).stdout.splitlines()
    return dict(zip(head.split(), row.split(), strict=True))


async def described(cluster: Cluster, kind: str, name: str) -> str:
    """What `kubectl describe` says beside the specification."""
    text = (await cluster.kubectl("describe", kind, name)).stdout
    return text[text.index("\nStatus:") :]


async def told_of(cluster: Cluster, kind: str, name: str) -> list[Json]:
    """The events about an object."""
    about = (kind, name)
    return [
        event
        for event in await cluster.events()
        if (event["regarding"]["kind"], event["regarding"]["name"]) == about
    ]


async def test_where_one_runs_and_why_others_do_not(cluster: Cluster) -> None:
    """Four machines at once; while three fail in their own ways, nobody writes about the one that runs."""
    items = [fine(), unfit(), noimage(), rejected()]
    await cluster.apply({"apiVersion": "v1", "kind": "List", "items": items})
    instance = await Machine(cluster, "fine").running()
    machine = await says(cluster, "fine", "Running")
    await check_instance(cluster, instance)
    await check_machine(cluster, machine, instance)
    await check_pod(cluster, instance)
    mark = audit_mark()
    await check_unfit(cluster)
    await check_noimage(cluster)
    await check_rejected(cluster)
    reasons = [
        event["reason"] for event in await told_of(cluster, "VirtualMachineInstance", "fine")
    ]
    assert sorted(reasons) == ["Started", "SuccessfulCreate"]
    assert ledger(mark).of([f"{cluster.namespace}/fine"]) == 0


async def pod_with_address(cluster: Cluster, name: str) -> Json:
    """The machine's pod once the kubelet has told its address, which it does after the handler has."""
    pod_name: str = (await Machine(cluster, name).pod())["metadata"]["name"]

    def holds(state: Json | None) -> bool:
        return bool((state or {}).get("status", {}).get("podIP"))

    pod = await cluster.until("pod", pod_name, holds, within_s=20, what="the pod has an address")
    assert pod is not None
    return pod


async def check_instance(cluster: Cluster, instance: Json) -> None:
    """Every field of a running instance's status."""
    status, pod = instance["status"], await pod_with_address(cluster, "fine")
    node = pod["spec"]["nodeName"]
    assert (status["nodeName"], status["activePods"]) == (node, {pod["metadata"]["uid"]: node})
    times = {
        entry["phase"]: entry["phaseTransitionTimestamp"]
        for entry in status["phaseTransitionTimestamps"]
    }
    order = [times[phase] for phase in ("Pending", "Scheduling", "Scheduled", "Running")]
    assert order == sorted(order)
    (interface,) = status["interfaces"]
    assert interface["ipAddress"] == pod["status"]["podIP"]
    assert interface["ipAddresses"][0] == interface["ipAddress"]
    assert (interface["podInterfaceName"], interface["infoSource"]) == ("eth0", "domain")
    assert (interface["queueCount"], interface["linkState"]) == (1, "up")
    volumes = {volume["name"]: volume for volume in status["volumeStatus"]}
    assert {name: v["target"] for name, v in volumes.items()} == {"root": "vda", "seed": "vdb"}
    assert min(volume["size"] for volume in volumes.values()) > 0
    assert status["currentCPUTopology"] == {"cores": 1, "sockets": 1, "threads": 1}
    assert status["machine"]["type"].startswith("pc-q35-")
    assert status["memory"]["guestAtBoot"] == status["memory"]["guestCurrent"] == "62500Ki"
    assert status["qosClass"] == pod["status"]["qosClass"]
    assert status["launcherContainerImageVersion"] == pod["spec"]["containers"][0]["image"]
    assert status["runtimeUser"] == 107
    revision = status["virtualMachineRevisionName"]
    assert await cluster.get("controllerrevision", revision) is not None
    steps = ("launcherReady", "networkReady", "disksReady", "domainStarted", "running")
    timeline = [status["startTimeline"][step] for step in steps]
    assert timeline == sorted(timeline)
    assert status["startTimeline"]["podCreated"] <= status["startTimeline"]["podScheduled"]
    assert condition(instance, "Ready")["status"] == "True"
    assert condition(instance, "LiveMigratable")["status"] == "False"


async def check_machine(cluster: Cluster, machine: Json, instance: Json) -> None:
    """The machine mirrors its instance, and both tell in their columns where and since when."""
    status, seen = machine["status"], instance["status"]
    assert (status["created"], status["ready"], status["runStrategy"]) == (True, True, "Always")
    assert status["observedGeneration"] == status["desiredGeneration"] == 1
    address = seen["interfaces"][0]["ipAddress"]
    row = await columns(cluster, "vm", "fine")
    expected = {"STATUS": "Running", "READY": "True", "NODE": seen["nodeName"], "IP": address}
    assert expected.items() <= row.items()
    assert row["AGE"]
    row = await columns(cluster, "vmi", "fine")
    expected = {"PHASE": "Running", "IP": address, "NODENAME": seen["nodeName"], "READY": "True"}
    assert expected.items() <= row.items()
    wide = (await cluster.kubectl("get", "vmi", "fine", "-o", "wide")).stdout
    assert wide.splitlines()[0].split()[-2:] == ["LIVE-MIGRATABLE", "PAUSED"]


async def check_pod(cluster: Cluster, instance: Json) -> None:
    """Labels and annotations of instance and pod are the template's and those that clients look for."""
    metadata, pod = instance["metadata"], (await Machine(cluster, "fine").pod())["metadata"]
    assert metadata["labels"] == {"tier": "web"}
    assert metadata["annotations"]["note"] == "from the template"
    assert metadata["annotations"]["kubevirt.io/vm-generation"] == "1"
    assert pod["name"].startswith("virt-launcher-fine-")
    assert pod["labels"] == {
        "tier": "web",
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": metadata["uid"],
        "vmi.kubevirt.io/id": "fine",
        "vm.kubevirt.io/name": "fine",
    }
    annotations = pod["annotations"]
    assert annotations["note"] == "from the template"
    assert annotations["kubevirt.io/domain"] == "fine"
    assert annotations["kubectl.kubernetes.io/default-container"] == "compute"
    overhead_mib = int(annotations["kubevirt.io/memory-overhead-bytes"]) >> 20
    assert instance["status"]["memory"]["memoryOverhead"] == f"{overhead_mib}Mi"


async def check_unfit(cluster: Cluster) -> None:
    """No node fits: in the scheduler's words, on machine and instance."""
    machine = await says(cluster, "unfit", "ErrorUnschedulable")
    assert condition(machine, "PodScheduled")["reason"] == "Unschedulable"
    for kind in ("vm", "vmi"):
        assert "node(s) didn't match" in await described(cluster, kind, "unfit")


async def check_noimage(cluster: Cluster) -> None:
    """An image cannot be had: which one, and of which volume."""
    machine = await says(cluster, "noimage", "ErrImagePull", "ImagePullBackOff")
    assert condition(machine, "Synchronized")["reason"] in ("ErrImagePull", "ImagePullBackOff")
    assert condition(machine, "Ready")["status"] == "False"
    for kind in ("vm", "vmi"):
        text = await described(cluster, kind, "noimage")
        assert f'Volume "root": image "{NO_IMAGE}" cannot be pulled' in text


async def check_rejected(cluster: Cluster) -> None:
    """libvirt refuses the machine again and again: in its own words, and when the next attempt is due."""
    machine = await says(cluster, "rejected", "CrashLoopBackOff", within_s=40)
    assert machine["status"]["startFailure"]["consecutiveFailCount"] >= 1
    assert machine["status"]["startFailure"]["retryAfterTimestamp"]
    synchronized = condition(machine, "Synchronized")
    assert (synchronized["status"], synchronized["reason"]) == ("False", "DomainRejected")
    assert NO_MACHINE_TYPE in synchronized["message"]
    assert NO_MACHINE_TYPE in condition(machine, "Ready")["message"]
    assert "The machine was rejected" in await described(cluster, "vm", "rejected")
    told = await told_of(cluster, "VirtualMachineInstance", "rejected")
    assert any(
        (event["type"], event["reason"]) == ("Warning", "Stopped")
        and NO_MACHINE_TYPE in event["note"]
        for event in told
    )


async def stays(cluster: Cluster, kind: str, name: str, *, for_s: float) -> None:
    """Fail as soon as the object changes."""
    versions: list[str] = []
    try:
        async with asyncio.timeout(for_s), cluster.watching(kind, name) as states:
            async for state in states:
                versions.append((state or {}).get("metadata", {}).get("resourceVersion", "gone"))
                assert len(set(versions)) == 1, f"{kind}/{name} has changed: {state}"
            raise AssertionError("the watch has ended")
    except TimeoutError:
        assert versions


@pytest.mark.long
@pytest.mark.timeout(QUIET_S + 120)
async def test_a_machine_left_alone_costs_nothing(cluster: Cluster) -> None:
    """For minutes nothing is written but leases and the node's heartbeat, and nothing about the machine at all."""
    await cluster.apply(vm("still"))
    await Machine(cluster, "still").console_shows("still login:")
    await says(cluster, "still", "Running")
    mark = audit_mark()
    await asyncio.gather(*(stays(cluster, kind, "still", for_s=QUIET_S) for kind in ("vm", "vmi")))
    assert writes_since(mark, cluster.namespace).by_call == Counter()
    of_the_cluster = {
        name.removeprefix("/"): count
        for name, count in ledger(mark).written.items()
        if name.startswith("/")
    }
    nodes = {node["metadata"]["name"] for node in await cluster.all("nodes")}
    assert of_the_cluster.keys() <= nodes
    assert max(of_the_cluster.values()) <= QUIET_S / HEARTBEAT_S + 1
