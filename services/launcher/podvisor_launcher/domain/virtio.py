"""Whether virtio devices are there for guests of before virtio 1.0 as well. Pure."""

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.domain.elements import Domain

TRANSITIONAL = "virtio-transitional"
_MODERN = "virtio-non-transitional"


def fixed_model(spec: pb.DomainSpec) -> str:
    """The model of a virtio device without a port, which unlike one with a port would be transitional by itself."""
    return TRANSITIONAL if spec.virtio_transitional else _MODERN


def is_transitional(live: Domain) -> bool:
    """Whether a machine was started so: the controller of channels, which every one has, tells."""
    return any(
        each.type == "virtio-serial" and each.model == TRANSITIONAL
        for each in live.devices.controllers
    )
