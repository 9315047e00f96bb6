"""When a machine runs: run strategies, requests in its status, edits while it runs, and a machine without its owner."""

import json
from collections.abc import Callable
from typing import Any

from podvisor_common.api.v1.names import UNPAUSED_CONDITION

from tests.faults.guest import booted, counting_vm, lived_on, witness_of
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, condition, gone, vm

START = {"action": "Start"}


def stop(instance: Json) -> Json:
    return {"action": "Stop", "uid": instance["metadata"]["uid"]}


async def ask(cluster: Cluster, name: str, *requests: Json) -> None:
    """Put requests into the machine's status, as the verbs will."""
    patch = json.dumps({"status": {"stateChangeRequests": requests}})
    await cluster.kubectl("patch", "vm", name, "--subresource=status", "--type=merge", "-p", patch)


async def edit(cluster: Cluster, name: str, **spec: Any) -> None:
    patch = json.dumps({"spec": spec})
    await cluster.kubectl("patch", "vm", name, "--type=merge", "-p", patch)


async def says(cluster: Cluster, name: str, word: str, *, within_s: float = 40) -> Json:
    """Wait until the machine's status says so and no request is left."""

    def holds(state: Json | None) -> bool:
        status = (state or {}).get("status", {})
        return status.get("printableStatus") == word and not status.get("stateChangeRequests")

    state = await cluster.until("vm", name, holds, within_s=within_s, what=f"{word}, no request")
    assert state is not None
    return state


async def stops(cluster: Cluster, name: str) -> None:
    await cluster.until("vmi", name, gone, within_s=30, what="the instance is gone")
    await says(cluster, name, "Stopped", within_s=10)
    assert await cluster.all("pods", labels=f"vmi.kubevirt.io/id={name}") == []


async def endpoints(
    cluster: Cluster, service: str, holds: Callable[[dict[str, bool]], bool]
) -> dict[str, bool]:
    """The addresses behind a Service, and which of them are ready, once that holds."""

    def found(state: Json | None) -> dict[str, bool]:
        subsets = (state or {}).get("subsets") or [{}]
        kinds = (("addresses", True), ("notReadyAddresses", False))
        return {each["ip"]: is_ready for key, is_ready in kinds for each in subsets[0].get(key, ())}

    state = await cluster.until(
        "endpoints", service, lambda state: holds(found(state)), within_s=10, what="endpoints"
    )
    return found(state)


async def test_manual_starts_and_stops_by_request(cluster: Cluster) -> None:
    """runStrategy Manual does nothing by itself; a request to stop another instance is dropped."""
    await cluster.apply(vm("manual", run_strategy="Manual", terminationGracePeriodSeconds=1))
    await says(cluster, "manual", "Stopped")
    assert await cluster.get("vmi", "manual") is None
    await ask(cluster, "manual", START)
    machine = Machine(cluster, "manual")
    first = await machine.running()
    state = await says(cluster, "manual", "Running")
    assert state["status"]["runStrategy"] == "Manual"
    await ask(cluster, "manual", {"action": "Stop", "uid": "of-another"})
    await says(cluster, "manual", "Running")
    await ask(cluster, "manual", stop(first))
    await stops(cluster, "manual")


async def test_a_request_that_makes_no_sense_is_refused(cluster: Cluster) -> None:
    """Only Start and Stop are actions."""
    await cluster.apply(vm("odd", run_strategy="Manual"))
    patch = json.dumps({"status": {"stateChangeRequests": [{"action": "Explode"}]}})
    done = await cluster.kubectl(
        "patch", "vm", "odd", "--subresource=status", "--type=merge", "-p", patch, check=False
    )
    assert done.exit_code != 0
    assert "status.stateChangeRequests[0].action" in done.stderr


async def test_stop_and_start_is_a_restart(cluster: Cluster) -> None:
    """Two requests in one list: the instance of that uid goes, another one comes, the machine stays what it is."""
    await cluster.apply(vm("again", terminationGracePeriodSeconds=1))
    machine = Machine(cluster, "again")
    first = await machine.running()
    await ask(cluster, "again", stop(first), START)
    second = await machine.running(not_uid=first["metadata"]["uid"])
    state = await says(cluster, "again", "Running")
    assert state["spec"]["runStrategy"] == "Always"
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert "startFailure" not in state["status"]


