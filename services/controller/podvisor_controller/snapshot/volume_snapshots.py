"""The VolumeSnapshots of machines, watched from the moment on that there is a content which names one.

Why a watch and no repeated reading: a snapshot is ready, and its machine free again, when the driver says so and not up to a pause
later, and one that somebody deletes years after is noticed. What nobody has any of costs nothing: before the first content, and so
in every cluster without CSI's snapshot kinds, there is no watch.
Invariant: only those with the label of a machine are watched. What the cache does not have is not gone before the API server says so.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from podvisor_common.api.snapshot import names
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists, ApiNotFound, ApiUnavailable
from podvisor_common.kube.informer import Callback, Informer
from podvisor_common.kube.resources import VOLUME_SNAPSHOTS, ObjectKey

from podvisor_controller.snapshot.outline import volume_snapshot_outline

SYNC_TIMEOUT_S = 10.0

_decode = msgspec.json.Decoder(VolumeSnapshot).decode


class VolumeSnapshots:
    """Finds and makes VolumeSnapshots."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._wanted = asyncio.Event()
        self._due_s: float | None = (
            None  # when the watch has had its time to begin, in the loop's time
        )
        self._informer = Informer(
            client,
            VOLUME_SNAPSHOTS,
            VolumeSnapshot,
            label_selector=names.SOURCE_NAME_LABEL,
            keep=volume_snapshot_outline,
        )

    def want(self) -> None:
        """There are some that matter: watch them from now on."""
        if not self._wanted.is_set():
            self._due_s = asyncio.get_running_loop().time() + SYNC_TIMEOUT_S
            self._wanted.set()

    async def run(self) -> None:
        """Watch, as soon as it is wanted, until cancelled."""
        await self._wanted.wait()
        await self._informer.run()

    def subscribe(self, callback: Callback[VolumeSnapshot]) -> None:
        """Call `callback(key, old, new)` after every change."""
        self._informer.subscribe(callback)

    def cached(self, key: ObjectKey) -> VolumeSnapshot | None:
        """The VolumeSnapshot as last seen; None says nothing yet."""
        return self._informer.get(key)

    async def find(self, key: ObjectKey) -> VolumeSnapshot | None:
        """The VolumeSnapshot, by the API server's word where the cache does not have it. None: it does not exist."""
        await self._begun()
        known = self._informer.get(key)
        return known if known is not None else await self.ask(key)

    async def ask(self, key: ObjectKey) -> VolumeSnapshot | None:
        """The VolumeSnapshot by the API server's word, whatever the cache has."""
        try:
            found = _decode(await self._client.get(VOLUME_SNAPSHOTS, key))
        except ApiNotFound:
            return None
        self._informer.learn(found)
        return found

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> bool:
        """Make one, and know it from then on; whether it was made just now. ApiAlreadyExists where its name is somebody else's.

        ApiUnavailable where the watch has not begun in time: what is made before could not be told from what is gone.
        """
        if not await self._begun():
            raise ApiUnavailable(0, "NotSynced", "VolumeSnapshots cannot be watched")
        key = ObjectKey(namespace, manifest["metadata"]["name"])
        try:
            answer, is_new = await self._client.create(VOLUME_SNAPSHOTS, namespace, manifest), True
        except ApiAlreadyExists:
            # By our own earlier attempt or an earlier leader's, or somebody else's: it says whose it is.
            answer, is_new = await self._client.get(VOLUME_SNAPSHOTS, key), False
        made = _decode(answer)
        owner = made.metadata.controller_reference()
        if owner is None or owner.uid != manifest["metadata"]["ownerReferences"][0]["uid"]:
            raise ApiAlreadyExists(409, "AlreadyExists", f"VolumeSnapshot {key} is another's")
        self._informer.learn(made)
        return is_new

    async def _begun(self) -> bool:
        """Give the watch its time to begin, which it gets once; whether the cache has been complete since."""
        self.want()
        try:
            async with asyncio.timeout_at(self._due_s):
                await self._informer.wait_synced()
        except TimeoutError:
            return False
        return True
