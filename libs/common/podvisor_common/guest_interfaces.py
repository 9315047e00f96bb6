"""Network devices of a guest by the words of its agent, made harmless.

Invariant: pure. A guest may say anything, and be of any length. What comes out is bounded in number and length, its names can be
printed, its addresses are addresses. What is beyond that is cut, so that the rest is told all the same.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

INTERFACES_LIMIT = 32
ADDRESSES_LIMIT = 16
NAME_LIMIT = 64
_ADDRESS_LIMIT = 64
# Of what a guest says this much is looked at.
_LOOKED_AT = 256
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_NO_MAC = "00:00:00:00:00:00"
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class GuestInterface:
    """A network device as its guest knows it. `mac` is lower case with colons, or empty; addresses have no prefix length."""

    name: str
    mac: str = ""
    addresses: tuple[str, ...] = ()


def guest_interfaces(
    told: Iterable[tuple[str, str, Iterable[str]]],
) -> tuple[GuestInterface, ...]:
    """The devices that were told as name, hardware address and addresses, in that order; without loopback devices."""
    sound = (_sound(*each) for each in islice(told, _LOOKED_AT))
    return tuple(islice((each for each in sound if each is not None), INTERFACES_LIMIT))


def _sound(name: str, mac: str, addresses: Iterable[str]) -> GuestInterface | None:
    name = "".join(each for each in name[:NAME_LIMIT] if each.isprintable()).strip()
    parsed = [_parsed(each) for each in islice(addresses, _LOOKED_AT)]
    found = [each for each in parsed if each is not None]
    if not name or name == _LOOPBACK or (found and all(each.is_loopback for each in found)):
        return None
    usable = dict.fromkeys(str(each) for each in found if _is_of_a_device(each))
    mac = mac.lower()
    return GuestInterface(
        name,
        mac if _MAC.fullmatch(mac) and mac != _NO_MAC else "",
        tuple(islice(usable, ADDRESSES_LIMIT)),
    )


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address of IPv6 may come with the device that it is of, which is said already."""
    if len(address) > _ADDRESS_LIMIT:
        return None
    try:
        return ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None


def _is_of_a_device(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    is_mapped = address.version == 6 and address.ipv4_mapped is not None
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or is_mapped)
