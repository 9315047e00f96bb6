"""What a manifest means: VirtualMachineInstance → DomainSpec."""

from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_handler.vmi.build import build_domain, guest_memory_bytes
from podvisor_handler.vmi.errors import SpecRefused
from podvisor_handler.vmi.identity import guest_hostname, machine_identity

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.networks import WIRED


def domain(**fields: Any) -> dict[str, Any]:
    return {"domain": {"memory": {"guest": "64M"}, "devices": {}, **fields}}


def owned_by(kind: str, uid: str) -> dict[str, Any]:
    owner = {"apiVersion": "kubevirt.io/v1", "kind": kind, "name": "x", "uid": uid}
    return {"ownerReferences": [{**owner, "controller": True}]}


def test_a_minimal_machine() -> None:
    spec = build_domain(vmi(), pod(), WIRED)
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
    assert not build_domain(vmi(), pod(), WIRED).start_paused
    assert build_domain(vmi(spec={"startStrategy": "Paused"}), pod(), WIRED).start_paused


def test_the_same_instance_is_always_the_same_machine() -> None:
    assert build_domain(vmi(), pod(), WIRED) == build_domain(vmi(), pod(), WIRED)


def test_identity_outlives_the_instance_of_a_virtual_machine() -> None:
    first = vmi(uid="a", **owned_by("VirtualMachine", "vm-uid"))
    second = vmi(uid="b", **owned_by("VirtualMachine", "vm-uid"))
    assert machine_identity(first) == machine_identity(second)
    (one,), (two,) = (build_domain(each, pod(), WIRED).interfaces for each in (first, second))
    assert one.mac == two.mac
    assert machine_identity(vmi(uid="a")) != machine_identity(vmi(uid="b"))
    other_owner = vmi(uid="a", **owned_by("VirtualMachineInstanceReplicaSet", "vm-uid"))
    assert machine_identity(other_owner) == machine_identity(vmi(uid="a"))


def test_a_made_up_mac_is_unicast_and_locally_administered() -> None:
    (interface,) = build_domain(vmi(), pod(), WIRED).interfaces
    assert int(interface.mac.split(":")[0], 16) & 0b11 == 0b10


def test_the_pod_decides_on_kvm() -> None:
    assert build_domain(vmi(), pod(kvm=True), WIRED).accelerator == domain_pb2.ACCELERATOR_KVM


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
    cpu = build_domain(vmi(spec=domain(**fields)), pod(), WIRED).cpu
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
    assert build_domain(vmi(spec=spec), pod(kvm=kvm), WIRED).cpu.model == built


def test_a_machine_of_no_size_cannot_be() -> None:
    with pytest.raises(SpecRefused, match=r"spec\.domain\.memory\.guest"):
        build_domain(vmi(spec={"domain": {"devices": {}}}), pod(), WIRED)


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
