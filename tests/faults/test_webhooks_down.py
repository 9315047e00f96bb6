"""All controllers are down, and with them every webhook: what runs goes on and shows how it ends, writes of specifications are
refused in words, and when a controller is back everything that was asked for before comes about, once."""

import asyncio
import json
import time

import pytest

from tests.faults.audit import assert_one_writer, controller_writes
from tests.faults.guest import booted, counting_vm, counting_vmi, lived_on, witness_of
from tests.faults.history import History
from tests.faults.measured import Measured
from tests.faults.replicas import all_are_ready, controllers_down
from tests.perf.measure import audit_mark
from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, evict, gone, vm

RECOVERED_S = 15.0
REFUSAL = r'failed calling webhook "virtualmachines-mutator.kubevirt.io"'
EVICTION_REFUSAL = r'failed calling webhook "virt-launcher-eviction-interceptor.kubevirt.io"'
HALT = json.dumps({"spec": {"runStrategy": "Halted"}})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("down_s", [5, pytest.param(120, marks=pytest.mark.long)])
async def test_no_controller(
    cluster: Cluster, survivor: Machine, history: History, measured: Measured, down_s: int
) -> None:
    """A guest that ends is seen to have ended; what was deleted goes as soon as somebody is there to let it go."""
    before = await witness_of(survivor)
    names = {stem: f"{stem}-{down_s}" for stem in ("ends", "goes", "late")}
    ends = await booted(cluster, counting_vmi(names["ends"]))
    await cluster.apply(counting_vm(names["goes"]))
    goes = Machine(cluster, names["goes"])
    await goes.running()
    await all_are_ready()
    mark = audit_mark()
    async with controllers_down():
        await ends.ssh("poweroff", check=False)
        await history.first(
            "vmi",
            ends.name,
            lambda seen: seen.phase == "Succeeded",
            within_s=30,
            what="the guest's end is shown",
        )
        await _specifications_are_refused(cluster, survivor, names["late"])
        await _only_launchers_stay(cluster, survivor)
        await cluster.kubectl("delete", "vm", goes.name, "--wait=false")
        # The time is the subject: what a machine must do without anybody to look after it.
        await asyncio.sleep(down_s)
        await lived_on(survivor, before)
        doomed = await cluster.get("vm", goes.name)
        assert doomed is not None
        assert "deletionTimestamp" in doomed["metadata"]
    back_s = time.time()
    await cluster.apply(vm(names["late"]))
    await Machine(cluster, names["late"]).running(within_s=60)
    measured.add(
        "controllers back, first machine Running", time.time() - back_s, limit_s=RECOVERED_S
    )
    for kind in ("vm", "vmi"):
        await cluster.until(kind, goes.name, gone, within_s=30, what="gone as asked for")
    await lived_on(survivor, before)
    assert history.phases("vmi", survivor.name) == {"Running"}, history
    assert_one_writer(controller_writes(mark))
    await cluster.kubectl("delete", "vmi,vm", *names.values(), "--ignore-not-found", "--wait=false")


async def _only_launchers_stay(cluster: Cluster, survivor: Machine) -> None:
    """No guest ends by an eviction that nobody could decide on; other pods are evicted as ever."""
    assert EVICTION_REFUSAL in (await survivor.evict()).stderr
    other: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "evicted"},
        "spec": {
            "nodeSelector": {"podvisor.test/nowhere": "true"},
            "containers": [{"name": "idle", "image": "podvisor-dev/toolbox:latest"}],
        },
    }
    await cluster.apply(other)
    assert (await evict(cluster, "evicted")).exit_code == 0
    await cluster.until("pod", "evicted", gone, within_s=20, what="evicted")


async def _specifications_are_refused(cluster: Cluster, survivor: Machine, late: str) -> None:
    """Creation and change fail, at once, with a text that names the webhook and says what is wrong with it."""
    asked_s = time.monotonic()
    refusals = [
        await cluster.refused(vm(late)),
        (await cluster.kubectl("patch", "vm", survivor.name, "--type=merge", "-p", HALT, check=False)).stderr,
    ]  # fmt: skip
    assert time.monotonic() - asked_s < 5
    for text in refusals:
        assert REFUSAL in text, text
        assert 'no endpoints available for service "virt-controller"' in text, text
