"""Domain names as DHCP writes them (RFC 1035, without compression)."""

from collections.abc import Sequence

MAX_LABEL_BYTES = 63
MAX_NAME_BYTES = 255


def encode_domains(domains: Sequence[str], max_bytes: int) -> bytes:
    """Names one after the other. What is no name is left out, and so is what does not fit `max_bytes` any more."""
    encoded = b""
    for domain in domains:
        name = _encode(domain)
        if len(encoded) + len(name) > max_bytes:
            break
        encoded += name
    return encoded


def _encode(domain: str) -> bytes:
    labels = domain.strip(".").encode("ascii", "ignore").split(b".")
    if not all(0 < len(label) <= MAX_LABEL_BYTES for label in labels):
        return b""
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return name if len(name) <= MAX_NAME_BYTES else b""
