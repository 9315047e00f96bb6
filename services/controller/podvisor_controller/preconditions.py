"""Writes to an object as it was seen: they fail with ApiConflict once it is another, or has changed. Pure."""

from podvisor_common.api.meta import ObjectMeta


def as_it_was_seen(metadata: ObjectMeta) -> dict[str, object]:
    """What the metadata of a patch says for that."""
    return {"uid": metadata.uid, "resourceVersion": metadata.resource_version}


def operation_as_it_was_seen(resource_version: str) -> dict[str, object]:
    """What a JSON patch begins with for that. No other object has that version, so it says which one, too."""
    return {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version}
