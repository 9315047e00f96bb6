"""What becomes of a specification that somebody asks for."""

from dataclasses import dataclass

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_common.errors import Terminal

from podvisor_launcher.dhcp.offers import offers6_by_bridge, offers_by_bridge
from podvisor_launcher.domain.build import UnbuildableSpec, check_spec


class OtherMachine(Terminal):
    """A pod runs one machine for its whole life."""

    reason = "OtherMachine"


class MachineEnded(Terminal):
    """The guest has ended; another one needs another pod."""

    reason = "MachineEnded"


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a specification."""

    generation: int
    restart_required: tuple[str, ...] = ()


def check(spec: pb.DomainSpec) -> None:
    """Raise UnbuildableSpec when no machine can ever be built from `spec`."""
    check_spec(spec)
    try:
        offers_by_bridge(spec)
        offers6_by_bridge(spec)
    except ValueError as error:
        raise UnbuildableSpec(f"interfaces: dhcp: {error}") from error
