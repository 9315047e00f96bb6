"""Each bad input has its own error, which names the field and says what to do."""

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest
from podvisor_common.api import v1
from podvisor_common.api.unsupported import UNSUPPORTED
from podvisor_controller.webhooks.conversion import convert
from podvisor_controller.webhooks.validation import (
    Cause,
    validate_virtual_machine,
    validate_virtual_machine_instance,
    validate_virtual_machine_instance_update,
    warnings_of,
)
from podvisor_controller.webhooks.validation_fields import is_dns_label, is_dns_subdomain
from podvisor_controller.webhooks.validation_paths import causes_as_written, warnings_as_written

Json = dict[str, Any]
V1ALPHA1 = "kubevirt.io/v1alpha1"


def machine() -> Json:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": "myvm", "namespace": "default"},
        "spec": {
            "runStrategy": "Always",
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "domain": {
                        "resources": {"requests": {"memory": "64M"}},
                        "devices": {
                            "disks": [
                                {"name": "root", "disk": {"bus": "virtio"}},
                                {"name": "seed", "disk": {"bus": "virtio"}},
                            ],
                            "interfaces": [{"name": "default", "masquerade": {}}],
                        },
                    },
                    "networks": [{"name": "default", "pod": {}}],
                    "volumes": [
                        {"name": "root", "containerDisk": {"image": "quay.io/disks/cirros:1.0"}},
                        {"name": "seed", "cloudInitNoCloud": {"userData": "#cloud-config\n"}},
                    ],
                },
            },
        },
    }


def changed(path: str, value: Any) -> Json:
    """The good machine with one value changed; a path is relative to the instance's specification."""
    obj = machine()
    target: Any = obj["spec"]["template"]["spec"]
    *parents, last = path.split("/")
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
    if isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value
    return obj


def test_good_machine_is_admitted() -> None:
    assert validate_virtual_machine(machine()) == []


