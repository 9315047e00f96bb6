"""What the status tells of a guest's interfaces, and how long what the guest is to lose stays with it."""

from typing import Any

import msgspec
import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import v1
from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.attachments import (
    Bridge,
    Masquerade,
)
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.status import needs_write

from tests.unit.handler.builders import vmi
from tests.unit.handler.interfaces import (
    BLUE,
    MASQUERADED,
    ON_BLUE,
    UNREACHABLE,
    attachments,
    machine,
    reported,
    statuses,
)
from tests.unit.handler.networks import GUEST_MAC, POD_MAC, WIRED, attached, wired
from tests.unit.handler.observations import observed, said

WITHOUT_BLUE = msgspec.structs.replace(
    machine(MASQUERADED, {**ON_BLUE, "state": "absent"}),
    status=v1.VirtualMachineInstanceStatus(phase="Running"),
)
WITH_BLUE_STILL = wired(attached(), attached("blue", Bridge(), is_secondary=True))


@pytest.mark.parametrize(
    ("network", "report", "stays"),
    [
        pytest.param(WITH_BLUE_STILL, {}, False, id="all devices are told"),
        pytest.param(WITH_BLUE_STILL, {"devices_settled": False}, True, id="not all are told yet"),
        pytest.param(WITH_BLUE_STILL, {"reason": UNREACHABLE}, True, id="libvirt is away"),
        pytest.param(
            WITH_BLUE_STILL, {"accepted_generation": 0}, True, id="the launcher was not told to"
        ),
        pytest.param(
            WITH_BLUE_STILL,
            {"state": domain_pb2.DOMAIN_STATE_PREPARING, "devices_settled": False},
            True,
            id="the guest is being started",
        ),
        pytest.param(
            WITH_BLUE_STILL,
            {"state": domain_pb2.DOMAIN_STATE_NONE, "devices_settled": False},
            False,
            id="there was no guest yet",
        ),
        pytest.param(None, {"devices_settled": False}, True, id="what was wired is not known"),
        pytest.param(None, {}, False, id="what was wired is not known, and nobody has it"),
        pytest.param(WIRED, {"devices_settled": False}, False, id="it is removed already"),
    ],
)
def test_a_tap_is_removed_only_when_nobody_has_it_for_sure(
    network: PodNetwork | None, report: dict[str, Any], stays: bool
) -> None:
    wanted = attachments(WITHOUT_BLUE, "default", network=network, runs=True, **report)
    assert ("blue" in {each.network for each in wanted}) is stays
    status = statuses(
        WITHOUT_BLUE,
        network or WITH_BLUE_STILL,
        **{"interfaces": [reported("default")], "accepted_generation": 1, "devices_settled": True}
        | report,
    )
    attached_still = {each.name for each in status if each.is_attached}
    assert ("blue" in attached_still) is stays


def test_an_interface_that_came_and_is_not_to_stay_is_told_until_the_launcher_knows() -> None:
    """The specification that asks for it may be under way."""
    awaited = reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_AWAITED)
    told = {"accepted_generation": 0, "devices_settled": True}
    status = statuses(WITHOUT_BLUE, WITH_BLUE_STILL, interfaces=[awaited], **told)
    assert [each.name for each in status if each.is_attached] == ["blue"]


def test_what_was_said_of_interfaces_stays_while_the_launcher_says_nothing() -> None:
    known = statuses(machine(MASQUERADED, ON_BLUE), WITH_BLUE_STILL)
    it = msgspec.structs.replace(
        WITHOUT_BLUE, status=v1.VirtualMachineInstanceStatus(phase="Running", interfaces=known)
    )
    silent = observed(
        None,
        machine=it,
        network=WITH_BLUE_STILL,
        connection=Connection.UNRESPONSIVE,
        silent_for_s=60,
    )
    assert said(silent).interfaces == known


