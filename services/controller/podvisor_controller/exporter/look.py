"""What an exporter does before it serves: look whether every volume can be read, and which have a disk image.

What it finds is the container's termination message, which the controller reads in the pod's status: so links name the forms that
there are, without the controller ever opening a volume or asking the pod.
"""

import os
from pathlib import Path

import msgspec

from podvisor_controller.exporter.settings import Settings
from podvisor_controller.exporter.tree import NotServed, holds_disk, inode, open_disk, reopened

TERMINATION_MESSAGE = "/dev/termination-log"


class Findings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was found: the numbers of the volumes with a disk image, or why one cannot be read, for a person."""

    disks: tuple[int, ...] = ()
    trouble: str = ""


def look(settings: Settings) -> Findings:
    """Look at every volume."""
    disks = []
    for number, volume in enumerate(settings.volumes):
        path = settings.path_of(number)
        try:
            has_disk = volume.block or holds_disk(path)
            os.close(open_disk(path, is_block=volume.block) if has_disk else _open_root(path))
        except (OSError, NotServed) as error:
            return Findings(trouble=_trouble(volume.name, error, is_block=volume.block))
        if has_disk:
            disks.append(number)
    return Findings(tuple(disks))


def report(findings: Findings, path: str = TERMINATION_MESSAGE) -> None:
    """Leave the findings where the kubelet takes them from."""
    Path(path).write_bytes(msgspec.json.encode(findings))


def _open_root(path: str) -> int:
    with inode(path) as found:
        return reopened(found)


def _trouble(name: str, error: Exception, *, is_block: bool) -> str:
    words = error.strerror if isinstance(error, OSError) else "there is something else in its place"
    what = "the device" if is_block else "the disk image or the directory"
    return f'PersistentVolumeClaim "{name}" cannot be read: {words}. User 107 or its groups must be able to read {what}.'
