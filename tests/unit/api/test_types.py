"""Objects decode whatever is stored, encode what the API expects, and spell names as Kubernetes does."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, meta, v1
from podvisor_common.api.base import json_name
from podvisor_common.api.unsupported import UNSUPPORTED

VMI: dict[str, Any] = {
    "apiVersion": "kubevirt.io/v1",
    "kind": "VirtualMachineInstance",
    "metadata": {"name": "myvm", "namespace": "default", "uid": "1"},
    "spec": {
        "domain": {
            "resources": {"requests": {"memory": "64M", "cpu": 1}},
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [
                    {"name": "default", "masquerade": {}, "macAddress": "02:00:00:00:00:01"}
                ],
            },
        },
        "networks": [{"name": "default", "pod": {"vmNetworkCIDR": "10.0.3.0/24"}}],
        "volumes": [{"name": "root", "containerDisk": {"image": "disk"}}],
    },
    "status": {"phase": "Running", "nodeName": "node1", "currentCPUTopology": {"cores": 1}},
}


def test_decoded_object_encodes_to_itself() -> None:
    vmi = msgspec.convert(VMI, v1.VirtualMachineInstance)
    assert msgspec.json.decode(msgspec.json.encode(vmi)) == VMI


def test_unknown_fields_and_odd_values_do_not_stop_decoding() -> None:
    odd = {
        **VMI,
        "extra": 1,
        "status": {"phase": "Dreaming", "conditions": [{"type": "Ready", "status": "Maybe"}]},
    }
    vmi = msgspec.convert(odd, v1.VirtualMachineInstance)
    assert vmi.status.phase == "Dreaming"


def test_new_objects_carry_version_and_kind() -> None:
    lease = core.Lease(metadata=meta.ObjectMeta(name="x"))
    assert msgspec.to_builtins(lease)["apiVersion"] == "coordination.k8s.io/v1"
    assert msgspec.to_builtins(lease)["kind"] == "Lease"


def test_items_of_a_list_answer_need_no_version() -> None:
    pod = msgspec.json.decode(
        b'{"metadata":{"name":"p"},"status":{"phase":"Running"}}', type=core.Pod
    )
    assert pod.status.phase == "Running"
    assert not pod.is_terminal


@pytest.mark.parametrize(
    ("python_name", "expected"),
    [
        ("pod_ip", "podIP"),
        ("user_data_base64", "userDataBase64"),
        ("vm_network_cidr", "vmNetworkCIDR"),
        ("ip_addresses", "ipAddresses"),
        ("qos_class", "qosClass"),
    ],
)
def test_json_name(python_name: str, expected: str) -> None:
    assert json_name(python_name) == expected


def test_secrets_stay_out_of_representations() -> None:
    secret = core.Secret(metadata=meta.ObjectMeta(name="s"), data={"userdata": "aGlkZGVu"})
    cloud_init = v1.CloudInitNoCloud(user_data="hidden")
    volume = v1.Volume(name="c", cloud_init_no_cloud=cloud_init)
    assert "aGlkZGVu" not in repr(secret)
    assert "hidden" not in repr(volume)


def test_run_strategy_is_read_from_either_field() -> None:
    template = v1.VirtualMachineInstanceTemplateSpec(
        spec=msgspec.convert(VMI["spec"], v1.VirtualMachineInstanceSpec)
    )

    def machine(**spec: Any) -> v1.VirtualMachine:
        return v1.VirtualMachine(
            metadata=meta.ObjectMeta(), spec=v1.VirtualMachineSpec(template=template, **spec)
        )

    assert machine(running=True).effective_run_strategy == "Always"
    assert machine(running=False).effective_run_strategy == "Halted"
    assert machine(run_strategy="Once").effective_run_strategy == "Once"


def test_no_field_is_implemented_and_unsupported() -> None:
    for struct, unsupported in UNSUPPORTED.items():
        implemented = {field.encode_name for field in msgspec.structs.fields(struct)}
        assert implemented.isdisjoint(unsupported), struct


def test_times_have_the_precision_of_their_type() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert meta.format_time(moment) == "2026-01-02T03:04:05Z"
    assert meta.format_micro_time(moment) == "2026-01-02T03:04:05.678901Z"
    assert meta.parse_time("2026-01-02T03:04:05.678901Z") == moment
    assert meta.parse_time("2026-01-02T04:04:05+01:00") == moment.replace(microsecond=0)
    assert (
        meta.format_time(moment.astimezone(timezone(timedelta(hours=9)))) == "2026-01-02T03:04:05Z"
    )


@pytest.mark.parametrize("text", ["yesterday", "2026-01-02T03:04:05"])
def test_not_a_time(text: str) -> None:
    with pytest.raises(ValueError):
        meta.parse_time(text)
