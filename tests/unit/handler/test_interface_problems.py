"""Why a guest that runs has not got an interface is told, of its own interfaces and in bounds."""

import json
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as changed
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, meta, v1
from podvisor_handler.network.attachments import Bridge
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.interface_problems import untold_for_s
from podvisor_handler.vmi.plan import Observed, Problem
from podvisor_handler.vmi.status import events_of, needs_write

from tests.unit.handler.builders import pod
from tests.unit.handler.networks import attached, wired
from tests.unit.handler.observations import observed, said, written
from tests.unit.handler.test_instance_plan import ALL, ON_BLUE, PLUGGED, WITHOUT_BLUE

NO_ROOM = 'Interface "blue": internal error: No more available PCI slots.'


def situation(
    *reported: tuple[str, str],
    network: PodNetwork = ALL,
    missing_for_s: float | dict[str, float] = 0.0,
    machine: v1.VirtualMachineInstance = PLUGGED,
    **fields: Any,
) -> Observed:
    """A guest that runs, of whose interfaces by their names the launcher says so much. What is missing has been for so long, all
    of it or each by its name."""
    interfaces = [domain_pb2.InterfaceReport(name=name, message=words) for name, words in reported]
    fields.setdefault("carrier", asking("podb1f51a511f1", "pod16477688c0e"))
    now = observed(machine=machine, network=network, interfaces=interfaces, **fields)
    if isinstance(missing_for_s, int | float):
        missing_for_s = dict.fromkeys((each.network for each in network.missing), missing_for_s)
    return replace(now, network_missing_for_s=missing_for_s)


def asking(*interfaces: str) -> core.Pod:
    """The pod when Multus is asked to give it these."""
    networks = [{"name": "any", "interface": interface} for interface in interfaces]
    return asking_by(json.dumps([{"name": "mesh"}, *networks]))


def asking_by(annotation: str) -> core.Pod:
    return pod(annotations={"k8s.v1.cni.cncf.io/networks": annotation})


def told(now: Observed) -> tuple[str, str]:
    """Reason and message of what the status says is not as it should be."""
    found = meta.find_condition(said(now).conditions, "Synchronized")
    return (found.reason, found.message) if found is not None else ("", "")


def events(now: Observed) -> list[tuple[str, str, str]]:
    return [event for event in events_of(now.vmi.status, said(now)) if event[0] == "Warning"]


def test_the_launchers_words_are_told() -> None:
    now = situation(("default", ""), ("blue", NO_ROOM))
    assert told(now) == ("HotPlugNetworkInterfaceError", NO_ROOM)
    assert events(now) == [("Warning", "HotplugFailed", NO_ROOM)]
    known = changed(written(said(now)), spec=PLUGGED.spec)
    again = situation(("default", ""), ("blue", NO_ROOM), machine=known)
    assert events(again) == []
    assert not needs_write(known.status, said(again))
    solved = situation(("default", ""), ("blue", ""), machine=known)
    assert told(solved) == ("", "")
    assert needs_write(known.status, said(solved))


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ([("another", "buy more")], ("", "")),
        ([("blue", " \n")], ("", "")),
        ([("blue", "a\nb\x1b[0m")], ("HotPlugNetworkInterfaceError", "a b [0m")),
        ([("blue", "x" * 5000)], ("HotPlugNetworkInterfaceError", "x" * 1024)),
        ([("blue", "two."), ("default", "one.")], ("HotPlugNetworkInterfaceError", "one. two.")),
    ],
    ids=["of no interface", "nothing", "what is no text", "too much", "of both"],
)
def test_a_launcher_is_not_trusted(
    reported: list[tuple[str, str]], expected: tuple[str, str]
) -> None:
    assert told(situation(*reported)) == expected


def test_a_worse_problem_comes_first() -> None:
    now = situation(("blue", NO_ROOM), problem=Problem("DomainRejected", "it can never work"))
    assert told(now) == ("DomainRejected", "it can never work")


def test_a_guest_that_does_not_run_has_no_such_problem() -> None:
    now = observed(
        domain_pb2.DOMAIN_STATE_PREPARING,
        machine=PLUGGED,
        interfaces=[domain_pb2.InterfaceReport(name="blue", message=NO_ROOM)],
    )
    assert said(now).conditions is None


