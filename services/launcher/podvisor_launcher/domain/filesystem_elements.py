"""Trees of files that a guest shares, and memory that can be shared for them: https://libvirt.org/formatdomain.html#filesystems.

Pure form, as elements.py.
"""

from podvisor_launcher.domain.place_elements import Address
from podvisor_launcher.domain.xml import attribute, child, element


@element("source")
class MemorySource:
    """What the guest's memory is made of."""

    type: str = attribute()


@element("access")
class MemoryAccess:
    """Whether other processes may map the guest's memory."""

    mode: str = attribute()


@element("page")
class HugePage:
    """The size of the pages that the guest's memory is made of."""

    size: int = attribute()
    unit: str = attribute()


@element("hugepages")
class HugePages:
    """Large pages of the node."""

    page: HugePage | None = child(default=None)


@element("memoryBacking")
class MemoryBacking:
    """How the guest's memory is had from the node."""

    huge_pages: HugePages | None = child(default=None)
    source: MemorySource | None = child(default=None)
    access: MemoryAccess | None = child(default=None)


@element("driver")
class FilesystemDriver:
    """What serves a tree of files."""

    type: str = attribute()
    queue: int | None = attribute(default=None)


@element("source")
class FilesystemSource:
    """The socket of the process that serves a tree of files."""

    socket: str | None = attribute(default=None)


@element("target")
class FilesystemTarget:
    """The tag by which the guest mounts a tree of files."""

    dir: str = attribute()


@element("filesystem")
class Filesystem:
    """A tree of files that the guest shares."""

    type: str = attribute()
    access_mode: str | None = attribute("accessmode", default=None)
    driver: FilesystemDriver | None = child(default=None)
    source: FilesystemSource | None = child(default=None)
    target: FilesystemTarget = child()
    address: Address | None = child(default=None)
