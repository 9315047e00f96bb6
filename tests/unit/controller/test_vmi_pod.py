"""The launcher pod: what it holds, what it asks for, and what it must not carry."""

from typing import Any

import msgspec
import pytest
from podvisor_common.api import v1
from podvisor_common.api.compatibility import compatibility_page
from podvisor_common.api.v1 import names
from podvisor_controller.config import ClusterConfig
from podvisor_controller.vmi.pod import launcher_pod_name, render_pod
from podvisor_controller.vmi.resources import MIB, memory_overhead_bytes

from tests.unit.controller.builders import CONFIG, IMAGE, UID, Json, situations, spec_body, vmi

KVM = ClusterConfig(launcher_image=IMAGE, image_volumes=True)
AFFINITY = {
    "podAntiAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {}, "namespaces": []},
            }
        ]
    }
}
KERNEL = {"image": "demo/kernel:1", "kernelPath": "/boot/vmlinuz"}
POOL = {"supplementalPoolThreadCount": 8}
LARGE_PAGES = {"guest": "128Mi", "hugepages": {"pageSize": "2048Ki"}}
SPREAD = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]


def rendered(
    instance: v1.VirtualMachineInstance | None = None, config: ClusterConfig = CONFIG
) -> Json:
    return render_pod(instance or vmi(), config, {})


def compute(manifest: Json) -> Json:
    container: Json = manifest["spec"]["containers"][0]
    return container


def test_the_name_depends_on_the_instance_alone() -> None:
    assert launcher_pod_name("myvm", UID) == launcher_pod_name("myvm", UID)
    assert launcher_pod_name("myvm", UID) != launcher_pod_name("myvm", "other")
    assert launcher_pod_name("myvm", UID).startswith("virt-launcher-myvm-")
    assert len(launcher_pod_name("myvm", UID)) == len("virt-launcher-myvm-") + 5


def test_who_it_is() -> None:
    instance = vmi(
        metadata={
            "labels": {"app": "demo"},
            "annotations": {
                "note": "kept",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "kubevirt.io/latest-observed-api-version": "v1",
            },
        }
    )
    metadata = rendered(instance)["metadata"]
    assert metadata["labels"] == {
        "app": "demo",
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": UID,
        "vmi.kubevirt.io/id": "myvm",
        "vm.kubevirt.io/name": "myvm",
    }
    assert metadata["annotations"] == {
        "note": "kept",
        "kubevirt.io/domain": "myvm",
        "kubevirt.io/memory-overhead-bytes": str(167 * MIB),
        "kubectl.kubernetes.io/default-container": "compute",
    }
    [owner] = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == (
        "VirtualMachineInstance",
        UID,
        True,
        True,
    )


def test_it_has_no_privilege() -> None:
    spec = rendered()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsUser"] == 107
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_containers_and_scratch_space() -> None:
    spec = rendered()["spec"]
    assert [c["name"] for c in spec["containers"]] == ["compute", "guest-console-log"]
    assert compute(rendered())["args"] == ["--grace-period-s=5"]
    assert spec["terminationGracePeriodSeconds"] == 35
    assert spec["restartPolicy"] == "Never"
    scratch = [v for v in spec["volumes"] if "emptyDir" in v]
    assert [v["name"] for v in scratch] == ["sockets", "private", "runtime", "console"]
    assert all(v["emptyDir"]["sizeLimit"] for v in scratch)
    assert [v["name"] for v in scratch if v["emptyDir"].get("medium") == "Memory"] == ["runtime"]
    [console_mount] = spec["containers"][1]["volumeMounts"]
    assert console_mount == {"name": "console", "mountPath": "/run/podvisor/console"}


def test_user_data_stays_out_of_the_pod() -> None:
    assert b"hunter2" not in msgspec.json.encode(rendered())


def test_placement_is_the_users_and_ours() -> None:
    spec = {
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "tolerationSeconds": 0}],
        "affinity": AFFINITY,
        "topologySpreadConstraints": SPREAD,
        "priorityClassName": "high",
        "architecture": "arm64",
        "hostname": "web.example",
        "subdomain": "shop",
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["10.0.0.1"], "options": [{"name": "edns0"}]},
    }
    instance = vmi(spec=spec)
    pod_spec = rendered(instance)["spec"]
    assert pod_spec["nodeSelector"] == {
        "disk": "fast",
        "kubevirt.io/schedulable": "true",
        "kubernetes.io/arch": "arm64",
    }
    assert pod_spec["tolerations"][0] == {
        "key": "gpu",
        "operator": "Exists",
        "tolerationSeconds": 0,
    }
    unchanged = ("affinity", "topologySpreadConstraints", "subdomain", "dnsPolicy", "dnsConfig")
    assert {name: pod_spec[name] for name in unchanged} == {name: spec[name] for name in unchanged}
    assert pod_spec["priorityClassName"] == "high"
    assert pod_spec["hostname"] == "web"
    assert rendered(instance)["metadata"]["labels"]["vm.kubevirt.io/name"] == "web"
    assert "schedulerName" not in pod_spec


