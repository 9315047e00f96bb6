"""Trees of files in the machine: which device each is, and what the guest's memory must be for it. Pure."""

from pathlib import PurePath

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain import filesystem_elements as xml
from podvisor_launcher.domain.errors import UnbuildableSpec
from podvisor_launcher.domain.pci import PciBus

# What the virtio device has room for.
_MOST_TAG_BYTES = 36
# Requests that the guest may have under way. QEMU's own 128 make a guest wait that reads ahead.
_QUEUE_SIZE = 1024


def check_filesystems(spec: pb.DomainSpec) -> None:
    """Raise UnbuildableSpec when the trees of files can never be shared so."""
    names = [each.name for each in spec.filesystems]
    if len(set(names)) != len(names) or not all(names):
        raise UnbuildableSpec("every file system needs a name of its own")
    for filesystem in spec.filesystems:
        if len(filesystem.name.encode()) > _MOST_TAG_BYTES or "/" in filesystem.name:
            raise UnbuildableSpec(
                f'file system "{filesystem.name}": the guest knows it by a tag of at most {_MOST_TAG_BYTES} bytes'
            )
        if not PurePath(filesystem.directory).is_absolute():
            raise UnbuildableSpec(f'file system "{filesystem.name}" has no directory')


def share_socket(directory: str, name: str) -> str:
    """The socket in `directory` on which the tree of that name is served."""
    return f"{directory}/{name}.sock"


def build_filesystems(spec: pb.DomainSpec, sockets: str, bus: PciBus) -> tuple[xml.Filesystem, ...]:
    """A device for each tree, served on a socket in the directory `sockets`. Raises TooManyDevices."""
    return tuple(
        xml.Filesystem(
            type="mount",
            access_mode="passthrough",
            driver=xml.FilesystemDriver(type="virtiofs", queue=_QUEUE_SIZE),
            source=xml.FilesystemSource(socket=share_socket(sockets, each.name)),
            target=xml.FilesystemTarget(dir=each.name),
            address=bus.next_address(),
        )
        for each in spec.filesystems
    )


def memory_backing(spec: pb.DomainSpec) -> xml.MemoryBacking | None:
    """Whoever serves a tree reads and writes the guest's memory, which must be such that it can be handed over. Large pages are had
    without a file system of them, which a pod has not."""
    if not spec.filesystems and not spec.hugepage_bytes:
        return None
    page = xml.HugePage(size=spec.hugepage_bytes >> 10, unit="KiB")
    return xml.MemoryBacking(
        huge_pages=xml.HugePages(page=page) if spec.hugepage_bytes else None,
        source=xml.MemorySource(type="memfd"),
        access=xml.MemoryAccess(mode="shared") if spec.filesystems else None,
    )