def test_the_status_of_an_interface() -> None:
    (status,) = statuses(vmi(), WIRED)
    assert (status.ip_address, status.ip_addresses) == ("10.244.0.7", ["10.244.0.7"])
    assert (status.queue_count, status.link_state) == (1, "up")
    assert (status.pod_interface_name, status.info_source) == ("eth0", "domain")


def test_the_status_tells_all_addresses_and_networks() -> None:
    both = wired(
        attached("default", Masquerade(GUEST_MAC), "10.244.0.7/24", "fd00:244::7/64"),
        attached("blue", Bridge(), "192.168.7.2/24", "fd00:7::2/64", is_secondary=True),
    )
    it = machine(MASQUERADED, ON_BLUE)
    first, second = statuses(it, both, interfaces=[reported("default"), reported("blue")])
    assert first.ip_addresses == ["10.244.0.7", "fd00:244::7"]
    assert (second.mac, second.ip_address) == (POD_MAC, "192.168.7.2")
    assert second.ip_addresses == ["192.168.7.2"]  # of IPv6 a bridged guest is told nothing
    assert (second.pod_interface_name, second.info_source) == (BLUE, "domain, multus-status")


@pytest.mark.parametrize(
    ("report", "sources", "link"),
    [
        ([reported("default")], "multus-status", ""),
        (
            [reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_AWAITED)],
            "multus-status",
            "",
        ),
        (
            [reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_ATTACHED)],
            "domain, multus-status",
            "up",
        ),
        ([reported("blue", link_up=False)], "domain, multus-status", "down"),
    ],
    ids=["only in the pod", "on its way", "attached", "without a carrier"],
)
def test_where_an_interface_is(
    report: list[domain_pb2.InterfaceReport], sources: str, link: str
) -> None:
    network = wired(attached("blue", Bridge(), is_secondary=True))
    (status,) = statuses(machine(ON_BLUE), network, interfaces=report)
    assert (status.info_source, status.link_state) == (sources, link)


@pytest.mark.parametrize(
    "told",
    [
        "[]",
        "",
        "{",
        '{"interface": "x"}',
        "[1]",
        '[{"interface": 1}]',
        '[{"name": "default/blue"}]',
    ],
)
def test_multus_is_the_source_of_what_it_says_it_has_given(told: str) -> None:
    network = wired(attached("blue", Bridge(), is_secondary=True))
    (status,) = statuses(machine(ON_BLUE), network, told, interfaces=[reported("blue")])
    assert (status.info_source, status.pod_interface_name) == ("domain", BLUE)


def test_what_the_guest_has_let_go_of_is_not_told() -> None:
    it = machine(MASQUERADED, {**ON_BLUE, "state": "absent"})
    network = wired(attached(), attached("blue", Bridge(), is_secondary=True))
    detaching = [
        reported("default"),
        reported("blue", attachment=domain_pb2.INTERFACE_ATTACHMENT_DETACHING),
    ]
    assert [each.name for each in statuses(it, network, interfaces=detaching)] == [
        "default",
        "blue",
    ]
    settled = {"accepted_generation": 1, "devices_settled": True}
    left = statuses(it, network, interfaces=detaching[:1], **settled)
    assert [each.name for each in left] == ["default"]


def test_the_last_interface_leaves_the_status() -> None:
    """It is asked of Multus as long as the status has it."""
    network = wired(attached("blue", Bridge(), is_secondary=True))
    known = statuses(machine(ON_BLUE), network, interfaces=[reported("blue")])
    assert [each.name for each in known if each.is_attached] == ["blue"]
    it = msgspec.structs.replace(
        machine({**ON_BLUE, "state": "absent"}),
        status=v1.VirtualMachineInstanceStatus(phase="Running", interfaces=known),
    )
    settled: dict[str, Any] = {"accepted_generation": 1, "devices_settled": True}
    left = said(observed(machine=it, network=network, **settled))
    assert left.interfaces is None
    current = msgspec.structs.replace(left, interfaces=known)
    assert needs_write(current, left)
    assert not needs_write(left, left)
    assert not needs_write(msgspec.structs.replace(left, interfaces=[]), left)
