"""Calls of addvolume and removevolume that are refused, and in which words: what is wrong with them, and what is in their way."""

from tests.unit.controller.builders import situations
from tests.unit.edge.volume_calls import (
    ADD,
    CLAIM,
)

PLURAL = "Operation cannot be fulfilled on virtualmachine{}.kubevirt.io"
LUN = {"lun": {"bus": "virtio"}}
BAD = situations(
    ("no body", "addvolume", b"", "AddVolumeOptions requires name to be set"),
    ("no name", "addvolume", {"disk": {}}, "AddVolumeOptions requires name to be set"),
    ("no disk", "addvolume", {"name": "a"}, "AddVolumeOptions requires disk to not be nil"),
    (
        "no source",
        "addvolume",
        {"name": "a", "disk": {}},
        "AddVolumeOptions requires VolumeSource to not be nil",
    ),
    ("nothing to remove", "removevolume", {}, "RemoveVolumeOptions requires name to be set"),
    ("no JSON", "removevolume", b"{", "Can not unmarshal Request body to struct, error: "),
    ("a list", "removevolume", [], "Can not unmarshal Request body to struct, error: "),
    (
        "a name that is none",
        "removevolume",
        {"name": 1},
        "Can not unmarshal Request body to struct, error: ",
    ),
    ("nesting", "addvolume", b"[" * 100_000, "Can not unmarshal Request body to struct, error: "),
    (
        "a source of another kind",
        "addvolume",
        {**ADD, "volumeSource": {"containerDisk": {"image": "x"}}},
        "AddVolumeOptions.volumeSource.containerDisk is not a field",
    ),
    (
        "two sources",
        "addvolume",
        {**ADD, "volumeSource": {**CLAIM, "dataVolume": {"name": "data"}}},
        'Volume "data" is not attached: volumeSource must be exactly one of',
    ),
    (
        "a typing error in what may not be done",
        "removevolume",
        {"name": "other", "dryrun": ["All"]},
        "RemoveVolumeOptions.dryrun is not a field",
    ),
    (
        "a field of a disk that there is not",
        "addvolume",
        {**ADD, "disk": {"disk": {"bus": "virtio", "fast": True}}},
        "AddVolumeOptions.disk.disk.fast is not a field",
    ),
    (
        "a thread of its own",
        "addvolume",
        {**ADD, "disk": {"disk": {"bus": "virtio"}, "dedicatedIOThread": True}},
        "AddVolumeOptions.disk.dedicatedIOThread is not supported: ",
    ),
    (
        "something to start from",
        "addvolume",
        {**ADD, "disk": {"disk": {"bus": "virtio"}, "bootOrder": 1}},
        "AddVolumeOptions.disk.bootOrder is not supported: ",
    ),
    ("a bus that is fixed", "addvolume", {**ADD, "disk": LUN}, 'Volume "data" is not attached: '),
    (
        "what is not supported",
        "addvolume",
        {**ADD, "disk": {"changedBlockTracking": True}},
        "AddVolumeOptions.disk.changedBlockTracking is not supported yet",
    ),
    ("half a dry run", "removevolume", {"name": "other", "dryRun": ["Some"]}, "dryRun must be"),
)
CONFLICTS = situations(
    (
        "the name is taken",
        "addvolume",
        {**ADD, "name": "root"},
        "Unable to add volume [root] because volume with that name already exists",
    ),
    (
        "the claim is here",
        "addvolume",
        {**ADD, "volumeSource": {"persistentVolumeClaim": {"claimName": "other"}}},
        "Unable to add volume source [other] because it already exists",
    ),
    (
        "there is none",
        "removevolume",
        {"name": "no"},
        "Unable to remove volume [no] because it does not exist",
    ),
    (
        "it is fixed",
        "removevolume",
        {"name": "root"},
        "Unable to remove volume [root] because it is not hotpluggable",
    ),
)
