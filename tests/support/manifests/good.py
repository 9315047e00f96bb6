"""Good manifests in every version that is served, to make bad ones of: the examples, and one machine that sets every field.

Invariant: each of them is admitted as it stands, and a test says so; else a refusal of what is made of them would mean nothing.
"""

import copy
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from tests.support.cluster import ROOT
from tests.support.manifests import storage

Json = dict[str, Any]
TEMPLATE = "spec.template.spec"


@dataclass(frozen=True, slots=True)
class Good:
    """A manifest that is admitted, and where in it the specification of an instance stands."""

    name: str
    manifest: Json
    spec_path: str

    @property
    def version(self) -> str:
        """The version of its API group, such as `v1`."""
        return str(self.manifest["apiVersion"]).rpartition("/")[2]

    @property
    def kind(self) -> str:
        """The kind of the object."""
        return str(self.manifest["kind"])


@cache
def good_manifests() -> tuple[Good, ...]:
    """All of them, always in one order."""
    machine, instance, first = (_example(name) for name in ("vm", "vmi", "myvm"))
    # Through JSON, so that no object stands in two places.
    full_spec = json.loads(json.dumps(_full_spec()))
    full_machine, full_instance = _machine("full", full_spec), _instance("full", full_spec)
    older = {"apiVersion": "kubevirt.io/v1alpha3"}
    return (
        Good("example of a machine", machine, TEMPLATE),
        Good("example of an instance", instance, "spec"),
        Good("example of a first machine", first, "spec"),
        Good("first machine with every volume", storage.first_machine(), "spec"),
        Good("machine with everything", full_machine, TEMPLATE),
        Good("instance with everything", full_instance, "spec"),
        Good("machine with everything in v1alpha3", full_machine | older, TEMPLATE),
        Good("instance with everything in v1alpha3", full_instance | older, "spec"),
    )


def _example(name: str) -> Json:
    manifest: Json = yaml.safe_load((ROOT / f"examples/{name}.yaml").read_text())
    return manifest


def _machine(name: str, spec: Json) -> Json:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "runStrategy": "Always",
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": dict(storage.RAW_VOLUMES)},
                "spec": spec,
            },
        },
    }


def _instance(name: str, spec: Json) -> Json:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name,
            "labels": {"app": name},
            "annotations": dict(storage.RAW_VOLUMES),
        },
        "spec": copy.deepcopy(spec),
    }


def _full_spec() -> Json:
    return {
        "architecture": "amd64",
        "hostname": "full",
        "subdomain": "machines",
        "startStrategy": "Paused",
        "terminationGracePeriodSeconds": 5,
        "domain": _domain(),
        "networks": [
            {
                "name": "default",
                "pod": {"vmNetworkCIDR": "10.0.2.0/24", "vmIPv6NetworkCIDR": "fd10:0:2::/120"},
            }
        ],
        "volumes": storage.volumes(),
        "accessCredentials": storage.credentials(),
        "readinessProbe": _probe(),
        **_placement(),
    }


def _probe() -> Json:
    header = {"name": "X-Asked-By", "value": "kubelet"}
    asked = {"port": 80, "path": "/ready", "scheme": "HTTP", "httpHeaders": [header]}
    return {"httpGet": asked, "initialDelaySeconds": 1, "failureThreshold": 5}


def _domain() -> Json:
    return {
        "resources": {
            "requests": {"memory": "96M", "cpu": "500m", "example.com/device": 1},
            "limits": {"memory": "128M", "cpu": 1, "example.com/device": "1"},
        },
        "memory": {"guest": "64M"},
        "cpu": {"cores": 1, "sockets": 1, "threads": 1, "model": "host-model"},
        "machine": {"type": "q35"},
        "firmware": {"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223", "serial": "a-1"},
        "devices": {
            "autoattachSerialConsole": True,
            "disks": storage.disks(),
            "interfaces": [
                {
                    "name": "default",
                    "masquerade": {},
                    "model": "virtio",
                    "macAddress": "02:00:00:00:00:01",
                    "bootOrder": 2,
                    "pciAddress": "0000:1f:00.0",
                    "acpiIndex": 7,
                    "tag": "uplink",
                    "state": "up",
                    "dhcpOptions": {
                        "bootFileName": "pxelinux.0",
                        "tftpServerName": "tftp.example",
                        "ntpServers": ["10.0.0.1"],
                        "privateOptions": [{"option": 240, "value": "a"}],
                    },
                    "ports": [
                        {"name": "ssh", "port": 22, "protocol": "TCP"},
                        {"name": "dns", "port": 53, "protocol": "UDP"},
                    ],
                }
            ],
        },
    }


def _placement() -> Json:
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
    }
    term = {"topologyKey": "zone", "labelSelector": selector, "namespaces": ["shop"]}
    nodes = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    return {
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "schedulerName": "default-scheduler",
        "priorityClassName": "important",
        "tolerations": [
            {"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"},
            {"key": "c", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
        ],
        "affinity": {
            "nodeAffinity": {
                required: {"nodeSelectorTerms": [nodes, by_name]},
                preferred: [{"weight": 1, "preference": nodes}],
            },
            "podAffinity": {required: [term]},
            "podAntiAffinity": {preferred: [{"weight": 100, "podAffinityTerm": term}]},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "minDomains": 2,
                "labelSelector": selector,
                "nodeAffinityPolicy": "Honor",
                "nodeTaintsPolicy": "Ignore",
            }
        ],
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": ["10.96.0.10"],
            "searches": ["shop.svc.cluster.local"],
            "options": [{"name": "ndots", "value": "5"}],
        },
    }