DISKS = "domain.devices.disks"
NICS = "domain.devices.interfaces"


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        (
            "domain/devices/disks/1/name",
            "nothing",
            f"{DISKS}[1].name",
            "'nothing' not found: there is no volume",
        ),
        (
            "domain/devices/disks/1/name",
            "root",
            f"{DISKS}[1].name",
            "must not have the same Name ('root')",
        ),
        ("domain/devices/disks/1/cdrom", {}, f"{DISKS}[1]", "must have only a single target"),
        (
            "domain/devices/disks/1/disk/bus",
            "ide",
            f"{DISKS}[1].disk.bus",
            "IDE bus is not supported",
        ),
        (
            "domain/devices/disks/1/disk/bus",
            "fdc",
            f"{DISKS}[1].disk.bus",
            "unrecognized bus 'fdc', must be one of",
        ),
        (
            "domain/devices/disks/1",
            {"name": "seed", "cdrom": {"bus": "virtio"}},
            f"{DISKS}[1].cdrom.bus",
            "CD-ROM",
        ),
        (
            "domain/devices/disks/1/disk",
            {"bus": "sata", "readonly": True},
            f"{DISKS}[1].disk.readonly",
            "read-only",
        ),
        (
            "domain/devices/disks/1/serial",
            "a b",
            f"{DISKS}[1].serial",
            "made up of the following characters",
        ),
        ("domain/devices/disks/1/bootOrder", 0, f"{DISKS}[1].bootOrder", "boot order > 0"),
        ("domain/devices/gpus", [{}], "domain.devices.gpus", "is not supported yet"),
        ("domain/devices/disks/0/lun", {}, f"{DISKS}[0].lun", "is not supported yet"),
        (
            "domain/resources/requests/memory",
            0,
            "domain.resources.requests.memory",
            "'0': must be greater than",
        ),
        (
            "domain/resources/requests/memory",
            "64Q",
            "domain.resources.requests.memory",
            "'64Q' is not a quantity",
        ),
        (
            "domain/resources/requests/memory",
            "-64M",
            "domain.resources.requests.memory",
            "'-64M': must be greater",
        ),
        (
            "domain/resources/limits/memory",
            "32M",
            "domain.resources.requests.memory",
            "greater than spec.template",
        ),
        (
            "domain/resources/requests/cpu",
            "x",
            "domain.resources.requests.cpu",
            "'x' is not a quantity",
        ),
        ("domain/resources/requests", {}, "domain.memory", "no memory requested"),
        ("domain/memory/guest", "64Q", "domain.memory.guest", "'64Q' is not a quantity"),
        ("domain/memory/guest", "1k", "domain.memory.guest", "greater than or equal to 1M"),
        ("domain/cpu/cores", 0, "domain.cpu.cores", "must be greater than 0"),
        ("domain/cpu", {"cores": 100, "sockets": 100}, "domain.cpu", "asks for 10000 processors"),
        ("domain/cpu/model", "a b", "domain.cpu.model", "is not the name of a CPU model"),
        (
            "domain/machine/type",
            "isapc",
            "domain.machine.type",
            "is not supported: isapc (allowed values: [q35*",
        ),
        ("domain/firmware/uuid", "x", "domain.firmware.uuid", "'x' is not a UUID"),
        ("hostname", "A_b", "hostname", "does not conform to the DNS-1123 label rules"),
        ("subdomain", "-", "subdomain", "does not conform to the DNS-1123 subdomain rules"),
        ("architecture", "vax", "architecture", "must be one of: amd64"),
        (
            "terminationGracePeriodSeconds",
            -1,
            "terminationGracePeriodSeconds",
            "must not be negative",
        ),
        ("volumes/1/name", "root", "volumes[1].name", "must not have the same Name ('root')"),
        ("volumes/1", {"name": "seed"}, "volumes[1]", "must have exactly one source, not none"),
        (
            "volumes/1/containerDisk",
            {"image": "x"},
            "volumes[1]",
            "not containerDisk and cloudInitNoCloud",
        ),
        (
            "volumes/1",
            {"name": "seed", "dataVolume": {}},
            "volumes[1].dataVolume",
            "is not supported yet",
        ),
        (
            "volumes/0/containerDisk/image",
            "",
            "volumes[0].containerDisk.image",
            "must name an image",
        ),
        (
            "volumes/0/containerDisk/image",
            "A:B:C",
            "volumes[0].containerDisk.image",
            "not a valid image reference",
        ),
        (
            "volumes/0/containerDisk/path",
            "../x",
            "volumes[0].containerDisk.path",
            "must be an absolute path",
        ),
        (
            "volumes/0/containerDisk/path",
            "/",
            "volumes[0].containerDisk.path",
            "must be an absolute path",
        ),
        (
            "volumes/0/containerDisk/imagePullPolicy",
            "x",
            "volumes[0].containerDisk.imagePullPolicy",
            "one of: Always",
        ),
        (
            "volumes/0/containerDisk/imagePullSecret",
            "_",
            "volumes[0].containerDisk.imagePullSecret",
            "not a name",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {},
            "volumes[1].cloudInitNoCloud",
            "at least one userdatasource",
        ),
        (
            "volumes/1/cloudInitNoCloud/userDataBase64",
            "eA==",
            "volumes[1].cloudInitNoCloud",
            "must have only one userdatasource set, not userData and userDataBase64",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"userDataBase64": "no base64!"},
            "volumes[1].cloudInitNoCloud.userDataBase64",
            "is not a valid base64 value",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"userData": "é" * 1025},
            "volumes[1].cloudInitNoCloud.userData",
            "exceeds 2048 byte limit (it has 2050). Should use secretRef for larger data.",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"networkDataBase64": base64.b64encode(b"x" * 2049).decode()},
            "volumes[1].cloudInitNoCloud.networkDataBase64",
            "exceeds 2048 byte limit (it has 2049). Should use networkDataSecretRef",
        ),
        (
            "volumes/1/cloudInitNoCloud",
            {"secretRef": {"name": "A B"}},
            "volumes[1].cloudInitNoCloud.secretRef.name",
            "is not the name of a Secret",
        ),
        ("networks", [], f"{NICS}[0].name", "'default' not found: there is no network"),
        (
            "domain/devices/interfaces",
            [],
            "networks[0].name",
            "'default' not found: there is no interface",
        ),
        ("networks/0", {"name": "default"}, "networks[0]", "should have a network type"),
        (
            "networks/0",
            {"name": "default", "multus": {}},
            "networks[0].multus",
            "is not supported yet",
        ),
        (
            "networks/0/pod/vmNetworkCIDR",
            "10.0.2",
            "networks[0].pod.vmNetworkCIDR",
            "is not an IPv4 network",
        ),
        (
            "networks/0/pod/vmNetworkCIDR",
            "10.0.2.0/31",
            "networks[0].pod.vmNetworkCIDR",
            "is too small",
        ),
        ("domain/devices/interfaces/0", {"name": "default"}, f"{NICS}[0]", "must have a binding"),
        (
            "domain/devices/interfaces/0",
            {"name": "default", "bridge": {}},
            f"{NICS}[0].bridge",
            "is not supported yet",
        ),
        (
            "domain/devices/interfaces/0/model",
            "ne1",
            f"{NICS}[0].model",
            "'ne1' is not supported, must be one of",
        ),
        (
            "domain/devices/interfaces/0/macAddress",
            "zz",
            f"{NICS}[0].macAddress",
            "malformed MAC address",
        ),
        (
            "domain/devices/interfaces/0/macAddress",
            "01:00:00:00:00:01",
            f"{NICS}[0].macAddress",
            "multicast",
        ),
        (
            "domain/devices/interfaces/0/macAddress",
            "02-00-00-00-00-00",
            f"{NICS}[0].macAddress",
            "reserved",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 0}],
            f"{NICS}[0].ports[0].port",
            "between 1 and 65535",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 1, "protocol": "SCTP"}],
            f"{NICS}[0].ports[0].protocol",
            "must be TCP or UDP",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 1}, {"port": 1, "protocol": "TCP"}],
            f"{NICS}[0].ports[1]",
            "repeats TCP port 1",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}],
            f"{NICS}[0].ports[1].name",
            "used twice",
        ),
        ("volumes/0/name", 7, "volumes[0].name", "Expected `str`, got `int`"),
    ],
)
def test_bad_specification(path: str, value: Any, field: str, message: str) -> None:
    causes = validate_virtual_machine(changed(path, value))
    by_field = {cause.field: cause.message for cause in causes}
    full = f"spec.template.spec.{field}"
    assert full in by_field, causes
    assert message in by_field[full]
    assert full in by_field[full] or "same Name" in by_field[full]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("domain/devices/disks", []),
        ("domain/devices/gpus", []),
        ("domain/devices/autoattachVSOCK", False),
        ("domain/resources/requests/memory", 67108864),
        ("domain/memory/guest", "64Mi"),
        ("domain/machine/type", "pc-q35-10.0"),
        ("volumes/0/containerDisk/image", "kubevirt/cirros-registry-disk-demo:devel"),
        ("volumes/0/containerDisk/image", "registry.local:5000/a/b_c@sha256:" + "0" * 64),
        ("volumes/0/containerDisk/image", "localhost/x"),
        ("volumes/0/containerDisk/path", "/disk/x.qcow2"),
        ("volumes/1/cloudInitNoCloud", {"userData": "x" * 2048}),
        ("volumes/1/cloudInitNoCloud", {"userDataBase64": "eHh4\neHh4\n"}),
        ("volumes/1/cloudInitNoCloud", {"secretRef": {"name": "my.secret"}}),
        ("domain/devices/interfaces/0/macAddress", "52-54-00-AA-bb-01"),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 53}, {"port": 53, "protocol": "UDP", "name": "d"}],
        ),
        ("networks/0/pod/vmNetworkCIDR", "192.168.10.0/24"),
    ],
)
def test_unusual_and_good(path: str, value: Any) -> None:
    assert validate_virtual_machine(changed(path, value)) == []


