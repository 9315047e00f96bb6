"""What nothing costs: twenty passes over what has not changed write nothing and tell of nothing, however much time goes by."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from podvisor_common.api import core, v1
from podvisor_common.api.v1.names import UNPAUSED_CONDITION
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.events import EventRecorder
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import (
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VIRTUAL_MACHINE_INSTANCES,
    VIRTUAL_MACHINES,
    ObjectKey,
)
from podvisor_controller.node.attendance import Attendance
from podvisor_controller.vm.reconciler import VmReconciler
from podvisor_controller.vm.starts import Starts
from podvisor_controller.vmi.claim_users import KEEPERS_INDEX, USERS_INDEX
from podvisor_controller.vmi.claims import claims_kept, claims_used
from podvisor_controller.vmi.outline import outline
from podvisor_controller.vmi.pod_index import OWNER_INDEX, owner_keys
from podvisor_controller.vmi.reconciler import VmiReconciler

from tests.unit.controller.api_server import ApiServer, Json
from tests.unit.controller.builders import (
    CONFIG,
    NOW,
    ended_pod,
    failed_before,
    on_claim,
    pod,
    stamp,
    unschedulable_pod,
    vm_body,
    vmi_body,
    waiting_pod,
)
from tests.unit.controller.plugged import volume, with_volumes
from tests.unit.controller.snapshots import volume_statuses
from tests.unit.kube.fake_faults import Request

KEY = ObjectKey("shop", "myvm")
PASSES = 20
BETWEEN_PASSES = timedelta(seconds=10)


@dataclass
class Scene:
    """Both reconcilers, with caches that are what the API server has whenever the test says so."""

    server: ApiServer
    client: KubeClient
    at: datetime = NOW
    markers: int = 0
    recorder: EventRecorder = field(init=False)

    def __post_init__(self) -> None:
        client = self.client
        self.recorder = EventRecorder(client, "test", "test")
        self.vms = Informer(client, VIRTUAL_MACHINES, v1.VirtualMachine)
        self.vmis = Informer(
            client,
            VIRTUAL_MACHINE_INSTANCES,
            v1.VirtualMachineInstance,
            indexers={USERS_INDEX: claims_used, KEEPERS_INDEX: claims_kept},
        )
        self.pods = Informer(client, PODS, core.Pod, indexers={OWNER_INDEX: owner_keys})
        self.nodes = Informer(client, NODES, core.Node)
        self.machines = VmReconciler(
            client,
            vms=self.vms,
            vmis=self.vmis,
            volume_statuses=volume_statuses(client),
            starts=Starts(lambda _: None),
            recorder=self.recorder,
            clock=lambda: self.at,
        )
        self.instances = VmiReconciler(
            client,
            vms=self.vms,
            vmis=self.vmis,
            pods=self.pods,
            volume_claims=Informer(client, PERSISTENT_VOLUME_CLAIMS, core.PersistentVolumeClaim),
            nodes=self.nodes,
            attendance=Attendance(),
            exports=lambda _: {},
            config=lambda: CONFIG,
            recorder=self.recorder,
            clock=lambda: self.at,
        )

    def put(self, vm: Json | None, vmi: Json | None, carrier: core.Pod | None) -> None:
        """What the cluster has to begin with."""
        for resource, body in ((VIRTUAL_MACHINES, vm), (VIRTUAL_MACHINE_INSTANCES, vmi)):
            if body is not None:
                del body["metadata"]["resourceVersion"]
                self.server.put(resource, body)
        if carrier is not None:
            self.server.put(PODS, msgspec.to_builtins(carrier))

    async def pass_over(self) -> None:
        """The watches tell of everything, and both look at the machine."""
        listed = self.server.list
        self.vms.replace(msgspec.convert(listed(VIRTUAL_MACHINES), list[v1.VirtualMachine]))
        instances = msgspec.convert(
            listed(VIRTUAL_MACHINE_INSTANCES), list[v1.VirtualMachineInstance]
        )
        self.vmis.replace(instances)
        self.pods.replace([outline(p) for p in msgspec.convert(listed(PODS), list[core.Pod])])
        self.nodes.replace(msgspec.convert(listed(NODES), list[core.Node]))
        await self.instances.reconcile(KEY)
        await self.machines.reconcile(KEY)

    def writes(self) -> list[str]:
        return [
            f"{request.method} {request.path}"
            for request in self.server.requests
            if request.method != "GET" and "/events" not in request.path
        ]

    async def told(self) -> list[str]:
        """Every writing of an event until now. They are sent in the order in which they were recorded."""
        about = events.ObjectReference("v1", "Pod", "last", namespace="shop")
        self.markers += 1
        self.recorder.record(about, events.NORMAL, "Marker", f"{self.markers}")
        await self.server.until(lambda: len(self._markers()) == self.markers)
        return [
            f"{request.method} {request.path}"
            for request in self.server.requests
            if "/events" in request.path and request not in self._markers()
        ]

    def _markers(self) -> list[Request]:
        return [r for r in self.server.requests if (r.body or {}).get("reason") == "Marker"]


@pytest.fixture
async def scene(server: ApiServer, client: KubeClient) -> AsyncIterator[Scene]:
    it = Scene(server, client)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(it.recorder.run(), name="events")
        yield it
        sending.cancel()


def condition(type_: str, status: str, reason: str = "") -> Json:
    since = {"lastTransitionTime": stamp(30)}
    return {"type": type_, "status": status, "reason": reason, "message": "", **since}


def owned(phase: str, *conditions: Json, **changes: Any) -> Json:
    """The machine's instance on node n1, as its handler has reported it."""
    times = [{"phase": phase, "phaseTransitionTimestamp": stamp(40)}]
    status = {
        "phase": phase,
        "nodeName": "n1",
        "conditions": list(conditions),
        "phaseTransitionTimestamps": times,
        "activePods": {"pod-1": "n1"},
    }
    metadata = {"annotations": {"kubevirt.io/vm-generation": "3"}}
    return vmi_body(owned=True, status=status, metadata=metadata | changes)


