"""Opens and closes the readiness gate of launcher pods: looks, asks readiness.py, writes what that says.

Invariant: decides and remembers nothing. Of a pod's status it writes that one condition.
"""

from dataclasses import dataclass

import msgspec
from podvisor_common.api import core
from podvisor_common.api.v1.names import EventReason
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import PODS, VIRTUAL_MACHINE_INSTANCES, key_of

from podvisor_controller.pauses import REFUSED_CHANGE_S
from podvisor_controller.refusals import refusal
from podvisor_controller.vmi.observed import Observed
from podvisor_controller.vmi.readiness import changed_readiness

_FIELD_MANAGER = "virt-controller"

_decode_pod = msgspec.json.Decoder(core.Pod).decode


@dataclass(frozen=True, slots=True)
class Gatekeeper:
    """Writes the readiness of launcher pods."""

    client: KubeClient
    pods: Informer[core.Pod]
    recorder: events.EventRecorder

    async def bring_about(self, now: Observed) -> float | None:
        """Have the pod of an instance say whether its guest runs on. In how many seconds that is worth another try; None where there was
        nothing to do or it was done, or where the pod has gone."""
        pod, condition = now.pod, changed_readiness(now)
        if pod is None or condition is None:
            return None
        key, metadata = key_of(pod), pod.metadata
        manifest = {
            "apiVersion": pod.api_version,
            "kind": pod.kind,
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": metadata.uid},
            "status": {"conditions": [condition]},
        }
        try:
            answer = await self.client.apply(
                PODS, key, manifest, field_manager=_FIELD_MANAGER, force=True, subresource="status"
            )
        except ApiNotFound:
            return None
        except (ApiForbidden, ApiInvalid) as error:
            about = events.reference_to(VIRTUAL_MACHINE_INSTANCES, now.vmi)
            why = refusal("launcher pod", "marked as one whose guest runs or is paused", error)
            self.recorder.record(about, events.WARNING, EventReason.FAILED_POD_PATCH, why)
            return REFUSED_CHANGE_S
        self.pods.learn(_decode_pod(answer))
        return None