@pytest.mark.parametrize(
    ("wanted", "seconds_by_key"),
    situations(
        ("nothing said", [], {"not-ready": None, "unreachable": None}),
        (
            "one of them said",
            [
                {
                    "key": "node.kubernetes.io/unreachable",
                    "operator": "Exists",
                    "tolerationSeconds": 9,
                }
            ],
            {"not-ready": None, "unreachable": 9},
        ),
        (
            "one of them said of another effect",
            [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}],
            {"not-ready": None, "unreachable": None},
        ),
    ),
)
def test_an_outage_of_its_node_ends_no_guest(wanted: Any, seconds_by_key: Any) -> None:
    """Kubernetes would delete the pod after five minutes, which takes effect when the node is back."""
    found = rendered(vmi(spec={"tolerations": wanted}))["spec"]["tolerations"]
    assert {
        toleration["key"].removeprefix("node.kubernetes.io/"): toleration.get("tolerationSeconds")
        for toleration in found
        if toleration.get("effect") in ("NoExecute", None)
    } == seconds_by_key
    assert all(toleration["operator"] == "Exists" for toleration in found)


def test_who_tolerates_everything_for_a_time_gets_that() -> None:
    everything = [{"operator": "Exists", "tolerationSeconds": 60}]
    assert rendered(vmi(spec={"tolerations": everything}))["spec"]["tolerations"] == everything


def test_kvm_is_asked_for_only_without_emulation() -> None:
    assert names.KVM_RESOURCE not in compute(rendered())["resources"]["requests"]
    resources = compute(rendered(config=KVM))["resources"]
    assert resources["limits"] == {names.KVM_RESOURCE: "1", names.VHOST_NET_RESOURCE: "1"}


PASST: Json = {"name": "default", "passtBinding": {}}
PORTS: Json = {"ports": [{"port": 22}]}
MASQUERADE: Json = {"name": "default", "masquerade": {}}
SHARES: list[dict[str, Any]] = [{"name": name, "virtiofs": {}} for name in ("config", "data")]


def domain(**changes: Any) -> v1.VirtualMachineInstance:
    return vmi(spec={"domain": spec_body()["domain"] | changes})


@pytest.mark.parametrize(
    ("interfaces", "sysctls"),
    situations(
        ("none named", [], None),
        ("masquerade", [MASQUERADE], None),
        (
            "passt",
            [PASST],
            {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647",
            },
        ),
        (
            "passt and another",
            [PASST, {"name": "blue", "bridge": {}}],
            {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647",
            },
        ),
    ),
)
def test_the_kubelet_sets_what_passt_needs(interfaces: list[Json], sysctls: Json | None) -> None:
    context = rendered(domain(devices={"interfaces": interfaces}))["spec"]["securityContext"]
    found = context.get("sysctls")
    assert (found and {each["name"]: each["value"] for each in found}) == sysctls


@pytest.mark.parametrize(
    ("instance", "config", "mebibytes"),
    situations(
        ("one processor under KVM", vmi(), KVM, 127),
        ("one processor, 1 GiB", domain(memory={"guest": "1Gi"}), KVM, 128),
        ("no video card", domain(devices={"autoattachGraphicsDevice": False}), KVM, 111),
        ("four processors", domain(cpu={"cores": 2, "threads": 2}), KVM, 139),
        ("two trees of files", domain(devices={"filesystems": SHARES}), KVM, 143),
        ("passt, all ports", domain(devices={"interfaces": [PASST]}), KVM, 431),
        ("passt, one port", domain(devices={"interfaces": [PASST | PORTS]}), KVM, 159),
        ("UEFI", domain(firmware={"bootloader": {"efi": {}}}), KVM, 137),
        ("a kernel", domain(firmware={"kernelBoot": {"container": KERNEL}}), KVM, 191),
        ("a card on virtio", domain(devices={"video": {"type": "virtio"}}), KVM, 175),
        ("a card of another kind", domain(devices={"video": {"type": "bochs"}}), KVM, 127),
        ("a TPM", domain(devices={"tpm": {}}), KVM, 137),
        ("no TPM", domain(devices={"tpm": {"enabled": False}}), KVM, 127),
        ("disks share a thread", domain(ioThreadsPolicy="shared"), KVM, 128),
        ("a thread for each disk", domain(ioThreadsPolicy="auto"), KVM, 128),
        ("a pool of threads", domain(ioThreadsPolicy="supplementalPool", ioThreads=POOL), KVM, 135),
        ("translated", vmi(), CONFIG, 167),
        ("translated, 384 MiB", domain(memory={"guest": "384Mi"}), CONFIG, 255),
        ("translated, 1 GiB", domain(memory={"guest": "1Gi"}), CONFIG, 384),
    ),
)
def test_memory_beside_the_guests(
    instance: v1.VirtualMachineInstance, config: ClusterConfig, mebibytes: int
) -> None:
    assert memory_overhead_bytes(instance, config) == mebibytes * MIB


