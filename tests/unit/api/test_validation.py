"""What admission refuses of machines and instances as a whole, and what it does not look at."""

import copy

import pytest
from podvisor_common.api import v1
from podvisor_common.api.unsupported import UNSUPPORTED
from podvisor_controller.webhooks.validation import (
    validate_virtual_machine,
    validate_virtual_machine_instance,
    validate_virtual_machine_instance_update,
    warnings_of,
)
from podvisor_controller.webhooks.validation_fields import is_dns_label, is_dns_subdomain

from tests.unit.api.machines import Json, changed, instance, machine


def test_good_machine_is_admitted() -> None:
    assert validate_virtual_machine(machine()) == []


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"running": True}, "spec.running", "Running and RunStrategy are mutually exclusive"),
        ({"runStrategy": None}, "spec.runStrategy", "RunStrategy must be specified"),
        (
            {"runStrategy": "WaitAsReceiver"},
            "spec.runStrategy",
            "spec.runStrategy WaitAsReceiver is not supported yet",
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


@pytest.mark.parametrize(("length", "fits"), [(63, True), (64, False), (200, False)])
def test_name_has_to_fit_a_pod(length: int, fits: bool) -> None:
    obj = machine()
    obj["metadata"]["name"] = "x" * length
    causes = validate_virtual_machine(obj)
    assert [cause.field for cause in causes] == ([] if fits else ["metadata.name"])
    if not fits:
        assert "is too long for a pod" in causes[0].message
        assert "63 allowed" in causes[0].message


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
    domain |= {"cpu": {}, "memory": {}, "firmware": {"bootloader": {"efi": {}}}}
    domain["features"] = {"hyperv": {"tlbflush": {}}}
    domain["devices"] |= {"tpm": {}, "watchdog": {}}
    domain["devices"]["disks"][1] = {"name": "seed", "cdrom": {}}
    domain["devices"]["disks"].append({"name": "data", "lun": {}})
    template["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    return [
        (v1.VirtualMachineSpec, obj["spec"]),
        (v1.VirtualMachineInstanceSpec, template),
        (v1.Domain, domain),
        (v1.ResourceRequirements, domain["resources"]),
        (v1.CPU, domain["cpu"]),
        (v1.Memory, domain["memory"]),
        (v1.Firmware, domain["firmware"]),
        (v1.EFI, domain["firmware"]["bootloader"]["efi"]),
        (v1.TLBFlush, domain["features"]["hyperv"]["tlbflush"]),
        (v1.Devices, domain["devices"]),
        (v1.TPMDevice, domain["devices"]["tpm"]),
        (v1.Watchdog, domain["devices"]["watchdog"]),
        (v1.Disk, domain["devices"]["disks"][0]),
        (v1.DiskTarget, domain["devices"]["disks"][0]["disk"]),
        (v1.CDRomTarget, domain["devices"]["disks"][1]["cdrom"]),
        (v1.LunTarget, domain["devices"]["disks"][2]["lun"]),
        (v1.Interface, domain["devices"]["interfaces"][0]),
        (v1.Volume, template["volumes"][0]),
        (v1.Network, template["networks"][0]),
        (v1.PodNetwork, template["networks"][0]["pod"]),
    ]


def test_labels_that_no_instance_could_carry() -> None:
    obj = machine()
    obj["spec"]["template"]["metadata"] = {"labels": {"a b": "x"}}
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.metadata.labels"
    assert "'a b', which is not the key of a label" in cause.message


@pytest.mark.parametrize(
    ("key", "field", "message"),
    [
        ("a b", "", "holds 'a b', which is not the key of an annotation"),
        (
            "hooks.kubevirt.io/hookSidecars",
            ".hooks.kubevirt.io/hookSidecars",
            "hooks.kubevirt.io/hookSidecars is not supported yet",
        ),
        ("kubevirt.io/ignitiondata", ".kubevirt.io/ignitiondata", "is not supported yet"),
    ],
)
def test_annotations_that_no_instance_gets(key: str, field: str, message: str) -> None:
    obj = machine()
    obj["spec"]["template"]["metadata"] = {"annotations": {key: "x", "Kept.io/Note": "y"}}
    [cause] = validate_virtual_machine(obj)
    assert cause.field == f"spec.template.metadata.annotations{field}"
    assert message in cause.message
    alone = instance()
    alone["metadata"]["annotations"] = {key: "x"}
    [cause] = validate_virtual_machine_instance(alone)
    assert cause.field == f"metadata.annotations{field}"


def test_reserved_labels() -> None:
    obj = machine()
    obj["spec"]["template"]["metadata"]["labels"] = {"kubevirt.io/nodeName": "n"}
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.metadata.labels"
    assert "kubevirt.io/nodeName" in cause.message
    assert "prohibited" in cause.message


def test_update_that_leaves_the_specification_alone_is_admitted() -> None:
    old = changed("domain/resources/requests/memory", "64Q")
    new = copy.deepcopy(old)
    new["metadata"]["finalizers"] = []
    assert validate_virtual_machine(new, old) == []
    new["spec"]["template"]["spec"]["domain"]["resources"]["requests"]["memory"] = "65Q"
    assert validate_virtual_machine(new, old) != []


def test_update_does_not_look_at_the_name_again() -> None:
    old = machine()
    old["metadata"]["name"] = "x" * 60
    new = copy.deepcopy(old)
    new["spec"]["runStrategy"] = "Halted"
    assert validate_virtual_machine(new, old) == []


def test_instance() -> None:
    good = instance()
    assert validate_virtual_machine_instance(good) == []
    good["spec"]["domain"]["devices"]["gpus"] = [{}]
    [cause] = validate_virtual_machine_instance(good)
    assert cause.message == "spec.domain.devices.gpus is not supported yet"


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
    [cause] = validate_virtual_machine_instance_update(new, old, privileged=True)
    assert cause.field == "spec"
    [cause] = validate_virtual_machine_instance_update(new, old, privileged=True, may_plug=True)
    assert cause.message == (
        "update of VMI object is restricted to volumes that are hotpluggable, to their disks, to interfaces, and to"
        " terminationGracePeriodSeconds"
    )


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
