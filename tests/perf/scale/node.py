"""One fake node: registers itself, renews its lease, and brings up the pods bound to it as a kubelet would.

    python -m tests.perf.scale.node NODE DIRECTORY

DIRECTORY/pods is its pods directory. A pod is a fake launcher on a real socket in its `sockets` volume.
"""

import asyncio
import contextlib
import shutil
import sys
from pathlib import Path
from typing import Any

from podvisor_common.aio.tasks import run_service, spawn
from podvisor_common.api import core, meta
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiConflict, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import LEASES, NODES, PODS, ObjectKey, key_of
from podvisor_common.rpc.server import serve_unix

from tests.perf.scale.launcher import FakeLauncher

TAINT = "podvisor.test/scale"
LEASE_NAMESPACE = "kube-node-lease"
LEASE_RENEWAL_S = 10.0
SHUTDOWN_PATIENCE_S = 20.0
_SOCKETS = "volumes/kubernetes.io~empty-dir/sockets"


def node_manifest(name: str) -> dict[str, Any]:
    """A node on which nothing but what tolerates its taint lands. It lacks the label by which daemons choose nodes."""
    room = {"cpu": "1000", "memory": "10Ti", "pods": "10000", "ephemeral-storage": "1Ti"}
    now = meta.format_time(meta.now())
    ready = {"type": "Ready", "status": "True", "reason": "FakeKubelet", "message": "",
             "lastHeartbeatTime": now, "lastTransitionTime": now}  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": "amd64"}},
        "spec": {"taints": [{"key": TAINT, "value": "", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room, "conditions": [ready]},
    }


class FakeKubelet:
    """The pods of one node, each with a launcher of its own."""

    def __init__(self, client: KubeClient, name: str, directory: Path) -> None:
        self._client = client
        self._name = name
        self._pods_directory = directory / "pods"
        self._short = directory / "s"
        self._pods_directory.mkdir()
        self._short.mkdir()
        self._launchers: dict[str, FakeLauncher] = {}
        self._deleted: dict[str, asyncio.Event] = {}
        self._group: asyncio.TaskGroup | None = None
        self._informer: Informer[core.Pod] = Informer(
            client, PODS, core.Pod, field_selector=f"spec.nodeName={name}"
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Be a node until `stop` is set."""
        await self._client.create(NODES, None, node_manifest(self._name))
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._informer.subscribe(self._pod_changed)
            tasks = [
                spawn(group, self._informer.run(), name="pods"),
                spawn(group, self._renew_lease(), name="lease"),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()
            for event in self._deleted.values():
                event.set()

    def _pod_changed(self, key: ObjectKey, old: core.Pod | None, new: core.Pod | None) -> None:
        pod = new or old
        assert pod is not None
        assert self._group is not None
        uid = pod.metadata.uid
        if uid not in self._deleted:
            if new is None or new.metadata.is_being_deleted:
                return
            self._deleted[uid] = asyncio.Event()
            spawn(self._group, self._run_pod(new, self._deleted[uid]), name=f"pod-{uid}")
        if new is None or new.metadata.is_being_deleted:
            self._deleted[uid].set()

    async def _run_pod(self, pod: core.Pod, deleted: asyncio.Event) -> None:
        uid = pod.metadata.uid
        directory = self._pods_directory / uid
        _make_directory(directory / _SOCKETS)
        launcher = FakeLauncher()
        path = directory / _SOCKETS / "launcher.sock"
        async with serve_unix(
            self._short / uid[:13], [launcher.service], publish_as=path, grace_s=0.0
        ):
            await self._write_status(pod, _running())
            await deleted.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SHUTDOWN_PATIENCE_S):
                    await launcher.ended.wait()
            await launcher.end()
            await self._write_status(pod, _ended())
        await asyncio.to_thread(shutil.rmtree, directory)
        with contextlib.suppress(ApiNotFound, ApiConflict):
            await self._client.delete(PODS, key_of(pod), grace_period_s=0, uid=uid)
        self._deleted.pop(uid)

    async def _write_status(self, pod: core.Pod, status: dict[str, Any]) -> None:
        with contextlib.suppress(ApiNotFound):
            key = key_of(pod)
            manifest = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": key.name, "namespace": key.namespace},
                "status": status,
            }
            # Forced, and with what others say of the pod left alone, as by a kubelet.
            await self._client.apply(
                PODS,
                key,
                manifest,
                field_manager="kubelet",
                force=True,
                subresource="status",
                timeout_s=60,
            )

    async def _renew_lease(self) -> None:
        """What the cluster takes for the node's life sign."""
        manifest = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._name, "namespace": LEASE_NAMESPACE},
            "spec": {"holderIdentity": self._name, "leaseDurationSeconds": 40},
        }
        await self._client.create(LEASES, LEASE_NAMESPACE, manifest)
        while True:
            patch = {"spec": {"renewTime": meta.format_micro_time(meta.now())}}
            await self._client.merge_patch(LEASES, ObjectKey(LEASE_NAMESPACE, self._name), patch)
            await asyncio.sleep(LEASE_RENEWAL_S)


def _make_directory(path: Path) -> None:
    path.mkdir(parents=True)


def _running() -> dict[str, Any]:
    now = meta.format_time(meta.now())
    states = [{"state": {"running": {"startedAt": now}}, "ready": True, "started": True}]
    return {
        "phase": "Running",
        "startTime": now,
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}],
        "conditions": [_condition(type_) for type_ in ("PodScheduled", "Ready")],
        "containerStatuses": _statuses(states[0]),
    }


def _ended() -> dict[str, Any]:
    now = meta.format_time(meta.now())
    terminated = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
    state = {"state": {"terminated": terminated}, "ready": False, "started": False}
    return {"phase": "Succeeded", "containerStatuses": _statuses(state)}


def _statuses(state: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "image": "fake", "imageID": "fake", "restartCount": 0, **state}
        for name in ("compute", "guest-console-log")
    ]


def _condition(type_: str) -> dict[str, Any]:
    now = meta.format_time(meta.now())
    return {"type": type_, "status": "True", "lastTransitionTime": now}


async def main(name: str, directory: Path, stop: asyncio.Event) -> None:
    """Run one fake node until `stop` is set."""
    async with await KubeClient.from_environment(user_agent="fake-kubelet") as client:
        await FakeKubelet(client, name, directory).run(stop)


if __name__ == "__main__":
    sys.exit(run_service(lambda stop: main(sys.argv[1], Path(sys.argv[2]), stop)))
