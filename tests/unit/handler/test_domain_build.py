"""What a manifest means: VirtualMachineInstance → DomainSpec."""

from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_handler.network.facts import PodNetwork, Resolver
from podvisor_handler.network.plan import Masquerade, Port
from podvisor_handler.vmi.build import build_domain, guest_memory_bytes, masquerade_of
from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.identity import guest_hostname, machine_identity

from tests.unit.handler.builders import pod, vmi

NETWORK = PodNetwork(
    1450, ("10.244.0.7",), Resolver(("10.96.0.10",), ("default.svc.cluster.local",))
)


def domain(**fields: Any) -> dict[str, Any]:
    return {"domain": {"memory": {"guest": "64M"}, "devices": {}, **fields}}


def owned_by(kind: str, uid: str) -> dict[str, Any]:
    owner = {"apiVersion": "kubevirt.io/v1", "kind": kind, "name": "x", "uid": uid}
    return {"ownerReferences": [{**owner, "controller": True}]}


def test_a_minimal_machine() -> None:
    spec = build_domain(vmi(), pod(), NETWORK)
    assert (spec.namespace, spec.name, spec.uid) == ("default", "myvm", vmi().metadata.uid)
    assert spec.generation == 1
    assert spec.memory.guest_bytes == 64_000_000
    assert (spec.cpu.sockets, spec.cpu.cores, spec.cpu.threads) == (1, 1, 1)
    assert spec.machine_type == "q35"
    assert spec.accelerator == domain_pb2.ACCELERATOR_TCG
    assert spec.grace_period_s == 5
    assert spec.graphics
    assert spec.serial_console
    assert spec.serial_log


def test_a_guest_that_is_to_start_paused() -> None:
    assert not build_domain(vmi(), pod(), NETWORK).start_paused
    assert build_domain(vmi(spec={"startStrategy": "Paused"}), pod(), NETWORK).start_paused


def test_the_default_interface() -> None:
    (interface,) = build_domain(vmi(), pod(), NETWORK).interfaces
    assert (interface.name, interface.model, interface.tap) == ("default", "virtio", "tap0")
    assert interface.mtu_bytes == 1450
    lease = interface.dhcp
    assert (lease.bridge, lease.server, lease.gateway) == ("k6t-eth0", "10.0.2.1", "10.0.2.1")
    assert (lease.address, lease.prefix_length, lease.hostname) == ("10.0.2.2", 24, "myvm")
    assert list(lease.dns_servers) == ["10.96.0.10"]
    assert list(lease.dns_search) == ["default.svc.cluster.local"]


def test_the_same_instance_is_always_the_same_machine() -> None:
    assert build_domain(vmi(), pod(), NETWORK) == build_domain(vmi(), pod(), NETWORK)


def test_identity_outlives_the_instance_of_a_virtual_machine() -> None:
    first = vmi(uid="a", **owned_by("VirtualMachine", "vm-uid"))
    second = vmi(uid="b", **owned_by("VirtualMachine", "vm-uid"))
    assert machine_identity(first) == machine_identity(second)
    (one,), (two,) = (build_domain(each, pod(), NETWORK).interfaces for each in (first, second))
    assert one.mac == two.mac
    assert machine_identity(vmi(uid="a")) != machine_identity(vmi(uid="b"))
    other_owner = vmi(uid="a", **owned_by("VirtualMachineInstanceReplicaSet", "vm-uid"))
    assert machine_identity(other_owner) == machine_identity(vmi(uid="a"))


def test_a_made_up_mac_is_unicast_and_locally_administered() -> None:
    (interface,) = build_domain(vmi(), pod(), NETWORK).interfaces
    assert int(interface.mac.split(":")[0], 16) & 0b11 == 0b10


def test_the_pod_decides_on_kvm() -> None:
    assert build_domain(vmi(), pod(kvm=True), NETWORK).accelerator == domain_pb2.ACCELERATOR_KVM