async def test_rerun_on_failure_does_not_rerun_what_was_stopped(cluster: Cluster) -> None:
    """The guest is destroyed when its grace period is over, which is no failure: somebody wanted it to end."""
    name = "rerun"
    await cluster.apply(vm(name, run_strategy="RerunOnFailure", terminationGracePeriodSeconds=1))
    first = await Machine(cluster, name).running()
    await ask(cluster, name, stop(first))
    await stops(cluster, name)
    await ask(cluster, name, START)
    await Machine(cluster, name).running(not_uid=first["metadata"]["uid"])


async def test_running_is_taken_with_a_warning(cluster: Cluster) -> None:
    """The deprecated flag works as it always did, and not together with runStrategy."""
    manifest = vm("flag", terminationGracePeriodSeconds=1)
    both = manifest | {"spec": manifest["spec"] | {"running": True}}
    assert "Running and RunStrategy are mutually exclusive" in await cluster.refused(both)
    flag = {key: value for key, value in both["spec"].items() if key != "runStrategy"}
    applied = await cluster.apply(manifest | {"spec": flag})
    assert "spec.running is deprecated" in applied.stderr
    await Machine(cluster, "flag").running()
    await edit(cluster, "flag", running=False)
    await stops(cluster, "flag")
    neither = {key: value for key, value in flag.items() if key != "running"}
    assert "RunStrategy must be specified" in await cluster.refused(manifest | {"spec": neither})


async def test_a_halted_machine_can_be_started_paused(cluster: Cluster) -> None:
    """Its guest waits to be resumed, and from then on the machine runs always. No Service leads to it until then."""
    name = "still"
    await cluster.apply(vm(name, run_strategy="Halted"))
    await says(cluster, name, "Stopped")
    await ask(cluster, name, START | {"data": {"paused": "true"}})
    state = await says(cluster, name, "Paused")
    assert state["spec"]["runStrategy"] == "Always"
    assert condition(state, "Paused")["reason"] == "PausedByUser"
    instance = await cluster.get("vmi", name)
    assert instance is not None
    assert instance["spec"]["startStrategy"] == "Paused"
    machine = Machine(cluster, name)
    await machine.expose_ssh()
    still = await machine.pod_says(UNPAUSED_CONDITION, "False")
    assert condition(still, UNPAUSED_CONDITION)["reason"] == "Paused"
    [(address, is_ready)] = (await endpoints(cluster, f"{name}-ssh", bool)).items()
    assert not is_ready
    pod, domain = still["metadata"]["name"], f"{cluster.namespace}_{name}"
    await cluster.kubectl("exec", pod, "-c", "compute", "--", "virsh", "resume", domain)
    await says(cluster, name, "Running")
    goes = await machine.pod_says("Ready", "True")
    assert condition(goes, UNPAUSED_CONDITION)["reason"] == "NotPaused"
    await endpoints(cluster, f"{name}-ssh", lambda found: found == {address: True})
    await machine.console_shows(rf"{name} login:")


async def test_a_template_edit_asks_for_a_restart(cluster: Cluster) -> None:
    """RestartRequired appears, goes when the edit is undone, and goes with a restart; the start's revision tells which."""
    name = "edited"
    await cluster.apply(vm(name, terminationGracePeriodSeconds=1))
    machine = Machine(cluster, name)
    first = await machine.running()
    before = await says(cluster, name, "Running")
    assert condition(before, "RestartRequired") == {}

    def asks_for_it(state: Json | None) -> bool:
        return condition(state, "RestartRequired").get("status") == "True"

    def follows(state: Json | None) -> bool:
        metadata, status = (state or {}).get("metadata", {}), (state or {}).get("status", {})
        is_followed = metadata.get("generation") == status.get("observedGeneration")
        return is_followed and not asks_for_it(state)

    await edit(cluster, name, template={"spec": {"hostname": "other"}})
    state = await cluster.until("vm", name, asks_for_it, within_s=10, what="RestartRequired")
    assert state is not None
    assert state["status"]["desiredGeneration"] == state["metadata"]["generation"]
    assert state["status"]["observedGeneration"] == before["metadata"]["generation"]
    await edit(cluster, name, template={"spec": {"hostname": None}})
    await cluster.until("vm", name, follows, within_s=10, what="no RestartRequired: it was undone")
    await edit(cluster, name, template={"spec": {"hostname": "third"}})
    await cluster.until("vm", name, asks_for_it, within_s=10, what="RestartRequired")
    await ask(cluster, name, stop(first), START)
    second = await machine.running(not_uid=first["metadata"]["uid"])
    assert second["spec"]["hostname"] == "third"
    state = await cluster.until("vm", name, follows, within_s=20, what="no RestartRequired")
    assert state is not None
    generation = state["metadata"]["generation"]
    assert second["metadata"]["annotations"]["kubevirt.io/vm-generation"] == str(generation)
    await _only_revision_is(cluster, state, second["status"]["virtualMachineRevisionName"])


