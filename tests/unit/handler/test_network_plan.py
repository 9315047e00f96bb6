"""What a pod's network namespace needs, and how the name servers of a pod are read."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from podvisor_common.launcher_pod import PASST_SYSCTLS, secondary_interface_name
from podvisor_handler.linux.nftables import Family, digest_of, replacement
from podvisor_handler.network.attachments import Attachment, Bridge, Masquerade, Passt, Port
from podvisor_handler.network.facts import Resolver, primary_interface
from podvisor_handler.network.masquerade import tables_of
from podvisor_handler.network.names import (
    made_up_mac,
    own_stem,
    server_of,
    stem_of,
)
from podvisor_handler.network.namespace import (
    AddAddress,
    AddRoute,
    ConfigureLink,
    CreateBridge,
    CreateTap,
    DeleteAddress,
    KeepAddress,
    KeepRoute,
    Link,
    Observed,
    Operation,
    RemoveLink,
    ReplaceRuleset,
    Route,
    SetMac,
    StopLearning,
    TakeDown,
    WriteSysctl,
)
from podvisor_handler.network.plan import find, plan
from podvisor_handler.network.pod_files import parse_resolver

from tests.unit.handler.networks import GUEST_MAC

BRIDGE, TAP, PLACEHOLDER = "k6t-eth0", "tap0", "was-eth0"
BRIDGE_MAC = "02:00:00:00:00:00"
MAC = "0a:58:0a:f4:00:07"
MASQUERADED = (Attachment("default", Masquerade(GUEST_MAC)),)
BRIDGED = (Attachment("default", Bridge()),)
PASST = (Attachment("default", Passt()),)
SYSCTLS = {
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/k6t-eth0/route_localnet": "1",
}
LINKS = {
    "eth0": Link(2, 1450, True, 0, MAC),
    BRIDGE: Link(3, 1450, True),
    TAP: Link(4, 1450, True, 3, learns=False),
}
FRESH = Observed({"eth0": LINKS["eth0"]}, {"eth0": ("10.244.0.7/24",)})
DIGEST = next(
    digest_of(operation.tables)
    for operation in plan(FRESH, find(FRESH, MASQUERADED))
    if isinstance(operation, ReplaceRuleset)
)
RIGHT = Observed(
    LINKS,
    {"eth0": ("10.244.0.7/24",), BRIDGE: ("10.0.2.1/24",)},
    sysctls=SYSCTLS,
    rulesets={Family.IP: DIGEST, Family.BRIDGE: DIGEST},
)


def operations(now: Observed, desired: tuple[Attachment, ...] = MASQUERADED) -> list[Operation]:
    return plan(now, find(now, desired))


def but(**links: Link | None) -> Mapping[str, Link]:
    changed: dict[str, Any] = {
        **LINKS,
        **{name.replace("_", "-"): it for name, it in links.items()},
    }
    return {name: link for name, link in changed.items() if link is not None}


def with_links(**links: Link | None) -> Observed:
    return replace(RIGHT, links=but(**links))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(RIGHT, [], id="all is right"),
        pytest.param(
            with_links(tap0=Link(4, 1450, True, 0)),
            [ConfigureLink(TAP, 1450, BRIDGE), StopLearning(TAP)],
            id="loose tap",
        ),
        pytest.param(
            with_links(tap0=Link(4, 1450, False, 3, learns=False)),
            [ConfigureLink(TAP, 1450, BRIDGE)],
            id="tap is down",
        ),
        pytest.param(
            with_links(tap0=Link(4, 1450, True, 3)), [StopLearning(TAP)], id="tap is learnt from"
        ),
        pytest.param(
            with_links(k6t_eth0=Link(3, 1500, True)), [ConfigureLink(BRIDGE, 1450)], id="other MTU"
        ),
        pytest.param(
            replace(RIGHT, addresses={**RIGHT.addresses, BRIDGE: ("10.0.2.9/24",)}),
            [AddAddress(BRIDGE, "10.0.2.1/24")],
            id="no address",
        ),
        pytest.param(
            with_links(k6t_0123456789a=Link(7, 1450, True), was_0123456789a=Link(8, 1450, True)),
            [RemoveLink("k6t-0123456789a"), RemoveLink("was-0123456789a")],
            id="what is wanted no more",
        ),
    ],
)
def test_masquerade(now: Observed, expected: list[Operation]) -> None:
    assert operations(now) == expected


def test_a_fresh_pod_behind_masquerade() -> None:
    assert [each for each in operations(FRESH) if not isinstance(each, ReplaceRuleset)] == [
        WriteSysctl("net/ipv4/ip_unprivileged_port_start", "0"),
        WriteSysctl("net/ipv4/ip_forward", "1"),
        CreateBridge(BRIDGE, BRIDGE_MAC, 1450),
        WriteSysctl("net/ipv4/conf/k6t-eth0/route_localnet", "1"),
        AddAddress(BRIDGE, "10.0.2.1/24"),
        CreateTap(TAP),
        ConfigureLink(TAP, 1450, BRIDGE),
        StopLearning(TAP),
    ]


def test_what_passt_needs_is_what_the_kubelet_is_asked_for() -> None:
    found = [each for each in operations(FRESH, PASST) if isinstance(each, WriteSysctl)]
    assert found == operations(FRESH, PASST)
    assert {each.path.replace("/", "."): each.value.split() for each in found} == {
        name: value.split() for name, value in PASST_SYSCTLS.items()
    }


def test_a_fresh_pod_that_its_guest_takes_over() -> None:
    router = Route("eth0", "0.0.0.0/0", "10.244.0.1")
    now = replace(FRESH, routes=(router,))
    assert [each for each in operations(now, BRIDGED) if not isinstance(each, ReplaceRuleset)] == [
        WriteSysctl("net/ipv4/ip_unprivileged_port_start", "0"),
        CreateBridge(PLACEHOLDER, MAC, 1450),
        KeepAddress(PLACEHOLDER, "10.244.0.7/24", 0),
        KeepRoute(replace(router, device=PLACEHOLDER)),
        TakeDown("eth0"),
        SetMac("eth0", made_up_mac(MAC)),
        DeleteAddress("eth0", "10.244.0.7/24"),
        CreateBridge(BRIDGE, BRIDGE_MAC, 1450),
        AddAddress(BRIDGE, "169.254.75.10/32"),
        AddRoute(Route(BRIDGE, "10.244.0.7/32")),
        ConfigureLink("eth0", 1450, BRIDGE),
        StopLearning("eth0"),
        CreateTap(TAP),
        ConfigureLink(TAP, 1450, BRIDGE),
    ]


@pytest.mark.parametrize("desired", [MASQUERADED, BRIDGED], ids=["masquerade", "bridge"])
def test_the_rules_come_before_the_guest_can_send(desired: tuple[Attachment, ...]) -> None:
    kinds = [type(operation) for operation in operations(FRESH, desired)]
    assert kinds.index(ReplaceRuleset) < kinds.index(CreateTap)


def test_a_placeholder_of_a_former_interface_is_not_believed() -> None:
    now = replace(
        FRESH, links={**FRESH.links, PLACEHOLDER: Link(9, 1450, True, 0, "0a:00:00:00:00:99")}
    )
    (attached,) = find(now, BRIDGED)
    assert attached.mac == MAC
    assert plan(now, [attached])[2:4] == [
        RemoveLink(PLACEHOLDER),
        CreateBridge(PLACEHOLDER, MAC, 1450),
    ]


TAKEN = Link(2, 1450, True, 3, made_up_mac(MAC))
DOWN = Link(2, 1450, False, 0, MAC)
OLD_ROUTE = Route(PLACEHOLDER, "0.0.0.0/0", "10.244.0.1")


@pytest.mark.parametrize(
    ("link", "own", "kept", "kept_routes", "expected", "is_stale"),
    [
        pytest.param(TAKEN, (), ("10.244.0.5/24",), (), ("10.244.0.5/24",), False, id="taken over"),
        pytest.param(
            LINKS["eth0"],
            ("10.244.0.7/24", "10.244.0.5/24"),
            ("10.244.0.7/24",),
            (),
            ("10.244.0.7/24", "10.244.0.5/24"),
            False,
            id="broken off while it was copied",
        ),
        pytest.param(
            DOWN,
            ("10.244.0.5/24",),
            ("10.244.0.5/24", "2001:db8::5/64"),
            (OLD_ROUTE,),
            ("10.244.0.5/24", "2001:db8::5/64"),
            False,
            id="broken off when it was taken down",
        ),
        pytest.param(
            LINKS["eth0"],
            ("10.244.0.7/24",),
            ("10.244.0.5/24",),
            (),
            ("10.244.0.7/24",),
            True,
            id="another address",
        ),
        pytest.param(
            LINKS["eth0"],
            ("10.244.0.7/24", "10.244.0.5/24"),
            ("10.244.0.5/24", "10.244.0.7/24"),
            (),
            ("10.244.0.7/24", "10.244.0.5/24"),
            True,
            id="another order",
        ),
        pytest.param(
            LINKS["eth0"],
            ("10.244.0.7/24",),
            (),
            (OLD_ROUTE,),
            ("10.244.0.7/24",),
            True,
            id="other routes",
        ),
        pytest.param(DOWN, (), ("10.244.0.5/24",), (), (), True, id="not up yet"),
    ],
)
def test_what_is_kept_is_told_of_the_interface_that_it_was_taken_from(
    link: Link,
    own: tuple[str, ...],
    kept: tuple[str, ...],
    kept_routes: tuple[Route, ...],
    expected: tuple[str, ...],
    is_stale: bool,
) -> None:
    """Another interface may have the name and the hardware address of a former one, where the manifest gives the latter."""
    now = Observed(
        {"eth0": link, PLACEHOLDER: Link(9, 1450, True, 0, MAC)},
        {"eth0": own, PLACEHOLDER: kept},
        kept_routes=kept_routes,
    )
    (attached,) = find(now, BRIDGED)
    assert attached.addresses == expected
    assert (RemoveLink(PLACEHOLDER) in plan(now, [attached])) == is_stale


@pytest.mark.parametrize(
    "rulesets",
    [
        {},
        {Family.IP: "older", Family.BRIDGE: DIGEST},
        {Family.IP: DIGEST},
        {Family.IP: DIGEST, Family.BRIDGE: DIGEST, Family.IP6: DIGEST},
    ],
    ids=["none", "another", "a family too few", "a family too many"],
)
def test_rules_that_are_not_right(rulesets: dict[Family, str]) -> None:
    (operation,) = operations(replace(RIGHT, rulesets=rulesets))
    assert isinstance(operation, ReplaceRuleset)
    assert operation.stale == ((Family.IP6,) if Family.IP6 in rulesets else ())


def test_the_digest_follows_the_rules() -> None:
    (attached,) = find(FRESH, MASQUERADED)
    ports = (Port("tcp", 22), Port("udp", 53))

    def digest(binding: Masquerade) -> str:
        return digest_of(tables_of(attached, binding))

    assert digest(Masquerade(GUEST_MAC, ports=ports)) == digest(
        Masquerade(GUEST_MAC, ports=ports[::-1])
    )
    assert digest(Masquerade(GUEST_MAC, ports=ports)) != digest(Masquerade(GUEST_MAC))
    moved = replace(attached, addresses=("10.244.0.8/24",))
    assert digest_of(tables_of(moved, Masquerade(GUEST_MAC))) != digest(Masquerade(GUEST_MAC))


def test_ports_are_looked_up_and_not_tried_one_by_one() -> None:
    (attached,) = find(FRESH, MASQUERADED)

    def messages(*ports: Port) -> int:
        return len(replacement(tables_of(attached, Masquerade(GUEST_MAC, ports=ports))))

    assert messages(*(Port("tcp", number) for number in range(1, 257))) == messages(Port("tcp", 1))


@pytest.mark.parametrize(
    ("links", "routes", "expected"),
    [
        (("eth0", "net1"), (Route("net1", "0.0.0.0/0", "10.0.0.1"),), "eth0"),
        (("net0", "net1"), (Route("net1", "0.0.0.0/0", "10.0.0.1"),), "net1"),
        (
            ("net0", "net1"),
            (Route("net0", "0.0.0.0/0", "10.0.0.1", 100), Route("net1", "0.0.0.0/0", "10.0.0.1")),
            "net1",
        ),
        (("net0",), (), "eth0"),
    ],
    ids=["eth0 first", "what routes", "what routes first", "none"],
)
def test_the_primary_interface(
    links: tuple[str, ...], routes: tuple[Route, ...], expected: str
) -> None:
    found = {name: Link(number, 1450, True) for number, name in enumerate(links, 2)}
    assert primary_interface(Observed(found, {}, routes)) == expected


def test_the_primary_interface_is_known_again_when_it_routes_no_more() -> None:
    links = {
        "other": Link(2, 1450, True),
        "net0": Link(3, 1450, False, 0, made_up_mac(MAC)),
        PLACEHOLDER: Link(4, 1450, True, 0, MAC),
    }
    assert primary_interface(Observed(links, {})) == "net0"


def test_names_are_upstreams() -> None:
    name = secondary_interface_name("blue")
    assert (len(name), stem_of(name)) == (14, name.removeprefix("pod"))
    assert {own_stem(f"k6t-{stem_of(name)}"), own_stem(f"tap{stem_of(name)}")} == {stem_of(name)}
    assert (own_stem("tap0"), own_stem("was-eth0"), own_stem("eth0"), own_stem(name)) == (
        "eth0",
        "eth0",
        None,
        None,
    )
    assert server_of("eth0") == "169.254.75.10"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Resolver()),
        (
            "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
            Resolver(("10.96.0.10",), (), ("a.svc.cluster.local", "svc.cluster.local")),
        ),
        ("nameserver fd00::1\nnameserver 1.1.1.1\n", Resolver(("1.1.1.1",), ("fd00::1",))),
        ("nameserver fe80::1%eth0\n", Resolver()),
        ("# nameserver 9.9.9.9\nnameserver\nsearch .\n", Resolver()),
        ("search a\nsearch b c\n", Resolver((), (), ("b", "c"))),
    ],
)
def test_resolv_conf(text: str, expected: Resolver) -> None:
    assert parse_resolver(text) == expected
