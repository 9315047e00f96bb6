"""What is confidential reaches the guest and nobody else: no log, event, status or argument list."""

import json

from tests.support.cluster import Cluster, Json, on_node
from tests.support.disks import with_disk
from tests.support.machine import Machine, user_data, vm
from tests.support.settings import INSTALLATION

# Each is in one place of the manifest or in one Secret, and nothing else in the cluster is called like it.
MARKS = {
    "inline": "mark-of-inline-user-data",
    "drive": "mark-of-the-drives-user-data",
    "network": "mark-of-network-data",
    "key": "mark-of-a-public-key",
    "file": "mark-of-a-secret-volume",
    "answers": "mark-of-an-answer-file",
    "broken": "mark-of-user-data-without-its-key",
}
COMPONENTS = ("virt-controller", "virt-handler")


async def test_marks_are_nowhere_but_in_the_guest(cluster: Cluster) -> None:
    """Through a start that fails for want of a key, kills of those who hold the data, and a restart of the instance."""
    for name, values in _secrets().items():
        secret = {"metadata": {"name": name}, "stringData": values}
        await cluster.apply({"apiVersion": "v1", "kind": "Secret", **secret})
    await cluster.apply(_machine())

    def waits(state: Json | None) -> bool:
        conditions = (state or {}).get("status", {}).get("conditions", [])
        return any("has no key" in c.get("message", "") for c in conditions)

    await cluster.until("vmi", "keeper", waits, within_s=40, what="a key is missing")
    logs = await _logs(cluster)
    good = {"stringData": {"userdata": f"#cloud-config\n# {MARKS['drive']}\n"}}
    await cluster.kubectl("patch", "secret", "drive", "--type=merge", "-p", json.dumps(good))
    machine = Machine(cluster, "keeper")
    await machine.console_shows("keeper login:", within_s=150)
    first = await machine.running()
    found = await machine.ssh("cat /dev/vd? | strings | grep -o 'mark-of[a-z-]*' | sort -u")
    assert set(found.stdout.split()) == set(MARKS.values()) - {MARKS["broken"]}

    for victim in ("podvisor_launcher", "libvirtd"):
        await machine.kill(victim)
    arguments = " ".join((await machine.processes()).values())
    logs += await _logs(cluster)
    await cluster.kubectl("delete", "vmi", "keeper", "--timeout=30s")
    await machine.running(within_s=60, not_uid=first["metadata"]["uid"])
    logs += await _logs(cluster)
    said = await cluster.kubectl("get", "vmi,vm", "-o", "jsonpath={.items[*].status}")
    events = json.dumps(await cluster.events())
    places = {"logs": logs, "arguments": arguments, "status": said.stdout, "events": events}
    assert "keeper" in logs
    assert "keeper" in events
    leaks = {(p, mark) for p, text in places.items() for mark in MARKS.values() if mark in text}
    assert leaks == set()


def _secrets() -> dict[str, dict[str, str]]:
    return {
        "drive": {"wrong-key": MARKS["broken"]},
        "network": {"networkdata": f"# {MARKS['network']}\n"},
        "keys": {"key": f"ssh-ed25519 AAAA {MARKS['key']}"},
        "files": {"password": MARKS["file"]},
        "answers": {"autounattend.xml": f"<a>{MARKS['answers']}</a>"},
    }


def _machine() -> Json:
    manifest = vm("keeper")
    spec = manifest["spec"]["template"]["spec"]
    seed = {"userData": user_data("keeper", f"# {MARKS['inline']}")}
    spec["volumes"][1]["cloudInitNoCloud"] = seed | {"networkDataSecretRef": {"name": "network"}}
    source = {"secret": {"secretName": "keys"}}
    way: Json = {"noCloud": {}}
    keys = {"sshPublicKey": {"source": source, "propagationMethod": way}}
    spec["accessCredentials"] = [keys]
    with_disk(manifest, "drive", {"cloudInitConfigDrive": {"secretRef": {"name": "drive"}}})
    with_disk(manifest, "files", {"secret": {"secretName": "files"}})
    return with_disk(manifest, "answers", {"sysprep": {"secret": {"name": "answers"}}})


async def _logs(cluster: Cluster) -> str:
    """What podvisor's own processes and the machine's have said so far, the containers that were started anew too."""
    text = ""
    pods = await cluster.all("pods", labels="kubevirt.io=virt-launcher")
    for pod in pods:
        uid = pod["metadata"]["uid"]
        text += (await on_node("sh", "-c", f"cat /var/log/pods/*{uid}/*/*.log")).stdout
    for component in COMPONENTS:
        label = f"app.kubernetes.io/component={component}"
        text += (await INSTALLATION.kubectl("logs", "-l", label, "--tail=-1")).stdout
    return text
