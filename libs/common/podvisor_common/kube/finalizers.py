"""Taking one's own finalizer off an object, and no other's.

Invariant: a list that has changed since it was read, or an object that has only the name of the one that was read, stays as it is.
"""

import structlog

from podvisor_common.api.meta import ObjectMeta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict, ApiInvalid, ApiNotFound
from podvisor_common.kube.resources import ObjectKey, Resource

_log = structlog.get_logger(__name__)


async def release_finalizer(
    client: KubeClient, resource: Resource, metadata: ObjectMeta, finalizer: str
) -> None:
    """Take `finalizer` away from the object, which has it by the metadata that were read. No object of that name is no error.

    Raises ApiConflict when the object is not as it was read: the cache will say how it is.
    """
    position = (metadata.finalizers or ()).index(finalizer)
    path = f"/metadata/finalizers/{position}"
    operations = [
        {"op": "test", "path": "/metadata/uid", "value": metadata.uid},
        {"op": "test", "path": path, "value": finalizer},
        {"op": "remove", "path": path},
    ]
    try:
        await client.json_patch(resource, ObjectKey(metadata.namespace, metadata.name), operations)
    except ApiNotFound:
        _log.debug("object was gone already", finalizer=finalizer)
    except ApiInvalid as error:
        raise ApiConflict(409, "Conflict", error.message) from error
