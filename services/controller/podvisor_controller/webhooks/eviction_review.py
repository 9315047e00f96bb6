"""Answers the API server's question whether a launcher pod, or one that holds a volume for its guest, may be evicted, and has the
instance's status tell of it.

Invariant: an eviction that is refused is refused with 429, which clients try again, whatever the reason; nothing is written
for a dry run, nor a second time. The caches answer; the API server is asked only for what they do not have, and no longer
than the API server waits for this answer.
"""

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiError, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import PODS, VIRTUAL_MACHINE_INSTANCES, ObjectKey, key_of

from podvisor_controller.vmi.pod_index import instance_of_pod, launcher_of_pod
from podvisor_controller.webhooks.eviction import Evacuation, evacuation_of
from podvisor_controller.webhooks.review import AdmissionRequest, Verdict

# A manager of its own: the controller's next apply does not take the field away, and whoever cancels the evacuation may.
FIELD_MANAGER = "virt-controller-eviction"
# Below the webhook's own time limit, so that the client reads a 429 rather than of a webhook that failed.
ANSWER_WITHIN_S = 4.0

_APPS = (names.LAUNCHER_APP, names.HOTPLUG_DISK_APP)

_log = structlog.get_logger(__name__)


class _DeleteOptions(msgspec.Struct, frozen=True, rename="camel"):
    dry_run: list[str] | None = None


class _Eviction(msgspec.Struct, frozen=True, rename="camel"):
    delete_options: _DeleteOptions | None = None


_decode_eviction = msgspec.json.Decoder(_Eviction | None).decode
_decode_pod = msgspec.json.Decoder(core.Pod).decode
_decode_vmi = msgspec.json.Decoder(v1.VirtualMachineInstance).decode


class EvictionReviewer:
    """Reviews evictions of launcher pods."""

    def __init__(
        self,
        client: KubeClient,
        *,
        pods: Informer[core.Pod],
        vmis: Informer[v1.VirtualMachineInstance],
        cluster_strategy: Callable[[], str],
        answer_within_s: float = ANSWER_WITHIN_S,
    ) -> None:
        self._client = client
        self._pods = pods
        self._vmis = vmis
        self._cluster_strategy = cluster_strategy
        self._answer_within_s = answer_within_s

    async def review(self, request: AdmissionRequest) -> Verdict:
        """Whether the pod may be evicted. Safe to repeat."""
        key = ObjectKey(request.namespace, request.name)
        try:
            async with asyncio.timeout(self._answer_within_s):
                return await self._review(key, is_dry_run=_is_dry_run(request))
        except (ApiError, TimeoutError) as error:
            _log.warning(
                "eviction not decided", namespace=key.namespace, pod=key.name, error=str(error)
            )
            return Verdict(not_yet="podvisor cannot tell yet whether the guest may be stopped")

    async def _review(self, key: ObjectKey, *, is_dry_run: bool) -> Verdict:
        pod = await self._pod(key)
        if pod is not None and (launcher := launcher_of_pod(pod)) is not None:
            return await self._review_holder(pod, launcher)
        vmi = await self._instance(pod) if pod is not None else None
        if pod is None or vmi is None:
            return Verdict()
        evacuation = evacuation_of(pod, vmi, self._cluster_strategy())
        if evacuation is None:
            return Verdict()
        if not evacuation.is_requested and not is_dry_run:
            await self._request(vmi, evacuation)
        return Verdict(not_yet=evacuation.message)

    async def _review_holder(self, pod: core.Pod, key: ObjectKey) -> Verdict:
        """What holds a volume is the last to go: its launcher pod is evicted in its own right, and takes it along."""
        launcher, owner = await self._pod(key), pod.metadata.controller_reference()
        if launcher is None or owner is None or launcher.metadata.uid != owner.uid:
            return Verdict()
        if pod.is_terminal or launcher.is_terminal or launcher.metadata.is_being_deleted:
            return Verdict()
        return Verdict(
            not_yet=f"Pod holds a volume for the guest in pod {key.name}: it can go when that one has begun to end"
        )

    async def _pod(self, key: ObjectKey) -> core.Pod | None:
        """The pod of that name, if it is a launcher pod or holds a volume for one."""
        known = self._pods.get(key)
        if known is not None:
            return known
        try:
            pod = _decode_pod(await self._client.get(PODS, key))
        except ApiNotFound:
            return None
        labels = pod.metadata.labels or {}
        return pod if labels.get(names.APP_LABEL) in _APPS else None

    async def _instance(self, pod: core.Pod) -> v1.VirtualMachineInstance | None:
        """The instance that the pod carries; None when it is gone."""
        key, owner = instance_of_pod(pod), pod.metadata.controller_reference()
        if key is None or owner is None:
            return None
        known = self._vmis.get(key)
        if known is not None and known.metadata.uid == owner.uid:
            return known
        try:
            return _decode_vmi(await self._client.get(VIRTUAL_MACHINE_INSTANCES, key))
        except ApiNotFound:
            return None

    async def _request(self, vmi: v1.VirtualMachineInstance, evacuation: Evacuation) -> None:
        key = key_of(vmi)
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": names.VIRTUAL_MACHINE_INSTANCE,
            "metadata": {
                "name": key.name,
                "namespace": key.namespace,
                "uid": vmi.metadata.uid,
            },
            "status": {"evacuationNodeName": evacuation.node_name},
        }
        answer = await self._client.apply(
            VIRTUAL_MACHINE_INSTANCES,
            key,
            manifest,
            field_manager=FIELD_MANAGER,
            force=True,
            subresource="status",
        )
        self._vmis.learn(_decode_vmi(answer))


def _is_dry_run(request: AdmissionRequest) -> bool:
    """A dry run is asked for in the request or, as `kubectl drain` does, in the eviction's own delete options."""
    eviction = _decode_eviction(request.object)
    options = eviction.delete_options if eviction is not None else None
    return request.dry_run or bool(options and options.dry_run)
