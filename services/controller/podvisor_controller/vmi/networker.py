"""Has the launcher pods of running machines ask for other networks: looks, asks pod_networks.py, writes what that says.

Invariant: decides and remembers nothing. What comes of it, the handler sees in the pod: the interfaces themselves, and when to look, by what
Multus writes into the pod's annotation network-status.
"""

from dataclasses import dataclass

import msgspec
from podvisor_common.api import core, v1
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.names import EventReason
from podvisor_common.kube import events
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiForbidden, ApiInvalid, ApiNotFound
from podvisor_common.kube.informer import Informer
from podvisor_common.kube.resources import PODS, VIRTUAL_MACHINE_INSTANCES, key_of
from podvisor_common.network_selections import UnreadableNetworks

from podvisor_controller.pauses import REFUSED_CHANGE_S
from podvisor_controller.preconditions import as_it_was_seen
from podvisor_controller.refusals import refusal
from podvisor_controller.vmi.observed import Observed, has_ended
from podvisor_controller.vmi.pod_networks import changed_networks

_decode_pod = msgspec.json.Decoder(core.Pod).decode


@dataclass(frozen=True, slots=True)
class Networker:
    """Writes the networks of launcher pods."""

    client: KubeClient
    pods: Informer[core.Pod]
    recorder: events.EventRecorder

    async def bring_about(self, now: Observed) -> float | None:
        """Have the pod of an instance ask for the networks that the instance has. In how many seconds that is worth another try; None
        where it was done, or where only news of the pod make it possible. ApiConflict when the pod has changed."""
        vmi, pod = now.vmi, now.pod
        if pod is None or pod.metadata.is_being_deleted or has_ended(pod):
            return None
        if vmi.is_final or vmi.metadata.is_being_deleted:
            return None
        try:
            annotations = changed_networks(vmi, pod)
        except UnreadableNetworks as error:
            key = names.MULTUS_NETWORKS_ANNOTATION
            why = f"The launcher pod cannot be given other networks: of its annotation {key}, {error}."
            self._tell(vmi, why)
            return None
        if annotations is None:
            return None
        patch = {"metadata": as_it_was_seen(pod.metadata) | {"annotations": annotations}}
        try:
            answer = await self.client.merge_patch(PODS, key_of(pod), patch)
        except ApiNotFound:
            return None
        except (ApiForbidden, ApiInvalid) as error:
            why = refusal("launcher pod", "given other networks", error)
            self._tell(vmi, why)
            return REFUSED_CHANGE_S
        self.pods.learn(_decode_pod(answer))
        return None

    def _tell(self, vmi: v1.VirtualMachineInstance, why: str) -> None:
        about = events.reference_to(VIRTUAL_MACHINE_INSTANCES, vmi)
        self.recorder.record(about, events.WARNING, EventReason.FAILED_POD_PATCH, why)
