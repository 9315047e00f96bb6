"""What gives a running pod the networks that its annotation asks for by now, and takes the others: multus-dynamic-networks-controller in
clusters that have it, and here the test, with the CNI plugin that Multus would call.

Invariant: the pod's annotation network-status says what the pod has, as Multus writes it.
"""

import json
import shlex
from dataclasses import dataclass

from tests.support.cluster import Cluster, Json, on_node
from tests.support.machine import pod_processes
from tests.support.networks import MULTUS

_ASKED, _HAS = f"{MULTUS}/networks", f"{MULTUS}/network-status"


@dataclass(frozen=True, slots=True)
class _Attachment:
    """One network of a pod, to be given or taken."""

    pod: Json
    entry: Json  # of either annotation
    definition: Json

    async def run(self, command: str) -> Json:
        """Call the plugin in the pod's network; its result, which is empty when it takes."""
        metadata = self.pod["metadata"]
        node = self.pod["spec"]["nodeName"]
        pid = min(await pod_processes(metadata["uid"], node=node))
        interface = self.entry["interface"]
        mac = {"mac": self.entry["mac"]} if "mac" in self.entry else {}
        plugin = json.loads(self.definition["spec"]["config"]) | {"runtimeConfig": mac}
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"{metadata['uid']}-{interface}",
            "CNI_NETNS": f"/proc/{pid}/ns/net",
            "CNI_IFNAME": interface,
            "CNI_PATH": "/opt/cni/bin",
        }
        words = [f"{name}={value}" for name, value in environment.items()]
        call = f"echo {shlex.quote(json.dumps(plugin))} | env {shlex.join(words)} /opt/cni/bin/{plugin['type']}"
        printed = (await on_node("sh", "-c", call, node=node)).stdout
        result: Json = json.loads(printed or "{}")
        return result


async def obey_annotation(cluster: Cluster, pod: Json) -> None:
    """Give a pod the networks that it asks for and does not have, take those that it does not ask for any more, and say so."""
    annotations = pod["metadata"]["annotations"]
    asked = {e["interface"]: e for e in json.loads(annotations.get(_ASKED, "[]"))}
    has = {e["interface"]: e for e in json.loads(annotations[_HAS])}
    for interface, entry in asked.items():
        if interface not in has:
            name = f"{entry['namespace']}/{entry['name']}"
            result = await (await _attachment(pod, entry, name)).run("ADD")
            has[interface] = _said_by_multus(name, interface, result)
    for interface, entry in list(has.items()):
        if interface not in asked and not entry.get("default"):
            await (await _attachment(pod, entry, entry["name"])).run("DEL")
            del has[interface]
    says = f"{_HAS}={json.dumps(list(has.values()))}"
    await cluster.kubectl("annotate", "--overwrite", "pod", pod["metadata"]["name"], says)


async def _attachment(pod: Json, entry: Json, definition: str) -> _Attachment:
    namespace, _, name = definition.partition("/")
    found = await Cluster(namespace).get("network-attachment-definition", name)
    assert found is not None, f"there is no network {definition}"
    return _Attachment(pod, entry, found)


def _said_by_multus(name: str, interface: str, result: Json) -> Json:
    [inside] = [one for one in result["interfaces"] if one.get("sandbox")]
    ips = [one["address"].partition("/")[0] for one in result.get("ips", [])]
    said = {"name": name, "interface": interface, "mac": inside["mac"], "dns": {}}
    return said | ({"ips": ips} if ips else {})
