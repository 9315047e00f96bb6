"""Objects for the tests of admission: good ones, and good ones with one value changed."""

from typing import Any

from podvisor_controller.webhooks.validation import validate_virtual_machine

Json = dict[str, Any]

V1, V1ALPHA1 = "kubevirt.io/v1", "kubevirt.io/v1alpha1"
# What the introduction applies.
INTRODUCTION: Json = {
    "apiVersion": V1ALPHA1,
    "kind": "VirtualMachine",
    "metadata": {"name": "myvm", "namespace": "default", "labels": {"app": "web"}},
    "spec": {
        "terminationGracePeriodSeconds": 5,
        "domain": {
            "resources": {"requests": {"memory": "64M"}},
            "devices": {
                "disks": [
                    {
                        "name": "registrydisk",
                        "volumeName": "registryvolume",
                        "disk": {"bus": "virtio"},
                    },
                    {
                        "name": "cloudinitdisk",
                        "volumeName": "cloudinitvolume",
                        "disk": {"bus": "virtio"},
                    },
                ]
            },
        },
        "volumes": [
            {
                "name": "registryvolume",
                "registryDisk": {"image": "kubevirt/cirros-registry-disk-demo:devel"},
            },
            {"name": "cloudinitvolume", "cloudInitNoCloud": {"userData": "ssh-authorized-keys:\n"}},
        ],
    },
}


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
    """The good machine with one value changed; a path is relative to the instance's specification, with `~1` for a slash."""
    obj = machine()
    target: Any = obj["spec"]["template"]["spec"]
    *parents, last = (key.replace("~1", "/") for key in path.split("/"))
    for key in parents:
        target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
    if isinstance(target, list):
        target[int(last)] = value
    else:
        target[last] = value
    return obj


def is_refused(path: str, value: Any, field: str, message: str) -> None:
    """The machine with that value is refused, and the message about the field, relative to the specification, names it and says that."""
    causes = validate_virtual_machine(changed(path, value))
    by_field = {cause.field: cause.message for cause in causes}
    full = f"spec.template.spec.{field}"
    assert full in by_field, causes
    assert message in by_field[full]
    assert full in by_field[full] or "same Name" in by_field[full]


def instance() -> Json:
    obj = machine()
    return {**obj, "kind": "VirtualMachineInstance", "spec": obj["spec"]["template"]["spec"]}