async def _only_revision_is(cluster: Cluster, machine: Json, name: str) -> None:
    uid, generation = machine["metadata"]["uid"], machine["metadata"]["generation"]
    assert name == f"revision-start-vm-{uid}-{generation}"
    revisions = await cluster.all("controllerrevisions")
    assert [revision["metadata"]["name"] for revision in revisions] == [name]
    [revision] = revisions
    assert revision["revision"] == generation
    assert revision["data"]["spec"] == machine["spec"]
    assert revision["metadata"]["ownerReferences"][0]["uid"] == uid


async def test_an_edit_beside_the_template_is_followed(cluster: Cluster) -> None:
    """Another run strategy is in effect at once and changes nothing about the guest."""
    await cluster.apply(vm("quiet"))
    first = await Machine(cluster, "quiet").running()
    await edit(cluster, "quiet", runStrategy="Manual")

    def follows(state: Json | None) -> bool:
        status = (state or {}).get("status", {})
        return bool(status.get("observedGeneration") == status.get("desiredGeneration") == 2)

    state = await cluster.until("vm", "quiet", follows, within_s=10, what="generation 2")
    assert condition(state, "RestartRequired") == {}
    instance = await cluster.get("vmi", "quiet")
    assert instance is not None
    assert instance["metadata"]["uid"] == first["metadata"]["uid"]


async def test_an_orphan_lives_on_and_is_adopted(cluster: Cluster) -> None:
    """The machine's object goes and comes again; the guest does not notice either."""
    manifest = counting_vm("waif")
    machine = await booted(cluster, manifest)
    before = await witness_of(machine)
    instance = await machine.running()
    await cluster.kubectl("delete", "vm", "waif", "--cascade=orphan", "--timeout=20s")

    def is_free(state: Json | None) -> bool:
        return state is not None and not state["metadata"].get("ownerReferences")

    await cluster.until("vmi", "waif", is_free, within_s=20, what="nobody owns the instance")
    await cluster.apply(manifest)

    def is_adopted(state: Json | None) -> bool:
        owners = (state or {}).get("metadata", {}).get("ownerReferences", [])
        return any(owner.get("controller") for owner in owners)

    await cluster.until("vmi", "waif", is_adopted, within_s=10, what="adopted")
    state = await says(cluster, "waif", "Running", within_s=10)
    assert condition(state, "RestartRequired") == {}
    adopted = await cluster.get("vmi", "waif")
    assert adopted is not None
    assert adopted["metadata"]["uid"] == instance["metadata"]["uid"]
    assert adopted["metadata"]["ownerReferences"][0]["uid"] == state["metadata"]["uid"]
    await lived_on(machine, before)
    await cluster.kubectl("delete", "vm", "waif", "--timeout=30s")
    assert await cluster.get("vmi", "waif") is None
    assert await cluster.all("pods", labels="vmi.kubevirt.io/id=waif") == []


async def test_a_foreign_finalizer_holds_the_object_and_nothing_else(cluster: Cluster) -> None:
    """Deleted while its instance starts: the instance and its pod go, whoever still holds the machine's object."""
    manifest = vm("held", terminationGracePeriodSeconds=1)
    manifest["metadata"]["finalizers"] = ["example.com/mine"]
    await cluster.apply(manifest)
    try:
        await _only_theirs_is_left(cluster)
    finally:
        none = json.dumps({"metadata": {"finalizers": None}})
        await cluster.kubectl("patch", "vm", "held", "--type=merge", "-p", none)
    await cluster.until("vm", "held", gone, within_s=10, what="the machine is gone")


async def _only_theirs_is_left(cluster: Cluster) -> None:
    await cluster.until("vmi", "held", lambda state: state is not None, within_s=10, what="made")
    await cluster.kubectl("delete", "vm", "held", "--wait=false")
    await cluster.until("vmi", "held", gone, within_s=30, what="the instance is gone")

    def is_theirs(state: Json | None) -> bool:
        return bool(state and state["metadata"].get("finalizers") == ["example.com/mine"])

    state = await cluster.until("vm", "held", is_theirs, within_s=10, what="only theirs is left")
    assert state is not None
    assert state["status"]["printableStatus"] == "Terminating"
