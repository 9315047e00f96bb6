"""What networks and interfaces may be together, and what of them the cluster permits."""

from typing import Any

import pytest
from jsonschema import Draft7Validator
from podvisor_controller.webhooks.permitted import Permitted
from podvisor_controller.webhooks.validation import (
    validate_virtual_machine,
    validate_virtual_machine_instance,
)
from podvisor_controller.webhooks.validation_pools import validate_virtual_machine_pool
from podvisor_controller.webhooks.validation_sets import validate_replica_set

from tests.support.manifests.places import schema_of, written
from tests.unit.api.machines import Json, machine
from tests.unit.api.test_validation_pools import pool
from tests.unit.api.test_validation_sets import replica_set
from tests.unit.controller.builders import situations

NICS = "domain.devices.interfaces"
POD = {"name": "default", "pod": {}}
NETWORKS = "k8s.v1.cni.cncf.io/networks"


def lan(name: str = "lan", definition: str = "lan", **changes: Any) -> Json:
    return {"name": name, "multus": {"networkName": definition} | changes}


def nic(name: str = "lan", binding: str = "bridge", **changes: Any) -> Json:
    return {"name": name, binding: {}} | changes


def attached(networks: list[Json], interfaces: list[Json], **changes: Any) -> Json:
    """The good machine with these networks and interfaces."""
    obj = machine()
    spec = obj["spec"]["template"]["spec"]
    spec |= {"networks": networks} | changes
    spec["domain"]["devices"]["interfaces"] = interfaces
    return obj


def on_pod(**changes: Any) -> Json:
    """The good machine with changes to its one interface."""
    return attached([POD], [nic("default", "masquerade", **changes)])


def dhcp(**options: Any) -> Json:
    return on_pod(dhcpOptions=options)


@pytest.mark.parametrize(
    "obj",
    situations(
        ("bridge", attached([POD], [nic("default")])),
        ("passt", attached([POD], [nic("default", "passtBinding")])),
        ("a second network", attached([POD, lan()], [nic("default", "masquerade"), nic()])),
        ("of another namespace", attached([lan(definition="net-1/lan.a")], [nic()])),
        ("in place of the pod network", attached([lan(default=True)], [nic()])),
        ("one of several", attached([lan("a"), lan("b", default=True)], [nic("a"), nic("b")])),
        ("no network", attached([], [])),
        ("unplugged", attached([POD, lan()], [nic("default"), nic(state="absent")])),
        ("no carrier", on_pod(state="down")),
        ("in its place", on_pod(pciAddress="0000:81:00.0", acpiIndex=16383, tag="up link")),
        (
            "with an IPv6 network",
            attached(
                [{"name": "default", "pod": {"vmIPv6NetworkCIDR": "fd00:1::/126"}}],
                [nic("default", "masquerade")],
            ),
        ),
        (
            "told by DHCP",
            dhcp(
                bootFileName="a" * 255,
                tftpServerName="tftp.example",
                ntpServers=["10.0.0.1", "10.0.0.2"],
                privateOptions=[{"option": 224, "value": "é" * 127}, {"option": 254, "value": "b"}],
            ),
        ),
    ),
)
def test_good(obj: Json) -> None:
    assert validate_virtual_machine(obj) == []