def test_what_is_waited_for_is_told_by_its_names() -> None:
    just_now = situation(network=WITHOUT_BLUE, missing_for_s=7)
    assert told(just_now) == ("", "")
    assert untold_for_s(just_now) == 3
    now = situation(network=WITHOUT_BLUE, missing_for_s=11)
    reason, message = told(now)
    assert reason == "NetworkNotReady"
    assert message.startswith('Interface "blue": the pod has no interface pod16477688c0e yet')
    assert "NetworkAttachmentDefinition default/blue." in message
    assert events(now) == [("Warning", "SyncFailed", message)]
    assert untold_for_s(now) is None
    assert untold_for_s(situation()) is None


BLUE = ON_BLUE.attachment
RED = attached("red", Bridge(), is_secondary=True, may_come_later=True).attachment
TO_RED = v1.Network(name="red", multus=v1.MultusNetwork(network_name="shop/red"))
BOTH = changed(
    PLUGGED, spec=changed(PLUGGED.spec, networks=[*(PLUGGED.spec.networks or ()), TO_RED])
)


@pytest.mark.parametrize(
    ("carrier", "is_asking"),
    [
        (pod(), False),
        (asking(), False),
        (asking("podb1f51a511f1"), False),
        (asking_by("mesh, default/blue@pod16477688c0e"), True),
        (asking_by('[{"name": "blue", "interface": "pod16477688c0e"}], mesh'), False),
        (asking_by('[{"name": "blue", "interface": 1}]'), False),
    ],
    ids=["nothing", "what others want", "another", "in words", "unreadable", "nonsense"],
)
def test_what_multus_was_not_asked_for_is_not_its_fault(carrier: core.Pod, is_asking: bool) -> None:
    now = situation(network=WITHOUT_BLUE, missing_for_s=11, carrier=carrier)
    reason, message = told(now)
    assert reason == "NetworkNotReady"
    assert message.startswith('Interface "blue": the pod has no interface pod16477688c0e yet')
    assert ("dynamic networks controller" in message) is is_asking
    assert ("events of the VirtualMachineInstance (FailedPodPatch)" in message) is not is_asking
    known = changed(written(said(now)), spec=PLUGGED.spec)
    restarted = situation(network=WITHOUT_BLUE, machine=known, carrier=carrier)
    assert told(restarted) == (reason, message)


def test_each_interface_is_waited_for_by_itself() -> None:
    network = wired(attached(), missing=(BLUE, RED))
    now = situation(machine=BOTH, network=network, missing_for_s={"blue": 607, "red": 7})
    reason, message = told(now)
    assert reason == "NetworkNotReady"
    assert 'Interface "blue": ' in message
    assert '"red"' not in message
    assert untold_for_s(now) == 3
    later = replace(now, network_missing_for_s={"blue": 610, "red": 10})
    assert 'Interface "red": ' in told(later)[1]
    assert untold_for_s(later) is None


@pytest.mark.parametrize("words", ["", NO_ROOM], ids=["alone", "beside the launcher's words"])
def test_what_was_told_is_not_withdrawn_by_a_handler_that_looks_anew(words: str) -> None:
    network = wired(*ALL.attached, missing=(RED,))
    reported = ("blue", words)
    before = situation(reported, machine=BOTH, network=network, missing_for_s=600)
    known = changed(written(said(before)), spec=BOTH.spec)
    restarted = situation(reported, machine=known, network=network, missing_for_s=0)
    assert told(restarted) == told(before)
    assert not needs_write(known.status, said(restarted))
    assert untold_for_s(restarted) is None
    network = wired(attached(), missing=(BLUE, RED))
    another = situation(reported, machine=known, network=network, missing_for_s=0)
    assert told(another) == told(before)
    assert untold_for_s(another) == 10


def test_all_that_is_wrong_is_told() -> None:
    network = wired(*ALL.attached, missing=(RED,))
    now = situation(("blue", NO_ROOM), machine=BOTH, network=network, missing_for_s=60)
    reason, message = told(now)
    assert reason == "HotPlugNetworkInterfaceError"
    assert message.startswith(f'{NO_ROOM} Interface "red": ')
    assert "NetworkAttachmentDefinition shop/red." in message
