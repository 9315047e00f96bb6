"""Machines with interfaces, and what their launchers report of them."""

import json
from typing import Any

from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_common.launcher_pod import secondary_interface_name
from podvisor_handler.network.attachments import Attachment
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.interfaces import attachments_of

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.networks import POD_MAC
from tests.unit.handler.observations import observed, said

BLUE = secondary_interface_name("blue")
STEM = BLUE.removeprefix("pod")
TO_BLUE = {"name": "blue", "multus": {"networkName": "blue"}}
ON_BLUE = {"name": "blue", "bridge": {}}


def machine(
    *interfaces: dict[str, Any], pod_network: dict[str, Any] | None = None, **devices: Any
) -> v1.VirtualMachineInstance:
    """A machine with interfaces: `default` leads to the pod's network, `blue` to one of Multus."""
    networks = [{"name": "default", "pod": pod_network or {}}, TO_BLUE]
    named = {interface["name"] for interface in interfaces}
    domain = {
        "memory": {"guest": "64M"},
        "cpu": {"cores": 4},
        "devices": {"interfaces": list(interfaces), **devices},
    }
    return vmi(
        spec={"domain": domain, "networks": [each for each in networks if each["name"] in named]}
    )


def attachments(
    it: v1.VirtualMachineInstance,
    *reported: str,
    runs: bool = False,
    network: PodNetwork | None = None,
    **report: Any,
) -> tuple[Attachment, ...]:
    """How the guest shall be attached, by a launcher that reports those interfaces and has accepted the manifest."""
    interfaces = [domain_pb2.InterfaceReport(name=name) for name in reported]
    report = {"state": RUNNING, "accepted_generation": 1, "devices_settled": True, **report}
    said = domain_pb2.DomainReport(interfaces=interfaces, **report)
    return attachments_of(it, said, network, runs=runs)


RUNNING = domain_pb2.DOMAIN_STATE_RUNNING
UNREACHABLE = domain_pb2.DOMAIN_REASON_LIBVIRT_UNREACHABLE
MASQUERADED = {"name": "default", "masquerade": {}}
BRIDGED = {"name": "default", "bridge": {}}


OF_MULTUS = json.dumps(
    [
        {"name": "cbr0", "interface": "eth0", "ips": ["10.244.0.7"], "default": True, "dns": {}},
        {"name": "default/blue", "interface": BLUE, "mac": POD_MAC, "dns": {}},
    ]
)


def statuses(
    it: v1.VirtualMachineInstance, network: PodNetwork, told: str = OF_MULTUS, /, **report: Any
) -> list[v1.NetworkInterfaceStatus]:
    """Of a pod to which Multus says that it has given so much."""
    carrier = pod(annotations={"k8s.v1.cni.cncf.io/network-status": told})
    return said(observed(machine=it, carrier=carrier, network=network, **report)).interfaces or []


def reported(name: str, **fields: Any) -> domain_pb2.InterfaceReport:
    """An interface with its link up."""
    return domain_pb2.InterfaceReport(name=name, **{"queues": 1, "link_up": True, **fields})
