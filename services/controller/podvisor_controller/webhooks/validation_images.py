"""What is wrong with how a container image is named and had. Pure."""

import re
from collections.abc import Iterator

from podvisor_controller.webhooks.validation_fields import (
    Cause,
    CauseReason,
    invalid,
    is_dns_subdomain,
    quoted,
    word_causes,
)

_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,})?"
)
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def image_causes(image: str, pull_policy: str, pull_secret: str, field: str) -> Iterator[Cause]:
    """Checks a reference, and the fields `imagePullPolicy` and `imagePullSecret` beside it, in the object at `field`."""
    if not image:
        yield invalid(f"{field}.image", "is empty: it must name an image.", CauseReason.REQUIRED)
    elif not _IMAGE.fullmatch(image):
        yield invalid(f"{field}.image", f"{quoted(image)} is not a valid image reference.")
    yield from word_causes(pull_policy, f"{field}.imagePullPolicy", _PULL_POLICIES)
    if pull_secret and not is_dns_subdomain(pull_secret):
        yield invalid(f"{field}.imagePullSecret", f"{quoted(pull_secret)} is not a name.")
