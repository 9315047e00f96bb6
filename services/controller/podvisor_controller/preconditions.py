"""Writes to an object as it was seen: they fail with ApiConflict once it is another, or has changed. Pure."""

from podvisor_common.api.meta import ObjectMeta


def as_it_was_seen(metadata: ObjectMeta) -> dict[str, object]:
    """What the metadata of a patch says for that."""
    return {"uid": metadata.uid, "resourceVersion": metadata.resource_version}