def test_boot_orders_are_unique_among_disks_and_interfaces() -> None:
    obj = changed("domain/devices/disks/0/bootOrder", 1)
    obj["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["bootOrder"] = 1
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.domain.devices.interfaces[0].bootOrder"
    assert "already set for spec.template.spec.domain.devices.disks[0]" in cause.message


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"running": True}, "spec.running", "Running and RunStrategy are mutually exclusive"),
        ({"runStrategy": None}, "spec.runStrategy", "RunStrategy must be specified"),
        (
            {"runStrategy": "Manual"},
            "spec.runStrategy",
            "spec.runStrategy Manual is not supported yet",
        ),
        (
            {"runStrategy": "Often"},
            "spec.runStrategy",
            "Invalid RunStrategy ('Often'), must be one of: Always",
        ),
        ({"template": None}, "spec.template", "missing virtual machine template."),
        (
            {"instancetype": {"name": "x"}},
            "spec.instancetype",
            "spec.instancetype is not supported yet",
        ),
        ({"dataVolumeTemplates": [{}]}, "spec.dataVolumeTemplates", "is not supported yet"),
    ],
)
def test_bad_machine(spec: Json, field: str, message: str) -> None:
    obj = machine()
    obj["spec"] = {
        key: value for key, value in {**obj["spec"], **spec}.items() if value is not None
    }
    [cause] = validate_virtual_machine(obj)
    assert cause.field == field
    assert message in cause.message


