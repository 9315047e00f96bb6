"""What disks and volumes of a manifest mean: VirtualMachineInstance → DiskSpecs."""

import base64
from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_handler.vmi.disks import build_disks
from podvisor_handler.vmi.errors import SpecRefused

from tests.unit.handler.builders import pod, vmi

SECRET_TEXT = "#cloud-config\npassword: hunter2\n"
VIRTIO, SATA = domain_pb2.DISK_BUS_VIRTIO, domain_pb2.DISK_BUS_SATA
SCSI, USB = domain_pb2.DISK_BUS_SCSI, domain_pb2.DISK_BUS_USB
DISK, CDROM = domain_pb2.DISK_DEVICE_DISK, domain_pb2.DISK_DEVICE_CDROM
CLAIM = {"persistentVolumeClaim": {"claimName": "c"}}
READ_ONLY_CLAIM = {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}


def built(
    source: dict[str, Any] | None,
    disk: dict[str, Any] | None = None,
    *,
    devices: tuple[str, ...] = (),
    pod_annotations: dict[str, str] | None = None,
    spec: dict[str, Any] | None = None,
    **vmi_arguments: Any,
) -> domain_pb2.DiskSpec:
    """The one disk, named `d`, of a machine whose volume of that name has `source`."""
    (found,) = all_built(source, disk, devices, pod_annotations, spec, **vmi_arguments)
    return found


def all_built(
    source: dict[str, Any] | None,
    disk: dict[str, Any] | None = None,
    devices: tuple[str, ...] = (),
    pod_annotations: dict[str, str] | None = None,
    spec: dict[str, Any] | None = None,
    **vmi_arguments: Any,
) -> list[domain_pb2.DiskSpec]:
    disks = [{"name": "d", **(disk or {})}]
    content = {
        "domain": {"memory": {"guest": "64M"}, "devices": {"disks": disks}},
        "volumes": [{"name": "d", **source}] if source is not None else [],
        **(spec or {}),
    }
    carrier = pod(devices=devices, annotations=pod_annotations)
    return build_disks(vmi(spec=content, **vmi_arguments), carrier)


def has_capacity(storage: str, name: str = "d") -> dict[str, Any]:
    info = {"claimName": "c", "capacity": {"storage": storage}}
    return {"volumeStatus": [{"name": name, "persistentVolumeClaimInfo": info}]}


@pytest.mark.parametrize(
    ("disk", "bus", "device", "read_only"),
    [
        ({"disk": {"bus": "virtio"}}, VIRTIO, DISK, False),
        ({"disk": {"bus": "usb"}}, USB, DISK, False),
        ({"disk": {}}, SATA, DISK, False),
        ({}, SATA, DISK, False),
        ({"disk": {"readonly": True}}, SATA, DISK, True),
        ({"cdrom": {}}, SATA, CDROM, True),
        ({"cdrom": {"bus": "scsi", "readonly": False}}, SCSI, CDROM, True),
    ],
)
def test_what_the_guest_takes_a_disk_for(
    disk: dict[str, Any], bus: int, device: int, read_only: bool
) -> None:
    found = built({"containerDisk": {"image": "x", "path": "/disk/a.qcow2"}}, disk)
    assert (found.bus, found.device, found.read_only) == (bus, device, read_only)
    assert found.container_disk.image_root == "/run/podvisor/images/d"
    assert found.container_disk.path == "/disk/a.qcow2"


