"""A kernel and an initial RAM disk inside a container image, looked at with suspicion before the firmware is given them."""

from pathlib import Path

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.launcher_pod import KERNEL_LIMIT_BYTES

from podvisor_launcher.storage.errors import InvalidDisk
from podvisor_launcher.storage.files import UnsafePath, plain_file_below

# QEMU maps it from its file, so it takes no memory that cannot be taken back, but the guest's.
INITRD_LIMIT_BYTES = 1 << 30


def check_kernel(boot: pb.KernelBootSpec) -> None:
    """Raise InvalidDisk when the image is not there yet, or one of the files is not a plain one of the image's own, or too
    large. Blocks."""
    for what, path, limit_bytes in (
        ("kernel", boot.kernel_path, KERNEL_LIMIT_BYTES),
        ("initial RAM disk", boot.initrd_path, INITRD_LIMIT_BYTES),
    ):
        if not path:
            continue
        try:
            size_bytes = plain_file_below(Path(boot.image_root), path).stat().st_size
        except FileNotFoundError as error:
            raise InvalidDisk("Kernel boot: its container image is not there yet.") from error
        except UnsafePath as error:
            raise InvalidDisk(f"Kernel boot: the {what} {path}: {error}.") from error
        except OSError as error:
            raise InvalidDisk(f"Kernel boot: the {what} {path}: {error.strerror}.") from error
        if size_bytes > limit_bytes:
            raise InvalidDisk(
                f"Kernel boot: the {what} {path} has {size_bytes} bytes, at most {limit_bytes} are possible."
            )
