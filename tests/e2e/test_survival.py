"""A guest outlives every process of ours."""

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import Machine, vmi


def _managed(state: Json | None) -> bool:
    conditions = (state or {}).get("status", {}).get("conditions", [])
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "")
    return bool(state) and (state or {})["status"].get("phase") == "Running" and ready == "True"


async def _booted(cluster: Cluster, name: str) -> Machine:
    await cluster.apply(vmi(name))
    machine = Machine(cluster, name)
    await machine.console_shows(rf"{name} login:")
    return machine


async def test_guest_outlives_its_launcher(cluster: Cluster) -> None:
    """kill -9 of the launcher: the guest does not notice, another launcher takes over, and its commands work."""
    machine = await _booted(cluster, "tough")
    before_s = await machine.uptime_s()
    killed = await machine.kill("-m podvisor_launcher")
    await cluster.until("vmi", "tough", _managed, within_s=10, what="Running and Ready")
    assert await machine.uptime_s() > before_s
    assert killed not in await machine.processes()
    assert [event["note"] for event in await cluster.events(type_="Warning")] == []
    await cluster.kubectl("delete", "vmi", "tough", "--timeout=15s")


async def test_guest_outlives_its_libvirtd(cluster: Cluster) -> None:
    """kill -9 of libvirtd: the guest runs on and can still be shut down properly."""
    machine = await _booted(cluster, "sturdy")
    before_s = await machine.uptime_s()
    await machine.kill("/libvirtd -f")
    assert await machine.uptime_s() > before_s
    await cluster.until("vmi", "sturdy", _managed, within_s=10, what="Running and Ready")
    await cluster.kubectl("delete", "vmi", "sturdy", "--timeout=15s")


async def test_guest_outlives_the_handler(cluster: Cluster) -> None:
    """kill -9 of virt-handler: the guest runs on, and the new handler can end it."""
    machine = await _booted(cluster, "robust")
    before_s = await machine.uptime_s()
    await on_node("pkill", "-9", "-f", "podvisor_handler")
    assert await machine.uptime_s() > before_s
    await cluster.until("vmi", "robust", _managed, within_s=10, what="Running and Ready")
    await cluster.kubectl("delete", "vmi", "robust", "--timeout=60s")
    assert await cluster.all("pods") == []
    assert [event["note"] for event in await cluster.events(type_="Warning")] == []


async def test_killed_qemu_is_a_failure(cluster: Cluster) -> None:
    """kill -9 of QEMU: the instance has failed, and says so."""
    machine = await _booted(cluster, "mortal")
    await machine.kill("/qemu-system")

    def failed(state: Json | None) -> bool:
        return bool(state and state.get("status", {}).get("phase") == "Failed")

    await cluster.until("vmi", "mortal", failed, within_s=10, what="phase Failed")
