"""Clones for the controller's tests: their objects, and a user."""

from typing import Any

import msgspec
from podvisor_common.api.clone import VirtualMachineClone
from podvisor_common.api.clone import names as clone_names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    CLONES,
    RESTORES,
    SNAPSHOTS,
    VIRTUAL_MACHINES,
    ObjectKey,
)

from tests.unit.controller.api_server import Json
from tests.unit.controller.builders import stamp
from tests.unit.controller.restores import RestoreUser

CLONE_UID = "66666666-6666-6666-6666-666666666666"
COPY = ObjectKey("shop", "copy")
OF_MACHINE = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
OF_SNAPSHOT = {
    "apiGroup": "snapshot.kubevirt.io",
    "kind": "VirtualMachineSnapshot",
    "name": "before",
}
TWIN = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "twin"}


def clone_body(**changes: Any) -> Json:
    """A clone as JSON; `metadata` and `status` are merged over the defaults, everything else over the specification."""
    metadata, status = changes.pop("metadata", {}), changes.pop("status", {})
    return {
        "apiVersion": clone_names.API_VERSION,
        "kind": clone_names.CLONE,
        "metadata": {
            "name": COPY.name,
            "namespace": COPY.namespace,
            "uid": CLONE_UID,
            "resourceVersion": "9",
            "creationTimestamp": stamp(30),
        }
        | metadata,
        "spec": {"source": OF_MACHINE, "target": TWIN} | changes,
        "status": status,
    }


def clone(**changes: Any) -> VirtualMachineClone:
    return msgspec.convert(clone_body(**changes), VirtualMachineClone)


class CloneUser:
    """Clones a machine, by a client of its own, and looks at what becomes of it."""

    def __init__(self, restorer: RestoreUser, users: KubeClient) -> None:
        self.restorer = restorer
        self.server = restorer.server
        self._users = users

    def put_machine(self, *claims: str, run_strategy: str = "Halted") -> None:
        for name in claims:
            self.restorer.snapshots.storage.provide(name)
        self.restorer.snapshots.put_machine(*claims, run_strategy=run_strategy)

    async def clone(self, **spec: Any) -> None:
        body = clone_body(**spec)
        for name in ("uid", "resourceVersion", "creationTimestamp"):
            del body["metadata"][name]
        if body["spec"]["target"] is None:
            del body["spec"]["target"]
        await self._users.create(CLONES, COPY.namespace, body)

    async def delete_machine(self, name: str) -> None:
        await self._users.delete(VIRTUAL_MACHINES, ObjectKey("shop", name))

    async def until_phase(self, phase: str) -> None:
        await self.server.until(lambda: self.status.get("phase") == phase)

    async def until_said(self, text: str) -> None:
        await self.server.until(lambda: text in self.condition("Ready").get("message", ""))

    @property
    def body(self) -> Json | None:
        return self.server.get(CLONES, COPY)

    @property
    def status(self) -> Json:
        status: Json = (self.body or {}).get("status") or {}
        return status

    @property
    def snapshots(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.server.list(SNAPSHOTS)]

    @property
    def restores(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.server.list(RESTORES)]

    def condition(self, type_: str) -> Json:
        conditions = self.status.get("conditions", [])
        return next((one for one in conditions if one["type"] == type_), {})

    def events(self, reason: str) -> list[str]:
        return self.restorer.snapshots.events(reason)
