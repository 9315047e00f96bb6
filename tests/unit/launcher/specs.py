"""Specifications for the launcher's tests."""

from podvisor.domain.v1 import domain_pb2 as pb

UID = "0b4f3f5c-6d4c-4f0e-9a57-3f6f5a1f7a11"


def spec(**changes: object) -> pb.DomainSpec:
    """The machine of the introduction without disks and interfaces."""
    values: dict[str, object] = {
        "namespace": "default",
        "name": "myvm",
        "uid": UID,
        "firmware_uuid": UID,
        "generation": 1,
        "machine_type": "q35",
        "accelerator": pb.ACCELERATOR_TCG,
        "grace_period_s": 5,
        "serial_console": True,
        "serial_log": True,
        "cpu": pb.CpuSpec(sockets=1, cores=1, threads=1),
        "memory": pb.MemorySpec(guest_bytes=64_000_000),
    }
    return pb.DomainSpec(**(values | changes))  # type: ignore[arg-type]


def container_disk(
    name: str = "root", image_root: str = "/images/root", **changes: object
) -> pb.DiskSpec:
    """A virtio disk out of a container image."""
    values: dict[str, object] = {
        "name": name,
        "bus": pb.DISK_BUS_VIRTIO,
        "device": pb.DISK_DEVICE_DISK,
        "container_disk": pb.ContainerDiskSource(image_root=image_root),
    }
    return pb.DiskSpec(**(values | changes))  # type: ignore[arg-type]


def cloud_init_disk(name: str = "cloudinit", **source: object) -> pb.DiskSpec:
    """A virtio disk with a NoCloud data source."""
    values: dict[str, object] = {"instance_id": "i-1", "hostname": "myvm"}
    return pb.DiskSpec(
        name=name,
        bus=pb.DISK_BUS_VIRTIO,
        device=pb.DISK_DEVICE_DISK,
        cloud_init=pb.CloudInitSource(**(values | source)),  # type: ignore[arg-type]
    )


def interface(name: str = "default", **changes: object) -> pb.InterfaceSpec:
    """The pod network behind a masquerade."""
    values: dict[str, object] = {
        "name": name,
        "model": "virtio",
        "mac": "02:00:00:12:34:56",
        "tap": "tap0",
        "mtu_bytes": 1450,
        "dhcp": pb.DhcpLease(
            bridge="k6t-eth0",
            address="10.0.2.2",
            prefix_length=24,
            gateway="10.0.2.1",
            server="10.0.2.1",
            dns_servers=["10.96.0.10"],
            dns_search=["default.svc.cluster.local", "svc.cluster.local"],
            hostname="myvm",
        ),
    }
    return pb.InterfaceSpec(**(values | changes))  # type: ignore[arg-type]


def passt(name: str = "default", *ports: pb.ForwardedPort, **changes: object) -> pb.InterfaceSpec:
    """The pod network by way of passt."""
    values: dict[str, object] = {
        "name": name,
        "mac": "02:00:00:12:34:57",
        "mtu_bytes": 1450,
        "passt": pb.PasstBackend(pod_interface="eth0", ports=ports),
    }
    return pb.InterfaceSpec(**(values | changes))  # type: ignore[arg-type]


def volume_disk(name: str = "data", **changes: object) -> pb.DiskSpec:
    """A virtio disk with an image in a claim's file system."""
    values: dict[str, object] = {
        "name": name,
        "bus": pb.DISK_BUS_VIRTIO,
        "device": pb.DISK_DEVICE_DISK,
        "volume": pb.VolumeDiskSource(path=f"/volumes/{name}", file="disk.img"),
    }
    return pb.DiskSpec(**(values | changes))  # type: ignore[arg-type]


def block_source(name: str = "data") -> pb.VolumeDiskSource:
    """A block volume."""
    return pb.VolumeDiskSource(path=f"/dev/podvisor/{name}")
