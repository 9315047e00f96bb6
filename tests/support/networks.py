"""Networks of machines under test: their manifests, Multus and NetworkPolicies, and guests and pods that serve on them.

Who serves says its name and repeats what it is told on port ANSWERS, and echoes on port ECHOES, both by TCP and by UDP, IPv4 and IPv6.
Guests have the programs for it from the disk `tools`.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Any, Literal

from tests.support.cluster import ROOT, Cluster, Json
from tests.support.disks import with_disk
from tests.support.machine import Machine, vmi
from tests.support.process import run
from tests.support.storage import TOOLBOX

Binding = Literal["masquerade", "bridge", "passtBinding"]
BINDINGS: tuple[Binding, ...] = ("masquerade", "bridge", "passtBinding")

ANSWERS, ECHOES, NOBODYS = 7000, 7001, 7002
MULTUS = "k8s.v1.cni.cncf.io"
_TOOLS_IMAGE = "podvisor/guest-tools:devel"


async def put_multus_into_cluster() -> None:
    """Make sure that pods get the networks they ask for. Takes a minute where Multus was never built, else seconds."""
    await run(str(ROOT / "dev/multus"), timeout_s=600)


async def take_multus_away() -> None:
    """Pods that are made from now on have the node's own network alone."""
    await run(str(ROOT / "dev/multus"), "--remove", timeout_s=120)


async def has_multus() -> bool:
    """Multus is in the cluster."""
    return await Cluster("kube-system").get("daemonset", "multus") is not None


async def have_policies_hold() -> None:
    """Make sure that NetworkPolicies are enforced. Takes minutes where what does it was never built, else seconds."""
    await run(str(ROOT / "dev/policies"), timeout_s=600)


async def let_policies_be_words() -> None:
    """NetworkPolicies are enforced no more."""
    await run(str(ROOT / "dev/policies"), "--remove", timeout_s=120)


async def policies_hold() -> bool:
    """NetworkPolicies are enforced."""
    return await Cluster("kube-system").get("daemonset", "policies") is not None


def attachment_definition(
    name: str, bridge: str, *, subnet: str | None = None, gateway: bool = False
) -> Json:
    """A network on a bridge of the node's own.

    With a subnet it gives addresses of that. With `gateway` the node is a part of it and the way out of it, so that it can take the
    place of the pods' own network.
    """
    ipam: Json = {}
    if subnet is not None:
        ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
        ipam |= {"routes": [{"dst": "0.0.0.0/0"}]} if gateway else {}
    plugin = {
        "cniVersion": "1.0.0",
        "name": bridge,
        "type": "bridge",
        "bridge": bridge,
        "isGateway": gateway,
        "hairpinMode": True,
        "capabilities": {"mac": True},
        "ipam": ipam,
    }
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name},
        "spec": {"config": json.dumps(plugin)},
    }


def pod_interface(network: str) -> str:
    """The name that the pod's interface to a machine's secondary network has."""
    return "pod" + hashlib.sha256(network.encode()).hexdigest()[:11]


def reachable_by(binding: Binding, *further_tcp_ports: int) -> Json:
    """What an interface on the pod network says of its binding, so that all that is served reaches the guest.

    passt has the ports listed: all of them take more open files than a node's containers may have everywhere.
    """
    if binding != "passtBinding":
        return {binding: {}}
    served = [
        *((port, "TCP") for port in (22, *further_tcp_ports)),
        *itertools.product((ANSWERS, ECHOES), ("TCP", "UDP")),
    ]
    return {
        binding: {},
        "ports": [{"port": port, "protocol": protocol} for port, protocol in served],
    }


def networked_vmi(
    name: str,
    networks: Mapping[str, Json],
    interfaces: Mapping[str, Json],
    **changes: Any,
) -> Json:
    """An instance with these networks and how it is bound to each, by the networks' names, and with the disk `tools`."""
    manifest = with_disk(vmi(name, **changes), "tools", {"containerDisk": {"image": _TOOLS_IMAGE}})
    spec = manifest["spec"]
    spec["networks"] = [{"name": network, **source} for network, source in networks.items()]
    devices = spec["domain"]["devices"]
    devices["interfaces"] = [{"name": network, **how} for network, how in interfaces.items()]
    spec["domain"]["resources"]["requests"]["memory"] = "96M"  # the programs lie in memory
    return manifest