@pytest.mark.parametrize(
    ("spec", "bytes_"),
    [
        (domain(memory={"guest": "1Gi"}), 1 << 30),
        ({"domain": {"resources": {"requests": {"memory": "64M"}}, "devices": {}}}, 64_000_000),
        ({"domain": {"resources": {"limits": {"memory": "128Mi"}}, "devices": {}}}, 128 << 20),
        (
            domain(memory={"guest": "1Gi"}, resources={"requests": {"memory": "2Gi"}}),
            1 << 30,
        ),
    ],
    ids=["guest", "requests", "limits", "guest before requests"],
)
def test_memory(spec: dict[str, Any], bytes_: int) -> None:
    assert guest_memory_bytes(vmi(spec=spec)) == bytes_


@pytest.mark.parametrize(
    ("fields", "topology"),
    [
        ({"cpu": {"cores": 2}}, (1, 2, 1)),
        ({"cpu": {"sockets": 2, "cores": 3, "threads": 2}}, (2, 3, 2)),
        ({"resources": {"requests": {"cpu": "1500m"}}}, (2, 1, 1)),
        ({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}}, (4, 1, 1)),
        ({"resources": {"requests": {"cpu": "100m"}}, "cpu": {"cores": 2}}, (1, 2, 1)),
    ],
)
def test_processors(fields: dict[str, Any], topology: tuple[int, int, int]) -> None:
    cpu = build_domain(vmi(spec=domain(**fields)), pod(), NETWORK).cpu
    assert (cpu.sockets, cpu.cores, cpu.threads) == topology


@pytest.mark.parametrize(
    ("model", "kvm", "built"),
    [
        ("host-model", True, "host-model"),
        ("host-model", False, ""),
        ("host-passthrough", False, ""),
        ("Haswell", False, "Haswell"),
    ],
)
def test_a_host_cpu_model_needs_kvm(model: str, kvm: bool, built: str) -> None:
    spec = domain(cpu={"model": model})
    assert build_domain(vmi(spec=spec), pod(kvm=kvm), NETWORK).cpu.model == built


def test_a_machine_of_no_size_cannot_be() -> None:
    with pytest.raises(SpecRefused, match=r"spec\.domain\.memory\.guest"):
        build_domain(vmi(spec={"domain": {"devices": {}}}), pod(), NETWORK)


@pytest.mark.parametrize(
    ("name", "hostname", "expected"),
    [
        ("myvm", "", "myvm"),
        ("myvm", "web", "web"),
        ("my.vm", "", "my"),
        ("a" * 62 + "-b", "", "a" * 62),
    ],
)
def test_host_names(name: str, hostname: str, expected: str) -> None:
    assert guest_hostname(vmi(name=name, spec={"hostname": hostname})) == expected


def test_listed_ports_and_another_guest_network() -> None:
    interface = {
        "name": "default",
        "masquerade": {},
        "ports": [{"port": 22}, {"port": 53, "protocol": "UDP"}],
    }
    spec = {
        **domain(devices={"interfaces": [interface]}),
        "networks": [{"name": "default", "pod": {"vmNetworkCIDR": "192.168.7.0/28"}}],
    }
    wanted = masquerade_of(vmi(spec=spec))
    assert wanted == Masquerade("192.168.7.0/28", (Port("tcp", 22), Port("udp", 53)))
    (built,) = build_domain(vmi(spec=spec), pod(), NETWORK).interfaces
    assert (built.dhcp.address, built.dhcp.prefix_length) == ("192.168.7.2", 28)


def test_no_interface() -> None:
    spec = domain(devices={"autoattachPodInterface": False})
    assert masquerade_of(vmi(spec=spec)) is None
    assert not build_domain(vmi(spec=spec), pod(), None).interfaces


def on_network(cidr: str) -> dict[str, Any]:
    interface = {"name": "default", "masquerade": {}}
    return {
        **domain(devices={"interfaces": [interface]}),
        "networks": [{"name": "default", "pod": {"vmNetworkCIDR": cidr}}],
    }


def test_a_network_may_be_named_by_an_address_in_it() -> None:
    """Admission lets it pass, as KubeVirt does."""
    assert masquerade_of(vmi(spec=on_network("10.0.3.7/24"))) == Masquerade("10.0.3.0/24")


def test_a_network_that_is_none() -> None:
    with pytest.raises(SpecRefused, match=r"spec\.networks"):
        masquerade_of(vmi(spec=on_network("10.0.2.0/33")))
