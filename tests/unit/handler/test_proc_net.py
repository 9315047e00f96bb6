"""What /proc/<pid>/net tells of a pod's network; the texts are a kernel's (6.18)."""

import pytest
from podvisor_handler.network.attachments import Attachment, Passt
from podvisor_handler.network.facts import gateway_of
from podvisor_handler.network.namespace import Link, Observed, Route
from podvisor_handler.network.plan import find
from podvisor_handler.network.proc_net import Device, Texts, observed_of

DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
  peer:     110       1    0    0    0     0          0         0       90       1    0    0    0     0       0          0
  eth0:      90       1    0    0    0     0          0         0      110       1    0    0    0     0       0          0
"""
BRIDGED_ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0000600A\t00000000\t0001\t0\t0\t7\t0000F0FF\t0\t0\t0
eth0\t0000F40A\t0101F40A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0001F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
*\t0000FA0A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
BRIDGED_TRIE = """\
Main:
  +-- 0.0.0.0/1 2 0 2
     +-- 0.0.0.0/4 2 0 2
        |-- 0.0.0.0
           /0 universe UNICAST
        +-- 10.0.0.0/8 2 0 2
           |-- 10.96.0.0
              /12 link UNICAST
           +-- 10.240.0.0/12 2 0 2
              +-- 10.244.0.0/23 3 1 5
                 |-- 10.244.0.0
                    /16 universe UNICAST
                 |-- 10.244.1.0
                    /24 link UNICAST
                 +-- 10.244.1.192/26 2 0 2
                    |-- 10.244.1.200
                       /32 host LOCAL
                    |-- 10.244.1.255
                       /32 link BROADCAST
              |-- 10.250.0.0
                 /16 universe UNREACHABLE
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
Local:
  +-- 0.0.0.0/1 2 0 2
     +-- 0.0.0.0/4 2 0 2
        |-- 0.0.0.0
           /0 universe UNICAST
        +-- 10.0.0.0/8 2 0 2
           |-- 10.96.0.0
              /12 link UNICAST
           +-- 10.240.0.0/12 2 0 2
              +-- 10.244.0.0/23 3 1 5
                 |-- 10.244.0.0
                    /16 universe UNICAST
                 |-- 10.244.1.0
                    /24 link UNICAST
                 +-- 10.244.1.192/26 2 0 2
                    |-- 10.244.1.200
                       /32 host LOCAL
                    |-- 10.244.1.255
                       /32 link BROADCAST
              |-- 10.250.0.0
                 /16 universe UNREACHABLE
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
"""
BRIDGED_IF_INET6 = """\
20010db8000000000000000000000005 03 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
fe800000000000002cdab5fffe7972c1 02 40 20 c0     peer
fe8000000000000070ddf0fffeb5cc67 03 40 20 c0     eth0
"""
# As Calico and Cilium do: an address that is alone, a router beside it.
ALONE_ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101FEA9\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0101FEA9\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""
ALONE_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     +-- 0.0.0.0/4 2 0 2
        |-- 0.0.0.0
           /0 universe UNICAST
        |-- 10.0.1.5
           /32 host LOCAL
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 169.254.1.1
        /32 link UNICAST
"""
# As the plugin `ptp` does: the address' network lies behind a router.
ROUTED_ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
net7\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0
net7\t0000F40A\t0100F40A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
net7\t0100F40A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""
ROUTED_TRIE = """\
Main:
  +-- 0.0.0.0/1 2 0 2
     +-- 0.0.0.0/4 2 0 2
        |-- 0.0.0.0
           /0 universe UNICAST
        +-- 10.244.0.0/24 2 0 2
           +-- 10.244.0.0/28 2 0 2
              +-- 10.244.0.0/31 1 0 0
                 |-- 10.244.0.0
                    /24 universe UNICAST
                 |-- 10.244.0.1
                    /32 link UNICAST
              |-- 10.244.0.9
                 /32 host LOCAL
           |-- 10.244.0.255
              /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
"""
DEVICES = {"eth0": Device("0a:58:0a:f4:01:c8", 1450)}
BEFORE_ANY_ADDRESS = """\
Main:
  |-- 0.0.0.0
     /0 universe UNICAST
"""


def named(name: str) -> str:
    return DEV.replace("eth0", name)


BRIDGED = Texts(DEV, BRIDGED_ROUTE, BRIDGED_TRIE, BRIDGED_IF_INET6)
ALONE = Texts(DEV, ALONE_ROUTE, ALONE_TRIE)
ROUTED = Texts(named("net7"), ROUTED_ROUTE, ROUTED_TRIE)


@pytest.mark.parametrize(
    ("texts", "interface", "addresses", "routes"),
    [
        pytest.param(
            BRIDGED,
            "eth0",
            ("10.244.1.200/24", "2001:db8::5/64"),
            (
                Route("eth0", "0.0.0.0/0", "10.244.1.1"),
                Route("eth0", "10.96.0.0/12", metric=7),
                Route("eth0", "10.244.0.0/16", "10.244.1.1"),
            ),
            id="a bridge of the node's",
        ),
        pytest.param(
            ALONE,
            "eth0",
            ("10.0.1.5/32",),
            (Route("eth0", "0.0.0.0/0", "169.254.1.1"), Route("eth0", "169.254.1.1/32")),
            id="an address that is alone",
        ),
        pytest.param(
            ROUTED,
            "net7",
            ("10.244.0.9/24",),
            (
                Route("net7", "0.0.0.0/0", "10.244.0.1"),
                Route("net7", "10.244.0.0/24", "10.244.0.1"),
                Route("net7", "10.244.0.1/32"),
            ),
            id="a network behind a router, an interface of another name",
        ),
        pytest.param(
            Texts(DEV, BRIDGED_ROUTE.splitlines()[0], BEFORE_ANY_ADDRESS, BRIDGED_IF_INET6),
            "eth0",
            ("2001:db8::5/64",),
            (),
            id="IPv6 alone",
        ),
    ],
)
def test_a_pods_own_network(
    texts: Texts, interface: str, addresses: tuple[str, ...], routes: tuple[Route, ...]
) -> None:
    (attached,) = find(observed_of(texts, DEVICES), (Attachment("default", Passt()),))
    assert (attached.pod_interface, attached.addresses) == (interface, addresses)
    assert attached.routes == routes
    if routes:
        assert gateway_of(attached) == routes[0].gateway


def test_each_address_is_of_one_device() -> None:
    now = observed_of(BRIDGED, DEVICES)
    assert now.links["eth0"] == Link(0, 1450, True, mac="0a:58:0a:f4:01:c8")
    assert set(now.links) == {"lo", "peer", "eth0"}
    assert now.addresses["lo"] == ("::1/128",)
    assert {name for name, those in now.addresses.items() if "10.244.1.200/24" in those} == {"eth0"}


def test_a_namespace_that_has_nothing_yet() -> None:
    header = "".join(DEV.splitlines(keepends=True)[:2])
    assert observed_of(Texts(header, "", ""), {}) == Observed({}, {})
    assert find(observed_of(Texts(header, "", ""), {}), (Attachment("default", Passt()),)) == []
