"""What can be wrong with a disk's source. All of it can heal: an image is replaced, a Secret is created."""

from podvisor_common.errors import Retryable


class DiskUnavailable(Retryable):
    """A disk cannot be made now. The text names the volume and is fit for a condition: it holds nothing confidential."""


class InvalidDisk(DiskUnavailable):
    """The image is missing, ambiguous, or not one that may be used."""

    reason = "InvalidDisk"


class MissingSecret(DiskUnavailable):
    """The Secret with cloud-init data is not there, or lacks the key."""

    reason = "MissingSecret"
