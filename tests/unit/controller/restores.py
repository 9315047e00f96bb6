"""Restores for the controller's tests: their objects, a user, and a provisioner that makes volumes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from podvisor_common.api.snapshot import VirtualMachineRestore
from podvisor_common.api.snapshot import names as snapshot_names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    RESTORES,
    STORAGE_CLASSES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import stamp, vm_body
from tests.unit.controller.snapshots import SnapshotUser, on_claims, snapshot_user

RESTORE_UID = "55555555-5555-5555-5555-555555555555"
BACK = ObjectKey("shop", "back")
MYVM = ObjectKey("shop", "myvm")


def restore_body(target: str = "myvm", **changes: Any) -> Json:
    """A restore as JSON; `metadata` and `status` are merged over the defaults, everything else over the specification."""
    metadata, status = changes.pop("metadata", {}), changes.pop("status", {})
    return {
        "apiVersion": snapshot_names.API_VERSION,
        "kind": snapshot_names.RESTORE,
        "metadata": {
            "name": BACK.name,
            "namespace": BACK.namespace,
            "uid": RESTORE_UID,
            "resourceVersion": "9",
            "creationTimestamp": stamp(30),
            "finalizers": [snapshot_names.RESTORE_FINALIZER],
            "ownerReferences": [{"kind": "VirtualMachine", "name": target, "controller": True}],
        }
        | metadata,
        "spec": {
            "target": {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": target},
            "virtualMachineSnapshotName": "before",
        }
        | changes,
        "status": status,
    }


def restore(target: str = "myvm", **changes: Any) -> VirtualMachineRestore:
    return msgspec.convert(restore_body(target, **changes), VirtualMachineRestore)


class Provisioner:
    """Makes volumes for claims, but for those that wait for a guest."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self.works = True

    async def run(self) -> None:
        while True:
            await self._server.until(lambda: self.works and bool(self._waiting()))
            for claim in self._waiting():
                self._server.put(
                    PERSISTENT_VOLUME_CLAIMS,
                    claim | {"status": {"phase": "Bound", "capacity": {"storage": "10Gi"}}},
                )

    def _waiting(self) -> list[Json]:
        late = {
            one["metadata"]["name"]
            for one in self._server.list(STORAGE_CLASSES)
            if one.get("volumeBindingMode") == "WaitForFirstConsumer"
        }
        return [
            claim
            for claim in self._server.list(PERSISTENT_VOLUME_CLAIMS)
            if claim.get("status", {}).get("phase") != "Bound"
            and claim["spec"].get("storageClassName") not in late
        ]


class RestoreUser:
    """Restores a machine, by a client of its own, and looks at what becomes of it."""

    def __init__(
        self, snapshots: SnapshotUser, users: KubeClient, provisioner: Provisioner
    ) -> None:
        self.snapshots = snapshots
        self.server = snapshots.server
        self.provisioner = provisioner
        self._users = users

    async def keep(self, *claims: str, run_strategy: str = "Halted") -> None:
        """A machine with these claims, and a snapshot of it."""
        for name in claims:
            self.snapshots.storage.provide(name)
        self.snapshots.put_machine(*claims, run_strategy=run_strategy)
        await self.snapshots.take()
        await self.snapshots.until_ready()

    async def restore(self, target: str = "myvm", **spec: Any) -> None:
        body = restore_body(target, **spec)
        for name in ("uid", "resourceVersion", "finalizers", "ownerReferences"):
            del body["metadata"][name]
        body["metadata"]["creationTimestamp"] = None
        await self._users.create(RESTORES, BACK.namespace, body)

    async def delete(self) -> None:
        await self._users.delete(RESTORES, BACK)

    async def edit(self, name: str, patch: Json) -> None:
        subresource = "status" if "status" in patch else None
        key = ObjectKey("shop", name)
        await self._users.merge_patch(VIRTUAL_MACHINES, key, patch, subresource=subresource)

    def put_another(self, name: str, *claims: str) -> None:
        """Another stopped machine."""
        body = vm_body("Halted", spec=on_claims(*claims), metadata={"name": name, "uid": name})
        del body["metadata"]["resourceVersion"]
        self.server.put(VIRTUAL_MACHINES, body)

    async def until_complete(self) -> None:
        await self.server.until(lambda: self.status.get("complete") is True)

    async def until_reason(self, type_: str, reason: str) -> None:
        await self.server.until(lambda: reason in self.condition(type_).get("reason", ""))

    def machine(self, name: str = "myvm") -> Json:
        return self.server.get(VIRTUAL_MACHINES, ObjectKey("shop", name)) or {}

    def instance(self, name: str = "myvm") -> Json | None:
        return self.server.get(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", name))

    def claim_of(self, volume: str, machine: str = "myvm") -> Json:
        """The claim that a machine has for a volume."""
        volumes = self.machine(machine)["spec"]["template"]["spec"]["volumes"]
        [source] = [one["persistentVolumeClaim"] for one in volumes if one["name"] == volume]
        return self.claim(source["claimName"]) or {}

    def claim(self, name: str) -> Json | None:
        return self.server.get(PERSISTENT_VOLUME_CLAIMS, ObjectKey("shop", name))

    @property
    def claims(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.server.list(PERSISTENT_VOLUME_CLAIMS)]

    @property
    def body(self) -> Json | None:
        return self.server.get(RESTORES, BACK)

    @property
    def status(self) -> Json:
        status: Json = (self.body or {}).get("status") or {}
        return status

    @property
    def is_locked(self) -> bool:
        return "restoreInProgress" in self.machine().get("status", {})

    def condition(self, type_: str) -> Json:
        conditions = self.status.get("conditions", [])
        return next((one for one in conditions if one["type"] == type_), {})


def writes(server: ApiServer, place: str) -> Counter[str]:
    """What the controller wrote below a path, by verb and kind; events apart."""
    return Counter(
        f"{request.method} {request.path.partition(place)[2].partition('/')[0]}"
        for request in server.requests
        if request.method != "GET"
        and request.headers["User-Agent"] != "users"
        and "events" not in request.path
        and place in request.path
    )


@asynccontextmanager
async def restore_user(server: ApiServer, users: KubeClient) -> AsyncIterator[RestoreUser]:
    """A user, with a driver that takes snapshots and makes volumes for as long."""
    provisioner = Provisioner(server)
    async with snapshot_user(server, users) as snapshots:
        running = asyncio.create_task(provisioner.run(), name="provisioner")
        try:
            yield RestoreUser(snapshots, users, provisioner)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