@pytest.mark.parametrize("bus", [{}, {"bus": "scsi"}])
def test_a_scsi_unit(bus: dict[str, str]) -> None:
    found = built(CLAIM, {"lun": bus}, devices=("d",))
    assert (found.bus, found.device, found.read_only) == (
        SCSI,
        domain_pb2.DISK_DEVICE_LUN,
        False,
    )
    assert built(CLAIM, {"lun": {"readonly": True}}, devices=("d",)).read_only


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ({"cache": "none"}, {"cache": domain_pb2.DISK_CACHE_NONE}),
        ({"cache": "writethrough"}, {"cache": domain_pb2.DISK_CACHE_WRITETHROUGH}),
        ({"cache": "writeback"}, {"cache": domain_pb2.DISK_CACHE_WRITEBACK}),
        ({"io": "native"}, {"io": domain_pb2.DISK_IO_NATIVE}),
        ({"io": "threads"}, {"io": domain_pb2.DISK_IO_THREADS}),
        ({"errorPolicy": "stop"}, {"error_policy": domain_pb2.DISK_ERROR_POLICY_STOP}),
        ({"errorPolicy": "ignore"}, {"error_policy": domain_pb2.DISK_ERROR_POLICY_IGNORE}),
        ({"errorPolicy": "report"}, {"error_policy": domain_pb2.DISK_ERROR_POLICY_REPORT}),
        ({"errorPolicy": "enospace"}, {"error_policy": domain_pb2.DISK_ERROR_POLICY_ENOSPACE}),
        ({"shareable": True}, {"shareable": True}),
        ({"dedicatedIOThread": True}, {"dedicated_io_thread": True}),
        ({"dedicatedIOThread": False}, {}),
        (
            {"blockSize": {"custom": {"logical": 512, "physical": 4096}}},
            {"block_sizes": domain_pb2.BlockSizes(logical_bytes=512, physical_bytes=4096)},
        ),
        (
            {"blockSize": {"custom": {"logical": 1, "physical": 2, "discardGranularity": 3}}},
            {
                "block_sizes": domain_pb2.BlockSizes(
                    logical_bytes=1, physical_bytes=2, discard_granularity_bytes=3
                )
            },
        ),
        ({"blockSize": {"matchVolume": {}}}, {"match_volume_block_sizes": True}),
        ({"blockSize": {"matchVolume": {"enabled": False}}}, {}),
        ({"disk": {"pciAddress": "0000:81:01.0"}}, {"pci_address": "0000:81:01.0"}),
        ({"bootOrder": 2, "serial": "S1"}, {"boot_order": 2, "serial": "S1"}),
    ],
)
def test_how_a_disk_is_handled(disk: dict[str, Any], expected: dict[str, Any]) -> None:
    found = built({"emptyDisk": {"capacity": "1Gi"}}, disk)
    empty = domain_pb2.EmptyDiskSource(capacity_bytes=1 << 30)
    plain: dict[str, Any] = {"name": "d", "bus": SATA, "device": DISK, "empty": empty}
    assert found == domain_pb2.DiskSpec(**plain, **expected)


def test_an_empty_drive() -> None:
    found = built(None, {"cdrom": {"tray": "open"}})
    assert found.WhichOneof("source") is None
    assert (found.device, found.tray_open) == (CDROM, True)
    assert not built(None, {"cdrom": {"tray": "closed"}}).tray_open


@pytest.mark.parametrize(
    ("source", "disk", "devices", "expected"),
    [
        pytest.param(
            CLAIM,
            {},
            (),
            {"path": "/run/podvisor/volumes/d", "file": "disk.img", "create": True},
            id="files",
        ),
        pytest.param(CLAIM, {}, ("d",), {"path": "/dev/podvisor/d"}, id="device"),
        pytest.param(
            CLAIM,
            {},
            ("other",),
            {"path": "/run/podvisor/volumes/d", "file": "disk.img", "create": True},
            id="another volume is a device",
        ),
        pytest.param(
            {"dataVolume": {"name": "c"}},
            {},
            (),
            {"path": "/run/podvisor/volumes/d", "file": "disk.img", "create": True},
            id="data volume",
        ),
        pytest.param(
            CLAIM,
            {"cdrom": {}},
            (),
            {"path": "/run/podvisor/volumes/d", "file": "disk.img"},
            id="nothing is made for a disk that is only read",
        ),
        pytest.param(
            {"ephemeral": {"persistentVolumeClaim": {"claimName": "c"}}},
            {},
            (),
            {"path": "/run/podvisor/volumes/d", "file": "disk.img", "ephemeral": True},
            id="ephemeral",
        ),
        pytest.param(
            {"ephemeral": {"persistentVolumeClaim": {"claimName": "c"}}},
            {},
            ("d",),
            {"path": "/dev/podvisor/d", "ephemeral": True},
            id="ephemeral device",
        ),
        pytest.param(
            {"hostDisk": {"path": "/data/a/x.img", "type": "DiskOrCreate", "capacity": "1Gi"}},
            {},
            (),
            {
                "path": "/run/podvisor/volumes/d",
                "file": "x.img",
                "create": True,
                "capacity_bytes": 1 << 30,
            },
            id="on the node, made",
        ),
        pytest.param(
            {"hostDisk": {"path": "/data/a/x.img", "type": "Disk"}},
            {},
            (),
            {"path": "/run/podvisor/volumes/d", "file": "x.img"},
            id="on the node, there",
        ),
    ],
)
def test_persistent_volumes(
    source: dict[str, Any],
    disk: dict[str, Any],
    devices: tuple[str, ...],
    expected: dict[str, Any],
) -> None:
    limits: dict[str, Any] = {"tolerated_shortfall_percent": 10, "reserve_bytes": 131_072}
    found = built(source, disk, devices=devices).volume
    assert found == domain_pb2.VolumeDiskSource(**expected, **limits)


