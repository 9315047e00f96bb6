"""What can be wrong with a disk's source. All of it can heal: an image is replaced, a Secret is created."""

from collections.abc import Iterator
from contextlib import contextmanager

from podvisor_common.errors import Retryable


class Unusable(Exception):
    """What is behind a disk will not do. The text says why in the middle of a sentence, and nothing confidential."""


class DiskUnavailable(Retryable):
    """A disk cannot be made now. The text names the volume and is fit for a condition: it holds nothing confidential."""


class InvalidDisk(DiskUnavailable):
    """The image is missing, ambiguous, or not one that may be used."""

    reason = "InvalidDisk"


class MissingSecret(DiskUnavailable):
    """The Secret with cloud-init data is not there, or lacks the key."""

    reason = "MissingSecret"


class MissingFiles(DiskUnavailable):
    """The files of the cluster that a disk is made of are not there, or lack one that is needed."""

    reason = "MissingFiles"


@contextmanager
def about_volume(name: str) -> Iterator[None]:
    """What cannot be used, or cannot be read or written, becomes an InvalidDisk that names the volume."""
    try:
        yield
    except (Unusable, OSError) as error:
        words = error.strerror or "it cannot be read" if isinstance(error, OSError) else str(error)
        raise InvalidDisk(f'Volume "{name}": {words}.') from error
