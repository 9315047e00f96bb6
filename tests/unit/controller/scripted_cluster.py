"""What happens in a cluster beside the controller, as a test has it happen: scheduler, kubelet, handler and users."""

import asyncio
from collections.abc import Callable
from typing import Any

from podvisor_common.api.v1 import names
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
    Resource,
)

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import vm_body, vmi_body

MYVM = ObjectKey("shop", "myvm")
OUR_SUBJECTS = ("virtualmachine", "/pods", "events", "controllerrevisions")


async def known(cache: Informer[Any], holds: Callable[[], bool]) -> None:
    """Wait until a cache has learnt of something."""
    changed = asyncio.Event()
    cache.subscribe(lambda _, __, ___: changed.set())
    while not holds():
        changed.clear()
        await changed.wait()


class Cluster:
    """What happens in the cluster beside the controller."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    @property
    def vm(self) -> Any:
        return self.server.get(VIRTUAL_MACHINES, MYVM)

    @property
    def vmi(self) -> Any:
        return self.server.get(VIRTUAL_MACHINE_INSTANCES, MYVM)

    @property
    def pods(self) -> list[Json]:
        return [pod for pod in self.server.list(PODS) if pod["metadata"]["namespace"] == "shop"]

    def status(self, obj: Any) -> Json:
        return (obj or {}).get("status") or {}

    def condition(self, obj: Any, type_: str) -> Json:
        conditions = self.status(obj).get("conditions", [])
        return next((c for c in conditions if c["type"] == type_), {})

    def apply_vm(self, run_strategy: str = "Always") -> Json:
        body = vm_body(run_strategy)
        del body["metadata"]["uid"], body["metadata"]["resourceVersion"]
        return self.server.put(VIRTUAL_MACHINES, body)

    def apply_vmi(self) -> Json:
        body = vmi_body()
        del body["metadata"]["resourceVersion"]
        return self.server.put(VIRTUAL_MACHINE_INSTANCES, body)

    def change(self, resource: Resource, obj: Any, **fields: Any) -> Json:
        return self.server.put(resource, {**obj, **fields})

    async def pod(self) -> Json:
        """The launcher pod, as soon as it is there."""
        await self.server.until(lambda: bool(self.pods))
        return self.pods[0]

    async def bound_pod(self) -> Json:
        """The launcher pod after the scheduler found a node, and the status that tells of it."""
        pod = await self.pod()
        self.change(PODS, pod, spec={**pod["spec"], "nodeName": "n1"}, status={"phase": "Pending"})
        await self.server.until(lambda: self.status(self.vmi).get("nodeName") == "n1")
        return self.pods[0]

    def report(self, phase: str, ready: str = "True") -> None:
        """The handler's word on the guest."""
        old = self.vmi["status"]
        times = [
            *old.get("phaseTransitionTimestamps", []),
            {"phase": phase, "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"},
        ]
        condition = {"type": "Ready", "status": ready, "reason": "", "message": ""}
        status = old | {
            "phase": phase,
            "conditions": [condition],
            "phaseTransitionTimestamps": times,
        }
        self.change(VIRTUAL_MACHINE_INSTANCES, self.vmi, status=status)

    async def gate(self, status: str) -> None:
        """Wait until the launcher pod says that of whether its guest goes."""
        type_ = names.UNPAUSED_CONDITION
        await self.server.until(
            lambda: any(self.condition(pod, type_).get("status") == status for pod in self.pods)
        )

    async def ends_as_asked(self) -> None:
        """The handler's word on the end of a guest whose instance is being deleted. Without it the instance stays."""
        await self.server.until(
            lambda: (
                "deletionTimestamp" in (self.vmi or {"metadata": {}})["metadata"] and not self.pods
            )
        )
        self.report("Succeeded", ready="False")

    def writes(self) -> list[str]:
        """Every write of ours about machines: method, resource and subresource."""
        found = []
        for request in self.server.requests:
            if request.method == "GET" or "dryRun" in request.query:
                continue
            if any(subject in request.path for subject in OUR_SUBJECTS):
                parts = request.path.split("/namespaces/")[1].split("/")[1:]
                found.append(f"{request.method} {'/'.join(parts[::2])}")
        return found