def test_who_writes_to_a_claim() -> None:
    assert not built(CLAIM).read_only
    read_only = built(READ_ONLY_CLAIM)
    assert (read_only.read_only, read_only.volume.create) == (True, False)
    ephemeral = {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}}
    assert not built({"ephemeral": ephemeral}).read_only


def test_a_disk_of_the_node_that_several_machines_share() -> None:
    on_node = {"path": "/data/x.img", "type": "Disk"}
    assert built({"hostDisk": {**on_node, "shared": True}}).shareable
    assert not built({"hostDisk": on_node}).shareable


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, 0),
        (has_capacity("10Gi"), 10 << 30),
        (has_capacity("10Gi", name="other"), 0),
        (has_capacity("much"), 0),
        (has_capacity("-1"), 0),
        ({"volumeStatus": [{"name": "d"}]}, 0),
    ],
    ids=["nothing is said", "known", "of another volume", "no amount", "less than nothing", "bare"],
)
def test_what_a_claim_has(status: dict[str, Any], expected: int) -> None:
    assert built(CLAIM, status=status).volume.capacity_bytes == expected


@pytest.mark.parametrize(
    ("annotations", "percent", "reserve_bytes"),
    [
        ({"podvisor.io/pvc-tolerated-shortfall-percent": "0"}, 0, 131_072),
        ({"podvisor.io/pvc-tolerated-shortfall-percent": "25"}, 25, 131_072),
        ({"podvisor.io/pvc-tolerated-shortfall-percent": "400"}, 100, 131_072),
        ({"podvisor.io/pvc-reserve-bytes": "4096"}, 10, 4096),
        ({"podvisor.io/pvc-reserve-bytes": "-1"}, 10, 131_072),
        ({"podvisor.io/pvc-reserve-bytes": "9" * 19}, 10, (1 << 63) - 1),
        ({"podvisor.io/pvc-reserve-bytes": "9" * 5000}, 10, 131_072),
    ],
)
def test_the_room_of_a_claim(annotations: dict[str, str], percent: int, reserve_bytes: int) -> None:
    found = built(CLAIM, pod_annotations=annotations).volume
    assert (found.tolerated_shortfall_percent, found.reserve_bytes) == (percent, reserve_bytes)


@pytest.mark.parametrize(
    ("said", "is_raw"), [("d", True), ("a, d ,b", True), ("dd", False), ("", False)]
)
def test_content_that_the_manifest_calls_raw(said: str, is_raw: bool) -> None:
    annotations = {"podvisor.io/raw-volumes": said}
    assert built(CLAIM, annotations=annotations).volume.assume_raw is is_raw


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"configMap": {"name": "c"}}, {"label": "cfgdata"}),
        (
            {"configMap": {"name": "c", "volumeLabel": "mine", "optional": True}},
            {"label": "mine", "optional": True},
        ),
        ({"secret": {"secretName": "s", "volumeLabel": "mine"}}, {"label": "mine"}),
        ({"secret": {"secretName": "s", "optional": False}}, {"label": "cfgdata"}),
        (
            {
                "downwardAPI": {
                    "fields": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}],
                    "volumeLabel": "facts",
                }
            },
            {"label": "facts"},
        ),
        ({"downwardAPI": {}}, {"label": "cfgdata", "optional": True}),
        ({"serviceAccount": {"serviceAccountName": "a"}}, {"label": "cfgdata"}),
        (
            {"sysprep": {"secret": {"name": "s"}}},
            {"label": "unattendCD", "required": ["autounattend.xml", "unattend.xml"]},
        ),
        (
            {"sysprep": {"configMap": {"name": "s"}}},
            {"label": "unattendCD", "required": ["autounattend.xml", "unattend.xml"]},
        ),
    ],
)
def test_files(source: dict[str, Any], expected: dict[str, Any]) -> None:
    directory = "/run/podvisor/files/d"
    assert built(source).files == domain_pb2.FilesSource(directory=directory, **expected)


@pytest.mark.parametrize("kind", ["cloudInitNoCloud", "cloudInitConfigDrive"])
@pytest.mark.parametrize(
    "source",
    [
        {"userData": SECRET_TEXT},
        {"userDataBase64": base64.b64encode(SECRET_TEXT.encode()).decode()},
        {"userDataBase64": base64.encodebytes(SECRET_TEXT.encode()).decode()},
        {"userDataBase64": base64.encodebytes(SECRET_TEXT.encode()).decode().replace("\n", "\r\n")},
    ],
    ids=["clear text", "base64", "base64 in lines", "base64 in lines of Windows"],
)
def test_cloud_init_in_the_manifest(kind: str, source: dict[str, str]) -> None:
    found = built({kind: source}).cloud_init
    assert found.user_data == SECRET_TEXT.encode()
    assert found.user_data_secret_dir == ""
    assert found.hostname == "myvm"
    assert found.instance_id


