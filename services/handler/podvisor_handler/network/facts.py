"""What is known of a pod's network once it is wired. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resolver:
    """Name servers (IPv4) and search domains, in order."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """A wired network of a pod."""

    mtu_bytes: int
    addresses: tuple[str, ...]  # of the pod, IPv4
    resolver: Resolver = Resolver()
    changed: bool = False  # something had to be done