@pytest.mark.parametrize(("running", "strategy"), [(True, None), (False, None), (None, "Halted")])
def test_running_or_run_strategy(running: bool | None, strategy: str | None) -> None:
    obj = machine()
    del obj["spec"]["runStrategy"]
    obj["spec"] |= {"runStrategy": strategy} if strategy else {"running": running}
    assert validate_virtual_machine(obj) == []


@pytest.mark.parametrize(("length", "fits"), [(43, True), (44, False), (200, False)])
def test_name_has_to_fit_a_pod(length: int, fits: bool) -> None:
    obj = machine()
    obj["metadata"]["name"] = "x" * length
    causes = validate_virtual_machine(obj)
    assert [cause.field for cause in causes] == ([] if fits else ["metadata.name"])
    if not fits:
        assert "is too long for a pod" in causes[0].message
        assert "at most 43 characters" in causes[0].message


def test_every_unsupported_field_is_refused_by_path() -> None:
    status = (v1.VirtualMachineStatus, v1.VirtualMachineInstanceStatus)
    wanted = {
        name for struct, names in UNSUPPORTED.items() if struct not in status for name in names
    }
    obj = machine()
    template = obj["spec"]["template"]["spec"]
    places: list[tuple[type, Json]] = [
        (struct, place) for struct, place in _places(obj, template) if struct in UNSUPPORTED
    ]
    for struct, place in places:
        place |= {name: {"x": 1} for name in UNSUPPORTED[struct]}
    refused = {
        cause.field.rpartition(".")[2]
        for cause in validate_virtual_machine(obj)
        if cause.message == f"{cause.field} is not supported yet"
    }
    assert refused == wanted


def _places(obj: Json, template: Json) -> list[tuple[type, Json]]:
    """An object of each struct of the specification."""
    domain = template["domain"]
    domain |= {"cpu": {}, "memory": {}, "firmware": {}}
    domain["devices"]["disks"][1] = {"name": "seed", "cdrom": {}}
    return [
        (v1.VirtualMachineSpec, obj["spec"]),
        (v1.VirtualMachineInstanceSpec, template),
        (v1.Domain, domain),
        (v1.ResourceRequirements, domain["resources"]),
        (v1.CPU, domain["cpu"]),
        (v1.Memory, domain["memory"]),
        (v1.Firmware, domain["firmware"]),
        (v1.Devices, domain["devices"]),
        (v1.Disk, domain["devices"]["disks"][0]),
        (v1.DiskTarget, domain["devices"]["disks"][0]["disk"]),
        (v1.CDRomTarget, domain["devices"]["disks"][1]["cdrom"]),
        (v1.Interface, domain["devices"]["interfaces"][0]),
        (v1.Volume, template["volumes"][0]),
        (v1.Network, template["networks"][0]),
        (v1.PodNetwork, template["networks"][0]["pod"]),
    ]


