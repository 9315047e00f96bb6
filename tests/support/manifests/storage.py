"""Volumes of every kind, and disks that between them set every field that a disk has."""

from typing import Any

Json = dict[str, Any]

RAW_VOLUMES = {"podvisor.io/raw-volumes": "data, node"}


def disks() -> list[Json]:
    """A disk for each of the volumes, and an empty drive."""
    return [
        {
            "name": "root",
            "bootOrder": 1,
            "serial": "r1",
            "disk": {"bus": "virtio", "readonly": False, "pciAddress": "0000:0a:00.0"},
            "cache": "none",
            "io": "native",
            "errorPolicy": "stop",
            "tag": "system",
            "dedicatedIOThread": True,
            "blockSize": {
                "custom": {"logical": 512, "physical": 4096, "discardGranularity": 65536}
            },
        },
        {"name": "seed", "cdrom": {"bus": "sata", "readonly": True, "tray": "closed"}},
        {"name": "data", "disk": {"bus": "virtio"}, "shareable": True},
        {"name": "plugged", "disk": {"bus": "scsi"}, "blockSize": {"matchVolume": {}}},
        {"name": "unit", "lun": {"bus": "scsi", "readonly": True}, "io": "threads"},
        {"name": "base", "disk": {"bus": "usb"}, "cache": "writeback"},
        {"name": "spare", "disk": {"bus": "scsi"}, "errorPolicy": "enospace"},
        {"name": "node", "disk": {"bus": "virtio"}, "cache": "writethrough"},
        {"name": "settings", "cdrom": {"bus": "scsi"}},
        {"name": "words", "disk": {"bus": "scsi", "readonly": True}},
        {"name": "facts", "disk": {"bus": "sata"}},
        {"name": "account", "disk": {"bus": "usb"}},
        {"name": "answers", "cdrom": {"bus": "usb"}},
        {"name": "drive", "cdrom": {"bus": "sata"}},
        {"name": "empty", "cdrom": {"tray": "open"}},
    ]


def volumes() -> list[Json]:
    """One volume of every kind, of some kinds two."""
    return [
        {
            "name": "root",
            "containerDisk": {
                "image": "kubevirt/cirros-container-disk-demo:devel",
                "imagePullPolicy": "IfNotPresent",
                "imagePullSecret": "registry",
                "path": "/disk/disk.img",
            },
        },
        {
            "name": "seed",
            "cloudInitNoCloud": {
                "userData": "#cloud-config\n",
                "networkDataSecretRef": {"name": "network"},
            },
        },
        {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": False}},
        {"name": "plugged", "dataVolume": {"name": "plugged", "hotpluggable": True}},
        {"name": "unit", "persistentVolumeClaim": {"claimName": "unit"}},
        {"name": "base", "ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}},
        {"name": "spare", "emptyDisk": {"capacity": "1Gi"}},
        {
            "name": "node",
            "hostDisk": {
                "path": "/var/lib/disks/a.img",
                "type": "DiskOrCreate",
                "capacity": "1Gi",
                "shared": False,
            },
        },
        {"name": "settings", "configMap": {"name": "settings", "volumeLabel": "settings"}},
        {"name": "words", "secret": {"secretName": "words", "optional": True}},
        {"name": "facts", "downwardAPI": {"volumeLabel": "facts", "fields": _facts()}},
        {"name": "account", "serviceAccount": {"serviceAccountName": "default"}},
        {"name": "answers", "sysprep": {"configMap": {"name": "answers"}}},
        {"name": "drive", "cloudInitConfigDrive": {"userDataBase64": "I2Nsb3VkLWNvbmZpZwo="}},
    ]


def _facts() -> list[Json]:
    memory = {"containerName": "compute", "resource": "limits.memory", "divisor": "1Mi"}
    return [
        {"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']", "apiVersion": "v1"}},
        {"path": "limits/memory", "resourceFieldRef": memory, "mode": 0o444},
    ]


def credentials() -> list[Json]:
    """Public keys, one way and the others, and passwords."""
    secret = {"secret": {"secretName": "keys"}}
    agent = {"qemuGuestAgent": {"users": ["root"]}}
    return [
        {"sshPublicKey": {"source": secret, "propagationMethod": agent}},
        {"userPassword": {"source": secret, "propagationMethod": {"qemuGuestAgent": {}}}},
        *_static_credentials(),
    ]


def _static_credentials() -> list[Json]:
    return [
        {
            "sshPublicKey": {
                "source": {"secret": {"secretName": "keys"}},
                "propagationMethod": {way: {}},
            }
        }
        for way in ("noCloud", "configDrive")
    ]


def first_machine() -> Json:
    """A machine of v1alpha1 with every kind of volume that there is in it."""
    kinds: dict[str, tuple[Json, Json]] = {
        "root": ({"disk": {"bus": "virtio"}}, {"registryDisk": {"image": "a/b:1"}}),
        "seed": ({"cdrom": {"bus": "sata"}}, {"cloudInitNoCloud": {"userData": "x"}}),
        "data": ({"lun": {"bus": "scsi"}}, {"persistentVolumeClaim": {"claimName": "data"}}),
        "base": ({"disk": {}}, {"ephemeral": {"persistentVolumeClaim": {"claimName": "base"}}}),
    }
    devices = {
        "disks": [
            {"name": name, "volumeName": f"{name}-volume", **disk}
            for name, (disk, _) in kinds.items()
        ]
    }
    return {
        "apiVersion": "kubevirt.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": "first"},
        "spec": {
            "domain": {"resources": {"requests": {"memory": "64M"}}, "devices": devices},
            "volumes": [
                {"name": f"{name}-volume", **source} for name, (_, source) in kinds.items()
            ],
        },
    }