@pytest.mark.parametrize(
    ("obj", "field", "words"),
    situations(
        (
            "masquerade of another network",
            attached([lan()], [nic(binding="masquerade")]),
            f"{NICS}[0].masquerade",
            "only implemented with the pod network",
        ),
        (
            "masquerade of what takes the place of the pod network",
            attached([lan(default=True)], [nic(binding="masquerade")]),
            f"{NICS}[0].masquerade",
            "only implemented with the pod network",
        ),
        (
            "passt of another network",
            attached([lan()], [nic(binding="passtBinding")]),
            f"{NICS}[0].passtBinding",
            "only implemented with the pod network",
        ),
        (
            "two that are the pod's own",
            attached([lan("a", default=True), lan("b", default=True)], [nic("a"), nic("b")]),
            "networks[1].multus.default",
            "spec.template.spec.networks[0] is the one there can be",
        ),
        (
            "the pod network and what takes its place",
            attached([lan(default=True), POD], [nic(), nic("default")]),
            "networks[0].multus.default",
            "spec.template.spec.networks[1], which is that, cannot be",
        ),
        (
            "no definition",
            attached([lan(definition="")], [nic()]),
            "networks[0].multus.networkName",
            "it must name a NetworkAttachmentDefinition",
        ),
        *(
            (
                f"definition {name!r}",
                attached([lan(definition=name)], [nic()]),
                "networks[0].multus.networkName",
                "it must be `name` or `namespace/name`",
            )
            for name in ("A", "a/", "/a", "a/b/c", "a.b/c", "a b", "a@eth1", "a,b", "-")
        ),
        (
            "one hardware address twice",
            attached(
                [POD, lan()],
                [
                    nic("default", macAddress="02:00:00:00:0a:01"),
                    nic(macAddress="02-00-00-00-0A-01"),
                ],
            ),
            f"{NICS}[1].macAddress",
            "is that of spec.template.spec.domain.devices.interfaces[0].macAddress",
        ),
        (
            "one PCI address twice",
            attached(
                [POD, lan()],
                [
                    nic("default", pciAddress="0000:0a:00.0"),
                    nic(pciAddress="0000:0A:00.0"),
                ],
            ),
            f"{NICS}[1].pciAddress",
            "is that of",
        ),
        *(
            (
                "PCI address",
                on_pod(pciAddress=address),
                f"{NICS}[0].pciAddress",
                "it must be from 0000:01:00.0 to 0000:e0:00.0",
            )
            for address in (
                "0000:81:01.0",
                "0000:81:00.1",
                "0001:81:00.0",
                "0000:00:00.0",
                "0000:e1:00.0",
                "81:00.0",
                "0000:81:00.00",
            )
        ),
        ("no ACPI index", on_pod(acpiIndex=0), f"{NICS}[0].acpiIndex", "between 1 and 16383"),
        (
            "large ACPI index",
            on_pod(acpiIndex=16384),
            f"{NICS}[0].acpiIndex",
            "between 1 and 16383",
        ),
        (
            "ACPI index twice",
            attached([POD, lan()], [nic("default", acpiIndex=1), nic(acpiIndex=1)]),
            f"{NICS}[1].acpiIndex",
            "1 is that of",
        ),
        (
            "ACPI index of another architecture",
            attached([POD], [nic("default", acpiIndex=1)], architecture="arm64"),
            f"{NICS}[0].acpiIndex",
            "only of amd64",
        ),
        ("state", on_pod(state="off"), f"{NICS}[0].state", "must be one of: up, down, absent"),
        (
            "unplugged masquerade",
            on_pod(state="absent"),
            f"{NICS}[0].state",
            "only for binding bridge",
        ),
        (
            "unplugged pod network",
            attached([POD], [nic("default", state="absent")]),
            f"{NICS}[0].state",
            "not supported on the pod's own network",
        ),
        (
            "unplugged in place of the pod network",
            attached([lan(default=True)], [nic(state="absent")]),
            f"{NICS}[0].state",
            "not supported on the pod's own network",
        ),
        ("tag", on_pod(tag="a\nb"), f"{NICS}[0].tag", "control characters"),
        ("port 0", on_pod(ports=[{"port": 0}]), f"{NICS}[0].ports[0].port", "between 1 and 65535"),
        (
            "port 65536",
            on_pod(ports=[{"port": 65536}]),
            f"{NICS}[0].ports[0].port",
            "between 1 and 65535",
        ),
        (
            "IPv6 network",
            attached(
                [{"name": "default", "pod": {"vmIPv6NetworkCIDR": "10.0.2.0/24"}}],
                [nic("default", "masquerade")],
            ),
            "networks[0].pod.vmIPv6NetworkCIDR",
            "is not an IPv6 network such as fd10:0:2::/120",
        ),
        (
            "small IPv6 network",
            attached(
                [{"name": "default", "pod": {"vmIPv6NetworkCIDR": "fd00::/127"}}],
                [nic("default", "masquerade")],
            ),
            "networks[0].pod.vmIPv6NetworkCIDR",
            "at most /126",
        ),
        (
            "IPv6 network of a link",
            attached(
                [{"name": "default", "pod": {"vmIPv6NetworkCIDR": "fe80::/64"}}],
                [nic("default", "masquerade")],
            ),
            "networks[0].pod.vmIPv6NetworkCIDR",
            "holds no addresses that a guest can have",
        ),
        (
            "IPv6 time server",
            dhcp(ntpServers=["10.0.0.1", "fd00::1"]),
            f"{NICS}[0].dhcpOptions.ntpServers[1]",
            "must be an IPv4 address",
        ),
        (
            "many time servers",
            dhcp(ntpServers=["10.0.0.1"] * 64),
            f"{NICS}[0].dhcpOptions.ntpServers",
            "of which an option holds 63",
        ),
        (
            "option of a standard",
            dhcp(privateOptions=[{"option": 43, "value": "a"}]),
            f"{NICS}[0].dhcpOptions.privateOptions[0].option",
            "between 224 and 254",
        ),
        (
            "option twice",
            dhcp(privateOptions=[{"option": 224, "value": "a"}] * 2),
            f"{NICS}[0].dhcpOptions.privateOptions[1].option",
            "used twice",
        ),
        (
            "long option",
            dhcp(privateOptions=[{"option": 224, "value": "é" * 128}]),
            f"{NICS}[0].dhcpOptions.privateOptions[0].value",
            "at most 255 bytes",
        ),
        (
            "long name of a file",
            dhcp(bootFileName="a" * 256),
            f"{NICS}[0].dhcpOptions.bootFileName",
            "at most 255 bytes",
        ),
        (
            "DHCP with passt",
            attached([POD], [nic("default", "passtBinding", dhcpOptions={"bootFileName": "a"})]),
            f"{NICS}[0].dhcpOptions",
            "is not supported with passtBinding",
        ),
        *(
            (
                f"binding {name}",
                attached([POD], [nic("default", name)]),
                f"{NICS}[0].{name}",
                "is not supported yet",
            )
            for name in ("slirp", "macvtap", "passt", "sriov", "binding")
        ),
    ),
)
def test_bad(obj: Json, field: str, words: str) -> None:
    [cause] = validate_virtual_machine(obj)
    assert cause.field == f"spec.template.spec.{field}"
    assert cause.message.startswith(cause.field)
    assert words in cause.message


