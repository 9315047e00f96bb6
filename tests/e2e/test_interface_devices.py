"""What a manifest says of a network device, as the guest has it, and its link while the guest runs."""

import json
import shlex

from tests.support.cluster import Cluster, Json
from tests.support.machine import Machine, vm
from tests.support.networks import said_of_interface

MAC, BUS = "02:aa:00:00:00:01", "0a"
# Vendor and device, as QEMU tells them.
E1000 = "8086:100e"
_DEVICES = """
    cat /sys/class/net/eth0/address
    readlink -f /sys/class/net/eth0/device
"""


def on_pod(name: str, interface: Json) -> Json:
    """A machine that has its one interface on the pod network by masquerade."""
    manifest = vm(name)
    spec = manifest["spec"]["template"]["spec"]
    spec["networks"] = [{"name": "default", "pod": {}}]
    spec["domain"]["devices"]["interfaces"] = [{"name": "default", "masquerade": {}, **interface}]
    return manifest


async def link_is(cluster: Cluster, name: str, state: str) -> None:
    """Ask for a state of the link by an edit of the machine, and wait until the status tells it."""
    interface = {"name": "default", "masquerade": {}, "macAddress": MAC, "state": state}
    patch = {"spec": {"template": {"spec": {"domain": {"devices": {"interfaces": [interface]}}}}}}
    await cluster.kubectl("patch", "vm", name, "--type=merge", "-p", json.dumps(patch))
    await cluster.until(
        "vmi",
        name,
        lambda found: said_of_interface(found, "default").get("linkState") == state,
        within_s=20,
        what=f"the link is {state}",
    )


async def test_the_guest_has_the_device_that_the_manifest_says(cluster: Cluster) -> None:
    """Hardware address and place; beside it the model of a machine of its own."""
    place = f"0000:{BUS}:00.0"
    await cluster.apply(on_pod("placed", {"macAddress": MAC.upper(), "pciAddress": place}))
    await cluster.apply(on_pod("other-model", {"model": "e1000"}))
    placed = Machine(cluster, "placed")
    await placed.console_shows("placed login:")
    mac, path = (await placed.ssh(_DEVICES)).stdout.split()
    assert mac == MAC
    assert f"/{place}/virtio" in path
    state = await Machine(cluster, "other-model").running()
    assert said_of_interface(state, "default")["infoSource"] == "domain"
    pod = (await Machine(cluster, "other-model").pod())["metadata"]["name"]
    domain = f"{cluster.namespace}_other-model"
    shown = await cluster.kubectl(
        "exec",
        pod,
        "-c",
        "compute",
        "--",
        "virsh",
        "qemu-monitor-command",
        domain,
        "--hmp",
        "info pci",
    )
    assert E1000 in shown.stdout


async def test_link_goes_down_and_up_under_a_running_guest(cluster: Cluster) -> None:
    """The guest sees it, is not restarted for it, and is reached again afterwards."""
    await cluster.apply(on_pod("linked", {"macAddress": MAC}))
    machine = Machine(cluster, "linked")
    await machine.console_shows("linked login:")
    boot_id = "cat /proc/sys/kernel/random/boot_id"
    before = (await machine.ssh(boot_id)).stdout
    # Without its link there is no way into the guest: it says on its console what it sees.
    says = (
        "while sleep 0.1; do now=$(cat /sys/class/net/eth0/carrier);"
        ' [ "$now" = "$was" ] || echo "carrier: $now" >/dev/ttyS0; was=$now; done'
    )
    await machine.ssh(f"setsid sh -c {shlex.quote(says)} >/dev/null 2>&1 </dev/null &")
    await machine.console_shows("carrier: 1")
    await link_is(cluster, "linked", "down")
    await machine.console_shows("carrier: 0")
    await link_is(cluster, "linked", "up")
    assert (await machine.ssh(boot_id)).stdout == before
