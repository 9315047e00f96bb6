"""What network devices a machine can have, and what of one changes while it runs."""

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.domain.build import ConsolePaths, UnbuildableSpec, build_domain, check_spec
from podvisor_launcher.domain.elements import Devices
from podvisor_launcher.domain.interfaces import (
    build_plugged,
    has_link,
    interface_named,
    with_link,
)
from podvisor_launcher.lifecycle.start import check_open_files

from tests.unit.launcher.specs import interface, passt, spec, volume_disk

PORT = pb.ForwardedPort(protocol="sctp", number=1)


@pytest.mark.parametrize(
    ("situation", "described", "words"),
    [
        ("a model of another world", interface(model="usb-net"), 'model "usb-net" is none of'),
        ("attached to nothing", interface(tap=""), "either a tap device or passt"),
        ("attached twice", passt(tap="tap0"), "either a tap device or passt"),
        ("queues of an old device", interface(model="e1000", queues=2), "only model virtio"),
        ("queues of a process", passt(queues=2), "only model virtio"),
        ("a protocol that is not carried", passt("default", PORT), "tcp or udp"),
        ("no such place", interface(pci_address="0000:81:01.0"), "cannot be had"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_machine_can_have(situation: str, described: pb.InterfaceSpec, words: str) -> None:
    with pytest.raises(UnbuildableSpec, match=words):
        check_spec(spec(interfaces=[described]))


def test_a_place_is_taken_once_whatever_takes_it() -> None:
    place = "0000:04:00.0"
    disk = volume_disk(pci_address=place)
    with pytest.raises(UnbuildableSpec, match=r'interface "default": .* taken by another device'):
        check_spec(spec(disks=[disk], interfaces=[interface(pci_address=place)]))


def test_what_may_go_moves_nothing_else() -> None:
    """A machine that starts with one more device has all others where they were."""

    def devices(*interfaces: pb.InterfaceSpec) -> Devices:
        machine = spec(interfaces=interfaces)
        return build_domain(machine, {}, ConsolePaths("/s", "/v", "/l", "/a")).devices

    fixed, later = interface(), interface("later", tap="tap1", is_pluggable=True)
    assert devices(later, fixed).interfaces[0] == devices(fixed).interfaces[0]


def test_a_plugged_device_is_where_it_was_asked_for_or_where_libvirt_puts_it() -> None:
    assert build_plugged(interface()).address is None
    place = build_plugged(interface(pci_address="0000:04:00.0")).address
    assert place is not None
    assert place.bus == "0x04"


def test_a_carrier_comes_and_goes() -> None:
    device = build_plugged(interface(queues=2))
    down = with_link(device, is_up=False)
    assert [has_link(each) for each in (device, down, with_link(down, is_up=True))] == [
        True,
        False,
        True,
    ]
    assert (down.driver, down.mac, down.target) == (device.driver, device.mac, device.target)


def test_a_device_is_found_by_its_name() -> None:
    live = build_domain(spec(interfaces=[interface("a")]), {}, ConsolePaths("/s", "/v", "/l", "/a"))
    found = interface_named(live, "a")
    assert found is live.devices.interfaces[0]
    assert interface_named(live, "b") is None


@pytest.mark.parametrize("limit", [-1, 1 << 20])
def test_all_ports_reach_the_guest_where_files_are_plenty(limit: int) -> None:
    check_open_files(spec(interfaces=[passt()]), limit)


def test_where_they_are_not_ports_must_be_listed() -> None:
    listed = passt("default", pb.ForwardedPort(protocol="tcp", number=22))
    check_open_files(spec(interfaces=[listed, interface("other")]), 1024)
    with pytest.raises(UnbuildableSpec, match="list the ports"):
        check_open_files(spec(interfaces=[passt()]), 1024)