READY = condition("Ready", "True")
PAUSED = (
    condition("Ready", "False", "GuestNotRunning"),
    condition("Paused", "True", "PausedByUser"),
)
ENDED = condition("Ready", "False", "GuestNotRunning")
RUNS = pod("Running", node="n1", spec={"readinessGates": [{"conditionType": UNPAUSED_CONDITION}]})

SITUATIONS: dict[str, tuple[Json | None, Json | None, core.Pod | None]] = {
    "a guest runs": (vm_body(), owned("Running", READY), RUNS),
    "a guest stands still": (vm_body(), owned("Running", *PAUSED), RUNS),
    "no node fits": (vm_body(), vmi_body(owned=True), unschedulable_pod(30)),
    "an image cannot be had": (
        vm_body(),
        vmi_body(owned=True),
        waiting_pod("ImagePullBackOff", "Back-off pulling image"),
    ),
    "a claim does not exist": (vm_body(), vmi_body(owned=True, spec=on_claim()), None),
    "the claim of a volume that is to come does not exist": (
        vm_body(),
        owned("Running", READY) | {"spec": with_volumes(volume())},
        RUNS,
    ),
    "an instance without a machine runs": (None, owned("Running", READY), RUNS),
    "once, and it has ended": (vm_body("Once"), owned("Succeeded", ENDED), ended_pod(0)),
    "halted": (vm_body("Halted"), None, None),
    "it failed again, and the pause is long": (
        vm_body(status=failed_before(9, retry_in_s=290)),
        owned("Failed", ENDED),
        ended_pod(1),
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_twenty_passes_cost_nothing(situation: str, scene: Scene) -> None:
    scene.put(*SITUATIONS[situation])
    for _ in range(2):
        await scene.pass_over()
    settled = scene.writes()
    told = await scene.told()
    for _ in range(PASSES):
        scene.at += BETWEEN_PASSES
        await scene.pass_over()
    assert scene.writes() == settled
    assert await scene.told() == told