def serving_pod(name: str) -> Json:
    """A pod that serves, and from which one can ask."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "peer",
                    "image": TOOLBOX,
                    "command": ["bash", "-c", f"{_serve(name)}\nexec sleep infinity"],
                    "readinessProbe": {"tcpSocket": {"port": ANSWERS}, "periodSeconds": 1},
                }
            ],
        },
    }


def node_port_service(name: str, *, of: str, families: int) -> Json:
    """A Service of type NodePort for a machine's ANSWERS at port 80 and ECHOES at 81; of both address families where there are."""
    ports = [
        {"name": f"{protocol.lower()}-{port}", "protocol": protocol, "port": port, "targetPort": to}
        for protocol in ("TCP", "UDP")
        for port, to in ((80, ANSWERS), (81, ECHOES))
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "NodePort",
            "selector": {"vmi.kubevirt.io/id": of},
            "ipFamilyPolicy": "RequireDualStack" if families == 2 else "SingleStack",
            "ports": ports,
        },
    }


async def serve(machine: Machine) -> None:
    """Give a guest its programs, and have it serve."""
    unpack = (
        'for d in /sys/block/vd*; do [ "$(cat $d/serial)" != tools ] ||'
        " tar -xf /dev/${d##*/} -C /; done"
    )
    await machine.ssh(f"{unpack}\n{_serve(machine.name)}", timeout_s=60)


async def take_ipv6_address(machine: Machine, nic: str = "eth0") -> None:
    """Have a guest ask for an IPv6 address by DHCPv6, and wait until it has one that it may use, and a default route."""
    script = f"""
        mkdir -p /var/lib/dhcpv6
        printf 'interface {nic} {{ send ia-na 0; }};\\nid-assoc na 0 {{ }};\\n' >/tmp/dhcp6c.conf
        dhcp6c -c /tmp/dhcp6c.conf {nic}
        for _ in $(seq 100); do
          ip -6 addr show dev {nic} scope global | grep inet6 | grep -qv tentative &&
            ip -6 route | grep -q '^default' && exit
          usleep 100000
        done
        ip -6 addr; ip -6 route; exit 1
    """
    await machine.ssh(script, timeout_s=40)


async def start_agent(machine: Machine) -> None:
    """Start the guest agent in a guest that has its programs. Its process number is in /tmp/agent.pid."""
    script = """
        port=$(grep -lx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name | cut -d/ -f5)
        setsid qemu-ga -m virtio-serial -p /dev/$port -t /run >/tmp/agent.log 2>&1 </dev/null &
        echo $! >/tmp/agent.pid
    """
    await machine.ssh(script)


def _serve(name: str) -> str:
    """A script after which all is served; what it starts lives on."""
    listeners = [
        (f"{way}:{port},fork{options}", does)
        for port, does in ((ANSWERS, "/tmp/answer"), (ECHOES, "cat"))
        for way, options in (
            ("TCP4-LISTEN", ",reuseaddr"),
            ("UDP4-RECVFROM", ""),
            ("TCP6-LISTEN", ",reuseaddr,ipv6only=1"),
            ("UDP6-RECVFROM", ",ipv6only=1"),
        )
    ]
    answer = f"#!/bin/sh\\nread -r said; echo {name} $said\\n"
    return "\n".join(
        [
            f"printf '{answer}' >/tmp/answer; chmod +x /tmp/answer",
            *(
                f"setsid socat -t30 {where} EXEC:{does} >/dev/null 2>&1 </dev/null &"
                for where, does in listeners
            ),
        ]
    )


def said_of_interface(state: Json | None, name: str) -> Json:
    """What the instance's status says of an interface; empty when that is nothing."""
    entries = (state or {}).get("status", {}).get("interfaces", [])
    found: Json = next((entry for entry in entries if entry.get("name") == name), {})
    return found


async def nic_of(machine: Machine, mac: str) -> str:
    """The guest's name of the interface with a hardware address."""
    looks = f"grep -li {mac} /sys/class/net/eth*/address"
    return (await machine.ssh(looks)).stdout.split("/")[4]
