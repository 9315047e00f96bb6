"""A kernel and an initial RAM disk inside a container image, looked at with suspicion before the firmware is given them."""

from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.storage.errors import InvalidDisk
from podvisor_launcher.storage.files import UnsafePath, plain_file_below


def check_kernel(boot: pb.KernelBootSpec) -> None:
    """Raise InvalidDisk when the image is not there yet, or one of the files is not a plain one of the image's own. Blocks."""
    for what, path in (("kernel", boot.kernel_path), ("initial RAM disk", boot.initrd_path)):
        if not path:
            continue
        try:
            plain_file_below(Path(boot.image_root), path)
        except FileNotFoundError as error:
            raise InvalidDisk("Kernel boot: its container image is not there yet.") from error
        except UnsafePath as error:
            raise InvalidDisk(f"Kernel boot: the {what} {path}: {error}.") from error
        except OSError as error:
            raise InvalidDisk(f"Kernel boot: the {what} {path}: {error.strerror}.") from error
