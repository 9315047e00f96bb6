"""The classes of storage and of its snapshots, from the API server, remembered for a while.

Invariant: two short lists at most per CLASSES_LAST_S, however many ask, since nobody watches kinds that change when an
administrator installs something. A cluster without CSI's snapshot kinds has no classes, which is no error and no line in a log.
"""

import asyncio

import msgspec
from podvisor_common.api.base import ApiStruct
from podvisor_common.api.storage import StorageClass, VolumeSnapshotClass
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError, ApiNotFound, ApiUnavailable
from podvisor_common.kube.resources import STORAGE_CLASSES, VOLUME_SNAPSHOT_CLASSES

from podvisor_controller.snapshot.classes import NO_CLASSES, SnapshotClasses, matched

CLASSES_LAST_S = 30.0
# Machines wait for the answer before they say anything else: it is short, and asked for seldom while there is none.
READ_TIMEOUT_S = 5.0
READ_AGAIN_S = 5.0


class _StorageClasses(ApiStruct, frozen=True):
    items: list[StorageClass]


class _SnapshotClasses(ApiStruct, frozen=True):
    items: list[VolumeSnapshotClass]


_decode_storage = msgspec.json.Decoder(_StorageClasses).decode
_decode_snapshot = msgspec.json.Decoder(_SnapshotClasses).decode


class ClassReader:
    """Reads which VolumeSnapshotClass goes with which StorageClass."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known = NO_CLASSES
        self._read_s = float("-inf")  # in the loop's time
        self._failure: ApiError | None = None
        self._failed_s = float("-inf")
        self._reading = asyncio.Lock()

    async def read(self, *, at_most_s: float = CLASSES_LAST_S) -> SnapshotClasses:
        """The classes as they were no longer than that ago. ApiError when they cannot be read."""
        async with self._reading:
            clock_s = asyncio.get_running_loop().time
            if clock_s() - self._read_s < at_most_s:
                return self._known
            if self._failure is not None and clock_s() - self._failed_s < READ_AGAIN_S:
                raise ApiUnavailable(0, self._failure.reason, self._failure.message)
            try:
                self._known = await self._read()
            except ApiError as error:
                self._failure, self._failed_s = error, clock_s()
                raise
            self._failure, self._read_s = None, clock_s()
            return self._known

    async def _read(self) -> SnapshotClasses:
        try:
            answer = await self._client.list_page(
                VOLUME_SNAPSHOT_CLASSES, limit=0, timeout_s=READ_TIMEOUT_S
            )
        except ApiNotFound:
            return NO_CLASSES
        snapshot_classes = _decode_snapshot(answer).items
        if not snapshot_classes:
            return NO_CLASSES
        storage = await self._client.list_page(STORAGE_CLASSES, limit=0, timeout_s=READ_TIMEOUT_S)
        return matched(_decode_storage(storage).items, snapshot_classes)