def test_the_cluster_may_permit_no_bridge_on_the_pod_network() -> None:
    permitted = Permitted(bridge_on_pod_network=False)
    obj = attached([POD, lan()], [nic("default"), nic()])
    [cause] = validate_virtual_machine(obj, permitted=permitted)
    assert cause.field == f"spec.template.spec.{NICS}[0].bridge"
    assert "permitBridgeInterfaceOnPodNetwork of the KubeVirt resource is false" in cause.message
    instead = attached([lan(default=True)], [nic()])
    assert validate_virtual_machine(instead, permitted=permitted) == []


@pytest.mark.parametrize("port", [0, 65536])
def test_a_port_that_there_is_not_is_named_in_every_kind(port: int) -> None:
    """By the schema as well, which is asked first."""
    obj = on_pod(ports=[{"port": port}])
    of_instance = {**obj, "kind": "VirtualMachineInstance", "spec": obj["spec"]["template"]["spec"]}
    of_pool = pool()
    of_pool["spec"]["virtualMachineTemplate"]["spec"] = obj["spec"]
    for manifest, validate, prefix in (
        (obj, validate_virtual_machine, "spec.template.spec"),
        (of_instance, validate_virtual_machine_instance, "spec"),
        (replica_set(obj), validate_replica_set, "spec.template.spec"),
        (
            of_pool,
            validate_virtual_machine_pool,
            "spec.virtualMachineTemplate.spec.template.spec",
        ),
    ):
        field = f"{prefix}.{NICS}[0].ports[0].port"
        [cause] = validate(manifest)
        assert cause.field == field
        version = manifest["apiVersion"].rpartition("/")[2]
        validator = Draft7Validator(schema_of(manifest["kind"], version))
        found = [written(tuple(e.absolute_path)) for e in validator.iter_errors(manifest)]
        assert found == [field]


@pytest.mark.parametrize("value", ["a,b@x", "shop/a@x", '[{"name": "a"}]', ""])
def test_people_may_ask_multus_for_more(value: str) -> None:
    obj = attached([POD, lan()], [nic("default", "masquerade"), nic()])
    obj["spec"]["template"]["metadata"] = {"annotations": {NETWORKS: value}}
    assert validate_virtual_machine(obj) == []


def test_what_multus_cannot_read_is_refused_beside_its_networks() -> None:
    obj = attached([POD, lan()], [nic("default", "masquerade"), nic()])
    obj["spec"]["template"]["metadata"] = {"annotations": {NETWORKS: "a/b/c"}}
    [cause] = validate_virtual_machine(obj)
    assert cause.field == f"spec.template.metadata.annotations[{NETWORKS}]"
    assert '"a/b/c" is no network: it must be `name`' in cause.message
    one = {"kind": "VirtualMachineInstance", "spec": obj["spec"]["template"]["spec"]}
    metadata = {**obj["metadata"], "annotations": {NETWORKS: "[1]"}}
    [cause] = validate_virtual_machine_instance({**obj, **one, "metadata": metadata})
    assert cause.field == f"metadata.annotations[{NETWORKS}]"
    alone = on_pod()
    alone["spec"]["template"]["metadata"] = {"annotations": {NETWORKS: "a/b/c"}}
    assert validate_virtual_machine(alone) == []
