"""What a guest says of its network devices, made harmless: a table of what a hostile one may say."""

from collections.abc import Iterator
from itertools import count

import pytest
from podvisor_common.guest_interfaces import GuestInterface, guest_interfaces

MAC = "02:00:00:00:00:01"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param(
            ("eth0", MAC, ["10.0.2.2", "fd10:0:2::2"]),
            GuestInterface("eth0", MAC, ("10.0.2.2", "fd10:0:2::2")),
            id="as it should be",
        ),
        pytest.param(("eth0", "", []), GuestInterface("eth0"), id="a bare device"),
        pytest.param(
            ("Ethernet 2", "02-AA-00-00-00-01", []),
            GuestInterface("Ethernet 2"),
            id="a hardware address in another form",
        ),
        pytest.param(
            ("eth0", "02:AA:00:00:00:01", []),
            GuestInterface("eth0", "02:aa:00:00:00:01"),
            id="a hardware address in capitals",
        ),
        pytest.param(("tun0", "00:00:00:00:00:00", []), GuestInterface("tun0"), id="none"),
        pytest.param(
            ("eth0", MAC, ["FD10:0:2:0::2", "fd10:0:2::2"]),
            GuestInterface("eth0", MAC, ("fd10:0:2::2",)),
            id="an address twice",
        ),
        pytest.param(
            ("eth0", MAC, ["fe80::1%eth0", "fe80::2%\n\x1b[2J"]),
            GuestInterface("eth0", MAC, ("fe80::1", "fe80::2")),
            id="with the device it is of",
        ),
        pytest.param(
            ("eth0", MAC, ["10.0.2.2/24", "1", "10.0.2.256", "", "x" * 1_000_000, "10.0.2.2"]),
            GuestInterface("eth0", MAC, ("10.0.2.2",)),
            id="what is no address",
        ),
        pytest.param(
            (
                "eth0",
                MAC,
                ["0.0.0.0", "224.0.0.1", "ff02::1", "::", "::ffff:10.0.2.2", "::1", "10.0.2.2"],
            ),
            GuestInterface("eth0", MAC, ("10.0.2.2",)),
            id="what no device has",
        ),
        pytest.param(
            ("e\x00t\nh\x1b[31m0\u202e", MAC, []),
            GuestInterface("eth[31m0", MAC),
            id="a name that does something to a terminal",
        ),
        pytest.param(
            ("é" * 1_000_000, MAC, []), GuestInterface("é" * 64, MAC), id="a name without an end"
        ),
        pytest.param(
            ("eth0", MAC * 1_000_000, []), GuestInterface("eth0"), id="a hardware address likewise"
        ),
        pytest.param(
            ("eth0", MAC, [f"10.0.2.{number}" for number in range(200)]),
            GuestInterface("eth0", MAC, tuple(f"10.0.2.{number}" for number in range(16))),
            id="many addresses",
        ),
        pytest.param(("", MAC, []), None, id="no name"),
        pytest.param(("\n", MAC, []), None, id="a name of nothing that can be seen"),
        pytest.param(("lo", "00:00:00:00:00:00", ["127.0.0.1", "::1"]), None, id="loopback"),
        pytest.param(("lo", "", []), None, id="loopback that is down"),
        pytest.param(
            ("Loopback Pseudo-Interface 1", "", ["::1"]), None, id="loopback by another name"
        ),
    ],
)
def test_a_device(told: tuple[str, str, list[str]], expected: GuestInterface | None) -> None:
    assert guest_interfaces([told]) == ((expected,) if expected is not None else ())


def test_devices_are_bounded_in_number() -> None:
    names = ["lo", *(f"veth{number}" for number in range(2048))]
    found = guest_interfaces((name, "", []) for name in names)
    assert [each.name for each in found] == [f"veth{number}" for number in range(32)]


def test_of_what_has_no_end_only_the_beginning_is_looked_at() -> None:
    looked_at = count()

    def addresses() -> Iterator[str]:
        while True:
            next(looked_at)
            yield "no address"

    assert guest_interfaces(("eth0", MAC, addresses()) for _ in count()) == (
        (GuestInterface("eth0", MAC),) * 32
    )
    assert next(looked_at) < 100_000
