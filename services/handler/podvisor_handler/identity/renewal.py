"""When the handler's certificate has to be replaced. Pure.

Invariant: by the clock that only goes forward, since the time of day of a node may be wrong; and at another moment on each node.
"""

from podvisor_common.tls.authority import is_signed_by, life_of, split_bundle

SHARE = 2 / 3
# By how much of the life sooner, at most.
JITTER_SHARE = 1 / 10
SHORTEST_S = 1.0


def pause_s(certificate: bytes, *, jitter: float) -> float:
    """How long after it was made a certificate is to be replaced, in seconds; `jitter` is from 0 to 1."""
    life_s = life_of(certificate).total_seconds()
    return max(life_s * (SHARE - JITTER_SHARE * jitter), SHORTEST_S)


def is_trusted(certificate: bytes, authorities: bytes) -> bool:
    """Whether one of these authorities, PEM, has signed it. Raises BadCertificate where one of the texts is none."""
    return any(is_signed_by(certificate, one) for one in split_bundle(authorities))
