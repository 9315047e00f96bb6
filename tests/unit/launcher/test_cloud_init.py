"""Data sources for cloud-init."""

import json
import uuid
from pathlib import Path

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.storage.cloud_init import (
    Source,
    instance_uuid,
    no_cloud_files,
    prepare_cloud_init,
    read_source,
)
from podvisor_launcher.storage.errors import InvalidDisk, MissingSecret

from tests.unit.launcher.isos import label_of, read_iso
from tests.unit.launcher.specs import cloud_init_disk, container_disk, interface, spec

SECRET = b"#cloud-config\npassword: hunter2\n"
KEY, OTHER_KEY = "ssh-ed25519 AAAAC3 somebody@example", 'ssh-rsa AAAAB3 "quoted": name'
CONFIG_DRIVE = pb.CLOUD_INIT_LAYOUT_CONFIG_DRIVE


def meta_data(disk: pb.DiskSpec) -> bytes:
    return no_cloud_files(read_source("c", disk.cloud_init))["meta-data"]


def image_of(machine: pb.DomainSpec, directory: Path) -> bytes:
    resolved = prepare_cloud_init(machine, machine.disks[-1], directory)
    assert resolved.read_only
    return Path(resolved.image.path).read_bytes()


def drive(directory: Path, *others: pb.DiskSpec, **source: object) -> dict[str, bytes]:
    """The files of a ConfigDrive image."""
    disks = [*others, cloud_init_disk("cloudinit", layout=CONFIG_DRIVE, **source)]
    image = image_of(spec(disks=disks, interfaces=[interface()]), directory)
    assert label_of(image) == "config-2"
    return read_iso(image)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A Secret with public keys, mounted as the kubelet does."""
    directory = tmp_path / "my-keys"
    (directory / "..2026").mkdir(parents=True)
    (directory / "..data").symlink_to("..2026")
    for name, content in {"a": f"{KEY}\n\n  \n{OTHER_KEY}", "b": f"{KEY}\r\n"}.items():
        (directory / "..2026" / name).write_text(content)
        (directory / name).symlink_to(f"..data/{name}")
    return directory


def test_a_nocloud_image_holds_what_cloud_init_reads(tmp_path: Path) -> None:
    disk = cloud_init_disk(user_data=SECRET, network_data=b"version: 2\n")
    image = image_of(spec(disks=[disk]), tmp_path)
    assert label_of(image) == "cidata"
    assert read_iso(image) == {
        "meta-data": b"instance-id: i-1\nlocal-hostname: myvm\n",
        "user-data": SECRET,
        "network-config": b"version: 2\n",
    }


def test_without_network_data_there_is_no_such_file(tmp_path: Path) -> None:
    files = read_iso(image_of(spec(disks=[cloud_init_disk()]), tmp_path))
    assert set(files) == {"meta-data", "user-data"}


def test_odd_names_stay_yaml() -> None:
    disk = cloud_init_disk(hostname="a: b", instance_id="1\n2")
    assert meta_data(disk) == b'instance-id: "1\\n2"\nlocal-hostname: "a: b"\n'


@pytest.mark.parametrize("hostname", ["123", "1e3", "0x1f", "2026-01-01", "no", "true", "null"])
def test_a_host_name_stays_a_string_in_yaml(hostname: str) -> None:
    assert f'local-hostname: "{hostname}"\n'.encode() in meta_data(
        cloud_init_disk(hostname=hostname)
    )


@pytest.mark.parametrize("key", ["userdata", "userData"])
def test_user_data_from_a_secret(key: str, tmp_path: Path) -> None:
    (tmp_path / key).write_bytes(SECRET)
    source = cloud_init_disk(user_data_secret_dir=str(tmp_path)).cloud_init
    assert read_source("c", source).user_data == SECRET


@pytest.mark.parametrize("key", ["networkdata", "networkData"])
def test_network_data_from_a_secret(key: str, tmp_path: Path) -> None:
    (tmp_path / key).write_bytes(b"version: 2\n")
    source = cloud_init_disk(network_data_secret_dir=str(tmp_path)).cloud_init
    assert read_source("c", source).network_data == b"version: 2\n"


def test_a_missing_secret_is_named_and_can_heal(tmp_path: Path) -> None:
    source = cloud_init_disk(user_data_secret_dir=str(tmp_path / "absent")).cloud_init
    with pytest.raises(MissingSecret, match='Volume "c"'):
        read_source("c", source)
    (tmp_path / "absent").mkdir()
    with pytest.raises(MissingSecret, match='"userdata" or "userData"'):
        read_source("c", source)
    (tmp_path / "absent/userdata").write_bytes(SECRET)
    assert read_source("c", source).user_data == SECRET


def test_public_keys_go_into_the_meta_data_of_nocloud(keys: Path) -> None:
    disk = cloud_init_disk(public_key_secret_dirs=[str(keys)])
    lines = f"public-keys:\n  - {json.dumps(KEY)}\n  - {json.dumps(OTHER_KEY)}\n"
    assert meta_data(disk).decode().endswith(lines)


def test_keys_that_are_not_there_are_waited_for(keys: Path, tmp_path: Path) -> None:
    disk = cloud_init_disk(public_key_secret_dirs=[str(keys), str(tmp_path / "more-keys")])
    with pytest.raises(MissingSecret, match='Volume "c": the Secret "more-keys"'):
        meta_data(disk)


def test_what_is_no_public_key_is_not_repeated(keys: Path) -> None:
    (keys / "c").write_bytes(b"hunter2\xff")
    with pytest.raises(InvalidDisk, match='"my-keys" holds what is no public key') as caught:
        meta_data(cloud_init_disk(public_key_secret_dirs=[str(keys)]))
    assert (
        "hunter2" not in f"{caught.value!r}{caught.value.__cause__!r}{caught.value.__context__!r}"
    )


def test_a_config_drive_holds_what_cloud_init_reads(keys: Path, tmp_path: Path) -> None:
    files = drive(
        tmp_path,
        user_data=SECRET,
        network_data=b'{"links": []}',
        public_key_secret_dirs=[str(keys)],
    )
    answer = json.loads(files.pop("openstack/latest/meta_data.json"))
    assert files == {
        "openstack/latest/user_data": SECRET,
        "openstack/latest/network_data.json": b'{"links": []}',
    }
    assert answer["hostname"] == answer["local-hostname"] == "myvm"
    assert answer["instance_id"] == answer["instance-id"] == "i-1"
    assert answer["uuid"] == instance_uuid("i-1")
    assert answer["public_keys"] == {"0": KEY, "1": OTHER_KEY}
    assert "devices" not in answer


def test_tags_are_found_by_hardware_address_or_serial_number(tmp_path: Path) -> None:
    serial = container_disk("root", serial="S1", bus=pb.DISK_BUS_SCSI)
    placed = container_disk("data", pci_address="0000:81:01.0")
    twin = container_disk("default")
    names = {"root": "system", "data": "logs", "gone": "none"}
    tagged = [pb.TaggedDevice(name=name, tag=tag) for name, tag in names.items()]
    tagged.append(pb.TaggedDevice(name="default", tag="front", is_interface=True))
    files = drive(tmp_path, serial, placed, twin, tagged_devices=tagged)
    assert json.loads(files["openstack/latest/meta_data.json"])["devices"] == [
        {"type": "disk", "bus": "scsi", "serial": "S1", "tags": ["system"]},
        {"type": "disk", "bus": "pci", "address": "0000:81:01.0", "tags": ["logs"]},
        {"type": "nic", "bus": "pci", "mac": "02:00:00:12:34:56", "tags": ["front"]},
    ]


def test_the_identity_of_an_instance_is_a_uuid_that_changes_with_it() -> None:
    name = "0B4F3F5C-6d4c-4f0e-9a57-3f6f5a1f7a11"
    assert instance_uuid(name) == name.lower()
    assert instance_uuid("myvm.default") == instance_uuid("myvm.default")
    assert instance_uuid("myvm.default") != instance_uuid("other.default")
    assert uuid.UUID(instance_uuid("myvm.default"))


def test_confidential_data_has_no_repr() -> None:
    assert "hunter2" not in repr(Source("i", "h", SECRET, SECRET))
