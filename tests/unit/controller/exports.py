"""Exports for the controller's tests: their objects, a user, and a kubelet that does its part."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.export import names as export_names
from podvisor_common.api.meta import now
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.resources import (
    EVENTS,
    EXPORTS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICES,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.controllers import Controllers
from podvisor_controller.settings import Settings
from podvisor_controller.webhooks import rotation

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import claim_body, spec_body, stamp, vm_body, vmi_body
from tests.unit.controller.snapshots import on_claims

KEY = ObjectKey("shop", "copy")
POD = ObjectKey("shop", "virt-export-copy")
TOKEN = ObjectKey("shop", "export-token-copy")
EXPORT_UID = "55555555-5555-5555-5555-555555555555"
CLAIM = {"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data"}
MACHINE = {"apiGroup": "kubevirt.io", "kind": "VirtualMachine", "name": "myvm"}
SNAPSHOT = {"apiGroup": "snapshot.kubevirt.io", "kind": "VirtualMachineSnapshot", "name": "before"}


def export_body(source: Json = CLAIM, **changes: Any) -> Json:
    """An export as JSON; `metadata` and `status` are merged over the defaults, everything else over the specification."""
    metadata, status = changes.pop("metadata", {}), changes.pop("status", {})
    return {
        "apiVersion": export_names.API_VERSION,
        "kind": export_names.EXPORT,
        "metadata": {
            "name": KEY.name,
            "namespace": KEY.namespace,
            "uid": EXPORT_UID,
            "resourceVersion": "9",
            "creationTimestamp": stamp(30),
        }
        | metadata,
        "spec": {"source": source} | changes,
        "status": status,
    }


def export(source: Json = CLAIM, **changes: Any) -> VirtualMachineExport:
    return msgspec.convert(export_body(source, **changes), VirtualMachineExport)


class ExportUser:
    """Exports claims by a client of its own, runs what is made for that, and looks at what becomes of it."""

    def __init__(self, server: ApiServer, client: KubeClient) -> None:
        self.server = server
        self._client = client
        authorities = rotation.take(rotation.Step.CREATE, None, now=now())
        self.authority = authorities.signing.certificate.decode()
        server.put(
            SECRETS,
            {
                "metadata": {"namespace": "kubevirt", "name": "podvisor-ca"},
                "data": rotation.to_secret_data(authorities),
            },
        )

    def provide(self, name: str = "data", **changes: Any) -> None:
        """A claim."""
        self.server.put(PERSISTENT_VOLUME_CLAIMS, claim_body(name, **changes))

    def put_machine(self, *claims: str, run_strategy: str = "Halted") -> None:
        body = vm_body(run_strategy, spec=on_claims(*claims))
        del body["metadata"]["resourceVersion"]
        self.server.put(VIRTUAL_MACHINES, body)

    async def ask(self, source: Json = CLAIM, **spec: Any) -> None:
        """Make the export."""
        body = export_body(source, **spec)
        for name in ("uid", "resourceVersion"):
            del body["metadata"][name]
        await self._client.create(EXPORTS, KEY.namespace, body)

    async def until_pod(self) -> Json:
        """There is a pod that has what it waits for."""
        await self.server.until(lambda: self.identity is not None)
        assert self.pod is not None
        return self.pod

    def run_pod(self, *disks: int, **status: Any) -> None:
        """Do as the kubelet does with the pod, in which these volumes are found to have a disk image."""
        pod = self.pod
        assert pod is not None
        looked = {"terminated": {"exitCode": 0, "message": json.dumps({"disks": disks})}}
        default = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "initContainerStatuses": [{"name": "look", "state": looked}],
        }
        self.server.put(PODS, pod | {"status": default | status})

    async def until_ready(self) -> Json:
        """It is served; the links."""
        await self.server.until(lambda: self.status.get("phase") == "Ready")
        links: Json = self.status["links"]["internal"]
        return links

    async def serve(self) -> Json:
        """Make the export and have it served; the links."""
        await self.ask()
        await self.until_pod()
        self.run_pod(0)
        return await self.until_ready()

    async def until_reason(self, reason: str, type_: str = "Ready") -> Json:
        """The condition with that reason."""
        await self.server.until(lambda: self.condition(type_).get("reason") == reason)
        return self.condition(type_)

    @property
    def pod(self) -> Json | None:
        return self.server.get(PODS, POD)

    @property
    def service(self) -> Json | None:
        return self.server.get(SERVICES, POD)

    @property
    def token(self) -> str:
        secret = self.server.get(SECRETS, TOKEN) or {}
        return base64.b64decode(secret.get("data", {}).get("token", "")).decode()

    @property
    def identity(self) -> dict[str, bytes] | None:
        """What is in the Secret that the pod has its certificate from."""
        volumes = (self.pod or {}).get("spec", {}).get("volumes", [])
        [name] = [v["secret"]["secretName"] for v in volumes if v["name"] == "identity"] or [""]
        secret = self.server.get(SECRETS, ObjectKey("shop", name))
        if secret is None:
            return None
        return {key: base64.b64decode(value) for key, value in secret["data"].items()}

    @property
    def body(self) -> Json | None:
        return self.server.get(EXPORTS, KEY)

    @property
    def status(self) -> Json:
        status: Json = (self.body or {}).get("status") or {}
        return status

    def condition(self, type_: str) -> Json:
        conditions = self.status.get("conditions", [])
        return next((one for one in conditions if one["type"] == type_), {})

    def events(self) -> list[str]:
        return [one["reason"] for one in self.server.list(EVENTS)]


@asynccontextmanager
async def leader(server: ApiServer, settings: Settings) -> AsyncIterator[None]:
    """A controller that leads for as long."""
    async with KubeClient.for_url(server.url, user_agent="leader") as client:
        controllers = Controllers(client, settings)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in (controllers.watch(), controllers.lead())]
            yield
            for task in tasks:
                task.cancel()


def start(server: ApiServer, name: str = "myvm", **volume: object) -> None:
    """Make an instance with the claim."""
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}, **volume}]
    disks = [{"name": "data", "disk": {"bus": "virtio"}}]
    domain = spec_body()["domain"] | {"devices": {"disks": disks}}
    body = vmi_body(spec=spec_body(volumes=volumes, domain=domain))
    del body["metadata"]["resourceVersion"]
    body["metadata"] |= {"name": name, "uid": f"uid-{name}"}
    server.put(VIRTUAL_MACHINE_INSTANCES, body)


def synchronized(server: ApiServer, name: str = "myvm") -> Json:
    """The condition that says whether an instance is as it is asked to be."""
    vmi = server.get(VIRTUAL_MACHINE_INSTANCES, ObjectKey("shop", name)) or {}
    conditions = vmi.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one["type"] == "Synchronized"), {})


def launchers(server: ApiServer) -> list[str]:
    """The names of the pods that run machines."""
    names = [pod["metadata"]["name"] for pod in server.list(PODS)]
    return [name for name in names if name.startswith("virt-launcher-")]
