"""What a pod's network namespace needs, and how the name servers of a pod are read."""

import pytest
from podvisor_handler.network.facts import Resolver
from podvisor_handler.network.plan import (
    BRIDGE,
    SYSCTLS,
    TAP,
    AddAddress,
    ConfigureLink,
    CreateBridge,
    CreateTap,
    Link,
    Masquerade,
    Observed,
    Operation,
    Port,
    ReplaceRuleset,
    WriteSysctl,
    plan,
)
from podvisor_handler.network.pod_files import parse_resolver

DESIRED = Masquerade()


def link(index: int, *, mtu_bytes: int = 1450, up: bool = True, master: int = 0) -> Link:
    return Link(index, mtu_bytes, up, master)


def observed(
    *,
    bridge: Link | None = link(3),  # noqa: B008
    tap: Link | None = link(4, master=3),  # noqa: B008
    address: str = "10.0.2.1/24",
    sysctls: dict[str, str] = SYSCTLS,
    digest: str | None = DESIRED.digest,
) -> Observed:
    """A namespace in which everything is right, but for what is given."""
    links = {"eth0": link(2)}
    if bridge is not None:
        links[BRIDGE] = bridge
    if tap is not None:
        links[TAP] = tap
    addresses = {"eth0": frozenset({"10.244.0.7/24"})}
    if bridge is not None and address:
        addresses[BRIDGE] = frozenset({address})
    return Observed(links, addresses, sysctls, digest)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(observed(), [], id="all is right"),
        pytest.param(
            observed(bridge=None, tap=None, sysctls={}, digest=None),
            [
                *(WriteSysctl(path, value) for path, value in SYSCTLS.items()),
                ReplaceRuleset(DESIRED),
                CreateBridge(BRIDGE, "02:00:00:00:00:00", 1450),
                AddAddress(BRIDGE, "10.0.2.1", 24),
                CreateTap(TAP, 107),
                ConfigureLink(TAP, 1450, BRIDGE),
            ],
            id="a fresh pod",
        ),
        pytest.param(observed(digest="older"), [ReplaceRuleset(DESIRED)], id="another ruleset"),
        pytest.param(
            observed(tap=link(4, master=0)), [ConfigureLink(TAP, 1450, BRIDGE)], id="loose tap"
        ),
        pytest.param(
            observed(tap=link(4, master=3, up=False)),
            [ConfigureLink(TAP, 1450, BRIDGE)],
            id="tap is down",
        ),
        pytest.param(
            observed(bridge=link(3, mtu_bytes=1500)), [ConfigureLink(BRIDGE, 1450)], id="other MTU"
        ),
        pytest.param(
            observed(address="10.0.2.9/24"), [AddAddress(BRIDGE, "10.0.2.1", 24)], id="no address"
        ),
    ],
)
def test_plan(now: Observed, expected: list[Operation]) -> None:
    assert plan(now, DESIRED) == expected


def test_translation_comes_before_the_guest_can_send() -> None:
    operations = plan(observed(bridge=None, tap=None, digest=None), DESIRED)
    kinds = [type(operation) for operation in operations]
    assert kinds.index(ReplaceRuleset) < kinds.index(CreateTap)


def test_the_digest_follows_the_ruleset() -> None:
    same = Masquerade(ports=(Port("udp", 53), Port("tcp", 22)))
    assert same.digest == Masquerade(ports=(Port("tcp", 22), Port("udp", 53))).digest
    assert same.digest != Masquerade().digest
    assert Masquerade("10.0.3.0/24").digest != Masquerade().digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Resolver()),
        (
            "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
            Resolver(("10.96.0.10",), ("a.svc.cluster.local", "svc.cluster.local")),
        ),
        ("nameserver fd00::1\nnameserver 1.1.1.1\n", Resolver(("1.1.1.1",))),
        ("# nameserver 9.9.9.9\nnameserver\nsearch .\n", Resolver()),
        ("search a\nsearch b c\n", Resolver((), ("b", "c"))),
    ],
)
def test_resolv_conf(text: str, expected: Resolver) -> None:
    assert parse_resolver(text) == expected