def test_reserved_labels() -> None:
    obj = machine()
    obj["spec"]["template"]["metadata"]["labels"] = {"kubevirt.io/nodeName": "n"}
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.metadata.labels"
    assert "kubevirt.io/nodeName" in cause.message
    assert "prohibited" in cause.message


def test_cloud_init_data_never_appears_in_a_message() -> None:
    for data in (
        {"userDataBase64": "s3cret!"},
        {"userData": "s3cret" * 500},
        {"userData": ["s3cret"]},
    ):
        for cause in validate_virtual_machine(changed("volumes/1/cloudInitNoCloud", data)):
            assert "s3cret" not in cause.message


def test_update_that_leaves_the_specification_alone_is_admitted() -> None:
    old = changed("domain/resources/requests/memory", "64Q")
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = []
    assert validate_virtual_machine(new, old) == []
    new["spec"]["runStrategy"] = "Halted"
    assert validate_virtual_machine(new, old) != []


def test_update_does_not_look_at_the_name_again() -> None:
    old = machine()
    old["metadata"]["name"] = "x" * 60
    new = copy.deepcopy(old)
    new["spec"]["runStrategy"] = "Halted"
    assert validate_virtual_machine(new, old) == []


def instance() -> Json:
    obj = machine()
    return {**obj, "kind": "VirtualMachineInstance", "spec": obj["spec"]["template"]["spec"]}


def test_instance() -> None:
    good = instance()
    assert validate_virtual_machine_instance(good) == []
    good["spec"]["domain"]["devices"]["tpm"] = {}
    [cause] = validate_virtual_machine_instance(good)
    assert cause.message == "spec.domain.devices.tpm is not supported yet"


def test_reserved_labels_of_instances_are_for_podvisor() -> None:
    obj = instance()
    obj["metadata"]["labels"] = {"kubevirt.io/created-by": "x"}
    [cause] = validate_virtual_machine_instance(obj)
    assert cause.field == "metadata.labels"
    assert validate_virtual_machine_instance(obj, privileged=True) == []


def test_only_podvisor_changes_instances() -> None:
    old, new = instance(), instance()
    new["metadata"]["labels"] = {"mine": "1"}
    assert validate_virtual_machine_instance_update(new, old) == []
    new["spec"]["hostname"] = "other"
    new["metadata"]["labels"]["kubevirt.io/nodeName"] = "n"
    causes = validate_virtual_machine_instance_update(new, old)
    assert [cause.field for cause in causes] == ["spec", "metadata.labels"]
    assert causes[0].message == "update of VMI object is restricted"
    assert validate_virtual_machine_instance_update(new, old, privileged=True) == []


def test_warnings() -> None:
    obj = machine()
    del obj["spec"]["runStrategy"]
    obj["spec"]["running"] = True
    deprecated, clear_text = warnings_of(obj)
    assert deprecated == "spec.running is deprecated, please use spec.runStrategy instead."
    assert clear_text.startswith(
        "spec.template.spec.volumes[1].cloudInitNoCloud.userData can be read"
    )
    assert warnings_of(instance())[0].startswith(
        "spec.volumes[1].cloudInitNoCloud.userData can be read"
    )
    secret = changed("volumes/1/cloudInitNoCloud", {"secretRef": {"name": "s"}})
    assert warnings_of(secret) == []


@pytest.mark.parametrize(
    "obj", [{}, {"spec": None}, {"spec": 7}, {"spec": {"template": 7}}, {"spec": {"template": {}}}]
)
def test_nothing_of_it_makes_sense(obj: Json) -> None:
    assert validate_virtual_machine(obj) != []
    assert validate_virtual_machine_instance(obj) != []
    assert warnings_of(obj) == []


def first_machine(change: Callable[[Json], object]) -> Json:
    """A v1alpha1 machine after a change, in the v1 form that webhooks see."""
    obj: Json = {
        "apiVersion": V1ALPHA1,
        "kind": "VirtualMachine",
        "metadata": {"name": "myvm"},
        "spec": {
            "domain": {
                "resources": {"requests": {"memory": "64M"}},
                "devices": {
                    "disks": [
                        {"name": "rootdisk", "volumeName": "rootvolume"},
                        {"name": "seeddisk", "volumeName": "seedvolume"},
                    ]
                },
            },
            "volumes": [
                {"name": "rootvolume", "registryDisk": {"image": "x"}},
                {"name": "seedvolume", "cloudInitNoCloud": {"userData": "x"}},
            ],
        },
    }
    change(obj["spec"])
    return convert(obj, "kubevirt.io/v1")


