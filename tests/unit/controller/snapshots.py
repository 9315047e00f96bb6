"""Snapshots of machines for the controller's tests: their objects, a user, and a storage driver that does its part."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from podvisor_common.api import core
from podvisor_common.api.snapshot import VirtualMachineSnapshot, VirtualMachineSnapshotContent
from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.api.storage import VolumeSnapshot
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    EVENTS,
    PERSISTENT_VOLUME_CLAIMS,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    STORAGE_CLASSES,
    VIRTUAL_MACHINES,
    VOLUME_SNAPSHOT_CLASSES,
    VOLUME_SNAPSHOTS,
    ObjectKey,
)
from podvisor_controller.snapshot.class_reader import ClassReader
from podvisor_controller.snapshot.volume_statuses import VolumeStatuses

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import claim_body, stamp, vm_body

SNAPSHOT_UID = "44444444-4444-4444-4444-444444444444"
CONTENT_NAME = f"vmsnapshot-content-{SNAPSHOT_UID}"
KEY = ObjectKey("shop", "before")
DATA = f"vmsnapshot-{SNAPSHOT_UID}-volume-data"
LOCK = {"snapshotInProgress": "before"}
LOCKED = {"finalizers": [snapshot_names.SOURCE_FINALIZER]}


def volume_statuses(client: KubeClient) -> VolumeStatuses:
    """What a machine's reconciler asks about snapshots of its volumes, in a cluster without claims."""
    claims = Informer(client, PERSISTENT_VOLUME_CLAIMS, core.PersistentVolumeClaim)
    return VolumeStatuses(claims, ClassReader(client))