@pytest.mark.parametrize("kind", ["cloudInitNoCloud", "cloudInitConfigDrive"])
def test_cloud_init_in_secrets(kind: str) -> None:
    source = {"secretRef": {"name": "s"}, "networkDataSecretRef": {"name": "n"}}
    found = built({kind: source}).cloud_init
    assert found.user_data == b""
    assert found.user_data_secret_dir == "/run/podvisor/secrets/d/user-data"
    assert found.network_data_secret_dir == "/run/podvisor/secrets/d/network-data"


def keys(secret: str, way: str) -> dict[str, Any]:
    source = {"secret": {"secretName": secret}}
    return {"sshPublicKey": {"source": source, "propagationMethod": {way: {}}}}


@pytest.mark.parametrize(
    ("kind", "layout", "secrets", "tags"),
    [
        ("cloudInitNoCloud", domain_pb2.CLOUD_INIT_LAYOUT_NOCLOUD, ["n1", "n2"], []),
        ("cloudInitConfigDrive", domain_pb2.CLOUD_INIT_LAYOUT_CONFIG_DRIVE, ["c"], ["seed"]),
    ],
)
def test_data_sources_differ(kind: str, layout: int, secrets: list[str], tags: list[str]) -> None:
    credentials = [
        keys("n1", "noCloud"),
        keys("c", "configDrive"),
        keys("n2", "noCloud"),
        keys("n1", "noCloud"),
    ]
    found = built(
        {kind: {"userData": "x"}}, {"tag": "seed"}, spec={"accessCredentials": credentials}
    ).cloud_init
    assert found.layout == layout
    assert list(found.public_key_secret_dirs) == [
        f"/run/podvisor/credentials/{secret}" for secret in secrets
    ]
    assert [(device.name, device.tag) for device in found.tagged_devices] == [
        ("d", tag) for tag in tags
    ]


def test_interfaces_have_tags_too() -> None:
    devices = {
        "disks": [{"name": "d", "tag": "seed"}],
        "interfaces": [
            {"name": "d", "masquerade": {}, "tag": "front"},
            {"name": "e", "bridge": {}},
        ],
    }
    spec = {"domain": {"memory": {"guest": "64M"}, "devices": devices}}
    found = built({"cloudInitConfigDrive": {"userData": "x"}}, spec=spec).cloud_init
    assert [(each.name, each.tag, each.is_interface) for each in found.tagged_devices] == [
        ("d", "seed", False),
        ("d", "front", True),
    ]


@pytest.mark.parametrize(
    ("source", "disk", "says"),
    [
        (None, {}, "no volume for the disk 'd'"),
        ({}, {}, "no source"),
        ({"ephemeral": {}}, {}, "no source"),
        (CLAIM, {"disk": {"bus": "ide"}}, "unknown bus 'ide'"),
        (CLAIM, {"cache": "unsafe"}, "unknown cache 'unsafe'"),
        (CLAIM, {"io": "io_uring"}, "unknown io 'io_uring'"),
        (CLAIM, {"errorPolicy": "cry"}, "unknown errorPolicy 'cry'"),
        (CLAIM, {"lun": {}}, "needs a block volume"),
        ({"emptyDisk": {"capacity": "1Gi"}}, {"lun": {}}, "needs a block volume"),
        ({"emptyDisk": {"capacity": "much"}}, {}, "'d': emptyDisk.capacity: 'much'"),
        ({"emptyDisk": {"capacity": "-1"}}, {}, "less than nothing"),
        ({"hostDisk": {"path": "/", "type": "Disk"}}, {}, "names no image"),
        ({"hostDisk": {"path": "/data/..", "type": "Disk"}}, {}, "names no image"),
        (
            CLAIM,
            {"blockSize": {"custom": {"logical": -1, "physical": 512}}},
            "a blockSize that no disk has",
        ),
        ({"cloudInitNoCloud": {"userDataBase64": "hunter2!"}}, {}, "invalid base64"),
        ({"cloudInitConfigDrive": {"networkDataBase64": "hunter2é"}}, {}, "invalid base64"),
    ],
)
def test_what_cannot_become_a_disk(
    source: dict[str, Any] | None, disk: dict[str, Any], says: str
) -> None:
    with pytest.raises(SpecRefused, match=says) as refused:
        built(source, disk)
    assert "hunter2" not in str(refused.value)