def set_disk(index: int, **values: str) -> Callable[[Json], object]:
    return lambda spec: spec["domain"]["devices"]["disks"][index].update(values)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        (
            set_disk(1, volumeName="nowhere"),
            "spec.domain.devices.disks[1].volumeName",
            "spec.domain.devices.disks[1].volumeName 'nowhere' not found: there is no volume of that name.",
        ),
        (
            set_disk(1, name="rootdisk"),
            "spec.domain.devices.disks[1].name",
            "spec.domain.devices.disks[0] and spec.domain.devices.disks[1] must not have the same Name",
        ),
        (
            lambda spec: spec["volumes"][0]["registryDisk"].update(image=""),
            "spec.volumes[0].registryDisk.image",
            "spec.volumes[0].registryDisk.image is empty",
        ),
        (
            lambda spec: spec["volumes"].__setitem__(0, {"name": "rootvolume", "ephemeral": {}}),
            "spec.volumes[0].ephemeral",
            "spec.volumes[0].ephemeral is not supported yet",
        ),
        (
            lambda spec: spec["domain"]["resources"]["requests"].update(memory="64Q"),
            "spec.domain.resources.requests.memory",
            "spec.domain.resources.requests.memory '64Q' is not a quantity",
        ),
        (
            lambda spec: spec["domain"]["resources"]["requests"].clear(),
            "spec.domain.memory",
            "spec.domain.resources.requests.memory",
        ),
    ],
)
def test_paths_are_those_the_client_wrote(
    change: Callable[[Json], object], field: str, message: str
) -> None:
    obj = first_machine(change)
    causes = causes_as_written(validate_virtual_machine(obj), V1ALPHA1, obj)
    by_field = {cause.field: cause.message for cause in causes}
    assert field in by_field, causes
    assert message in by_field[field]
    assert all("template" not in cause.message for cause in causes)


def test_disks_of_one_name_are_not_blamed_on_their_volumes() -> None:
    obj = first_machine(set_disk(1, name="rootdisk"))
    causes = causes_as_written(validate_virtual_machine(obj), V1ALPHA1, obj)
    assert [cause.field for cause in causes] == ["spec.domain.devices.disks[1].name"]


def test_second_disk_of_a_volume_points_at_that_volume() -> None:
    def change(spec: Json) -> None:
        set_disk(1, volumeName="rootvolume")(spec)
        spec["volumes"][0]["registryDisk"]["image"] = ""

    obj = first_machine(change)
    causes = causes_as_written(validate_virtual_machine(obj), V1ALPHA1, obj)
    assert {cause.field for cause in causes} == {"spec.volumes[0].registryDisk.image"}


def test_warnings_are_in_the_words_of_the_client() -> None:
    obj = first_machine(lambda spec: None)
    [warning] = warnings_as_written(warnings_of(obj), V1ALPHA1, obj)
    assert warning.startswith("spec.volumes[1].cloudInitNoCloud.userData can be read")
    assert warnings_as_written(["x"], "kubevirt.io/v1", obj) == ["x"]


def test_causes_of_v1_stay_as_they_are() -> None:
    causes = [Cause("spec.template.spec.hostname", "spec.template.spec.hostname x")]
    assert causes_as_written(causes, "kubevirt.io/v1", machine()) == causes


@pytest.mark.parametrize(
    ("text", "label", "subdomain"),
    [
        ("a", True, True),
        ("a-1", True, True),
        ("a.b", False, True),
        ("-a", False, False),
        ("a-", False, False),
        ("A", False, False),
        ("", False, False),
        ("x" * 64, False, True),
        ("a\n", False, False),
    ],
)
def test_dns_names(text: str, label: bool, subdomain: bool) -> None:
    assert is_dns_label(text) is label
    assert is_dns_subdomain(text) is subdomain