def test_what_passt_takes_is_told_to_whoever_comes_from_kubevirt() -> None:
    without, listed, all_ports = (
        memory_overhead_bytes(domain(devices={"interfaces": interfaces}), KVM) // MIB
        for interfaces in ([], [PASST | PORTS], [PASST])
    )
    told = f"adds {listed - without} MiB to the pod's memory, or {all_ports - without} MiB where no `ports` are listed"
    assert told in " ".join(compatibility_page().split())


@pytest.mark.parametrize(
    ("instance", "requests", "limits"),
    situations(
        ("as the introduction", vmi(), {"cpu": "100m", "memory": 64_000_000 + 167 * MIB}, None),
        (
            "processors asked for",
            domain(resources={"requests": {"memory": "64M", "cpu": "2"}}),
            {"cpu": "2", "memory": 64_000_000 + 167 * MIB},
            None,
        ),
        (
            "limits",
            domain(resources={"limits": {"memory": "128Mi", "cpu": "1"}}),
            {"cpu": "1", "memory": (128 + 169) * MIB},
            {"cpu": "1", "memory": str((128 + 169) * MIB)},
        ),
        (
            "less than the guest sees",
            domain(memory={"guest": "128Mi"}, resources={"requests": {"memory": "100Mi"}}),
            {"cpu": "100m", "memory": (100 + 169) * MIB},
            None,
        ),
        (
            "a device and room on the node's disk",
            domain(
                resources={
                    "requests": {"memory": "64M", "ephemeral-storage": "1Gi"},
                    "limits": {"example.com/fpga": 1},
                }
            ),
            {"cpu": "100m", "ephemeral-storage": "1Gi", "memory": 64_000_000 + 167 * MIB},
            {"example.com/fpga": 1},
        ),
        (
            "nothing beyond the guest's",
            domain(resources={"requests": {"memory": "64M"}, "overcommitGuestOverhead": True}),
            {"cpu": "100m", "memory": 64_000_000},
            None,
        ),
        (
            "a limit beyond the guest's all the same",
            domain(
                resources={
                    "limits": {"memory": "128Mi", "cpu": "1"},
                    "overcommitGuestOverhead": True,
                }
            ),
            {"cpu": "1", "memory": 128 * MIB},
            {"cpu": "1", "memory": str((128 + 169) * MIB)},
        ),
        (
            "large pages",
            domain(memory=LARGE_PAGES, resources={}),
            {"cpu": "100m", "hugepages-2Mi": str(128 * MIB), "memory": 169 * MIB},
            {"hugepages-2Mi": str(128 * MIB)},
        ),
        (
            "large pages, more memory and a limit",
            domain(
                memory=LARGE_PAGES,
                resources={"requests": {"memory": "256Mi"}, "limits": {"memory": "256Mi"}},
            ),
            {"cpu": "100m", "hugepages-2Mi": str(128 * MIB), "memory": (128 + 169) * MIB},
            {"hugepages-2Mi": str(128 * MIB), "memory": str((128 + 169) * MIB)},
        ),
        (
            "two processors",
            domain(cpu={"sockets": 2}),
            {"cpu": "200m", "memory": 64_000_000 + 171 * MIB},
            None,
        ),
    ),
)
def test_what_the_pod_asks_of_its_node(
    instance: v1.VirtualMachineInstance, requests: Json, limits: Any
) -> None:
    resources = compute(rendered(instance))["resources"]
    assert resources["requests"] == {**requests, "memory": str(requests["memory"])}
    assert resources.get("limits") == limits


@pytest.mark.parametrize(
    ("devices", "cluster_says", "copied"),
    situations(
        ("by default", {}, True, True),
        ("the cluster does not", {}, False, False),
        ("the machine insists", {"logSerialConsole": True}, False, True),
        ("the machine declines", {"logSerialConsole": False}, True, False),
        ("no serial console", {"autoattachSerialConsole": False}, True, False),
    ),
)
def test_when_the_console_is_copied(devices: Json, cluster_says: bool, copied: bool) -> None:
    config = ClusterConfig(launcher_image=IMAGE, log_serial_console=cluster_says)
    containers = rendered(domain(devices=devices), config)["spec"]["containers"]
    assert ("guest-console-log" in [c["name"] for c in containers]) == copied


def test_new_launchers_log_more_when_the_settings_say_so() -> None:
    assert "env" not in compute(rendered())
    config = ClusterConfig(launcher_image=IMAGE, debug_launcher=True)
    assert compute(rendered(config=config))["env"] == [{"name": "LOG_LEVEL", "value": "DEBUG"}]


@pytest.mark.parametrize(("percent", "backed"), [(100, 1 << 30), (200, 512 << 20)])
def test_memory_overcommit_is_for_guests_that_ask_for_no_request(percent: int, backed: int) -> None:
    config = ClusterConfig(
        launcher_image=IMAGE, use_emulation=True, memory_overcommit_percent=percent
    )
    instance = domain(memory={"guest": "1Gi"}, resources={})
    requested = int(compute(rendered(instance, config))["resources"]["requests"]["memory"])
    assert requested - memory_overhead_bytes(instance, config) == backed