def snapshot_body(source: str = "myvm", **changes: Any) -> Json:
    """A snapshot as JSON; `metadata` and `status` are merged over the defaults, everything else over the specification."""
    metadata, status = changes.pop("metadata", {}), changes.pop("status", {})
    return {
        "apiVersion": snapshot_names.API_VERSION,
        "kind": snapshot_names.SNAPSHOT,
        "metadata": {
            "name": KEY.name,
            "namespace": KEY.namespace,
            "uid": SNAPSHOT_UID,
            "resourceVersion": "9",
            "creationTimestamp": stamp(30),
            "finalizers": [snapshot_names.SNAPSHOT_FINALIZER],
        }
        | metadata,
        "spec": {"source": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": source}}
        | changes,
        "status": status,
    }


def snapshot(**changes: Any) -> VirtualMachineSnapshot:
    return msgspec.convert(snapshot_body(**changes), VirtualMachineSnapshot)


def content(*volumes: str, **changes: Any) -> VirtualMachineSnapshotContent:
    """The content of snapshot() of a machine with these volumes on claims, and one on an image."""
    backups = [
        {
            "volumeName": name,
            "persistentVolumeClaim": {
                "metadata": {"name": name},
                "spec": {"storageClassName": "fast"},
            },
            "volumeSnapshotName": f"vmsnapshot-{SNAPSHOT_UID}-volume-{name}",
        }
        for name in volumes
    ]
    of_machine = [{"name": "root", "containerDisk": {}}] + [
        {"name": name, "persistentVolumeClaim": {}} for name in (*volumes, *changes.get("left", ()))
    ]
    machine = {
        "metadata": {"name": "myvm"},
        "spec": {"template": {"spec": {"volumes": of_machine}}},
    }
    body = {
        "metadata": {
            "name": CONTENT_NAME,
            "namespace": KEY.namespace,
            "uid": "content-uid",
            "resourceVersion": "11",
            "finalizers": [snapshot_names.CONTENT_FINALIZER],
        }
        | changes.get("metadata", {}),
        "spec": {
            "virtualMachineSnapshotName": KEY.name,
            "source": {"virtualMachine": machine},
            "volumeBackups": backups,
        },
        "status": changes.get("status", {}),
    }
    return msgspec.convert(body, VirtualMachineSnapshotContent)


def volume_snapshot(name: str = DATA, **status: Any) -> VolumeSnapshot:
    return msgspec.convert(
        {"metadata": {"namespace": KEY.namespace, "name": name}, "status": status}, VolumeSnapshot
    )


def on_claims(*claims: str) -> Json:
    """The specification of a machine with an image and these claims, each as a volume of its name."""
    disks = [{"name": name, "disk": {"bus": "virtio"}} for name in ("root", *claims)]
    volumes: list[Json] = [{"name": "root", "containerDisk": {"image": "demo/disk:devel"}}]
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    domain = {"resources": {"requests": {"memory": "64M"}}, "devices": {"disks": disks}}
    return {"template": {"metadata": {}, "spec": {"domain": domain, "volumes": volumes}}}


class Storage:
    """A driver with its classes: takes what it is asked for, and drops what belongs to nothing any more."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.is_quick = True  # ready as soon as taken
        self.takes: Callable[[Json], bool] = lambda _: True

    def install(self) -> None:
        server = self._server
        for name, provisioner in (("fast", "csi.test"), ("slow", "nfs.test")):
            server.put(STORAGE_CLASSES, {"metadata": {"name": name}, "provisioner": provisioner})
        server.put(VOLUME_SNAPSHOT_CLASSES, {"metadata": {"name": "snaps"}, "driver": "csi.test"})

    def provide(self, name: str, *, storage_class: str = "fast", capacity: str = "10Gi") -> None:
        body = claim_body(name, capacity=capacity)
        body["spec"]["storageClassName"] = storage_class
        self._server.put(PERSISTENT_VOLUME_CLAIMS, body)

    async def run(self) -> None:
        while True:
            await self._server.until(lambda: bool(self._to_take() or self._to_drop()))
            for one in self._to_take():
                self.report(one, creationTime="2026-01-01T00:00:00Z", readyToUse=self.is_quick)
            for one in self._to_drop():
                key = ObjectKey(KEY.namespace, one["metadata"]["name"])
                self._server.remove(VOLUME_SNAPSHOTS, key)

    def report(self, one: Json, **status: Any) -> None:
        self._server.put(VOLUME_SNAPSHOTS, one | {"status": status})

    def _to_take(self) -> list[Json]:
        return [
            one
            for one in self._server.list(VOLUME_SNAPSHOTS)
            if "status" not in one and self.takes(one)
        ]

    def _to_drop(self) -> list[Json]:
        owners = {c["metadata"]["uid"] for c in self._server.list(SNAPSHOT_CONTENTS)}
        return [
            one
            for one in self._server.list(VOLUME_SNAPSHOTS)
            if one["metadata"]["ownerReferences"][0]["uid"] not in owners
        ]


class SnapshotUser:
    """Takes snapshots of a stopped machine, by a client of its own, and looks at what becomes of them."""

    def __init__(self, server: ApiServer, users: KubeClient) -> None:
        self.server = server
        self.storage = Storage(server)
        self._users = users

    def put_machine(self, *claims: str, run_strategy: str = "Halted") -> None:
        body = vm_body(run_strategy, spec=on_claims(*claims))
        del body["metadata"]["resourceVersion"]
        self.server.put(VIRTUAL_MACHINES, body)

    def put_machine_and_claims(self, *claims: str) -> None:
        """A machine, and claims of a class that has snapshots."""
        for claim in claims:
            self.storage.provide(claim)
        self.put_machine(*claims)

    async def begin_to_take(self) -> None:
        """A snapshot of a machine with one claim, which its driver has been asked for and does not take."""
        self.storage.takes = lambda _: False
        self.put_machine_and_claims("data")
        await self.take()
        await self.server.until(lambda: bool(self.volume_snapshots))

    async def take(self, **spec: Any) -> None:
        body = snapshot_body(**spec)
        for name in ("uid", "resourceVersion", "finalizers"):
            del body["metadata"][name]
        await self._users.create(SNAPSHOTS, KEY.namespace, body)

    async def delete(self) -> None:
        await self._users.delete(SNAPSHOTS, KEY)

    async def until_ready(self) -> None:
        await self.server.until(lambda: self.status.get("readyToUse") is True)
        await self.until_free()

    async def until_free(self) -> None:
        """The machine is not locked any more."""
        await self.server.until(lambda: not self.is_locked)

    @property
    def is_locked(self) -> bool:
        metadata, status = self.machine["metadata"], self.machine.get("status", {})
        finalizers = metadata.get("finalizers", [])
        return "snapshotInProgress" in status or snapshot_names.SOURCE_FINALIZER in finalizers

    @property
    def machine(self) -> Json:
        return self.server.get(VIRTUAL_MACHINES, ObjectKey("shop", "myvm")) or {}

    @property
    def body(self) -> Json | None:
        return self.server.get(SNAPSHOTS, KEY)

    @property
    def status(self) -> Json:
        status: Json = (self.body or {}).get("status") or {}
        return status

    @property
    def contents(self) -> list[Json]:
        return self.server.list(SNAPSHOT_CONTENTS)

    @property
    def volume_snapshots(self) -> list[Json]:
        return self.server.list(VOLUME_SNAPSHOTS)

    def condition(self, type_: str) -> Json:
        conditions = self.status.get("conditions", [])
        return next((one for one in conditions if one["type"] == type_), {})

    def events(self, reason: str) -> list[str]:
        return [one["note"] for one in self.server.list(EVENTS) if one["reason"] == reason]


@asynccontextmanager
async def snapshot_user(server: ApiServer, users: KubeClient) -> AsyncIterator[SnapshotUser]:
    """A user, and a driver that runs for as long."""
    user = SnapshotUser(server, users)
    user.storage.install()
    running = asyncio.create_task(user.storage.run(), name="storage")
    try:
        yield user
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
