"""What the launcher of an instance needs next, as a table."""

from dataclasses import replace
from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import core, v1
from podvisor_common.launcher_pod import PASST_SYSCTLS
from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.attachments import Attachment, Bridge, Masquerade
from podvisor_handler.network.facts import PodNetwork
from podvisor_handler.vmi.build import build_domain, digest_of
from podvisor_handler.vmi.errors import LauncherTooOld
from podvisor_handler.vmi.outline import outline
from podvisor_handler.vmi.plan import (
    Action,
    ApplyDomain,
    Launcher,
    Observed,
    PrepareNetwork,
    ShutdownDomain,
    plan,
    select_pod,
)

from tests.unit.handler.builders import pod, vmi
from tests.unit.handler.fake_launcher import OTHER_POD_UID, POD_UID, VMI_UID
from tests.unit.handler.networks import GUEST_MAC, WIRED, attached, wired

NONE = domain_pb2.DOMAIN_STATE_NONE
WAITING = domain_pb2.DOMAIN_STATE_WAITING
RUNNING = domain_pb2.DOMAIN_STATE_RUNNING
ENDED = domain_pb2.DOMAIN_STATE_ENDED
DEFAULT = (Attachment("default", Masquerade(GUEST_MAC)),)
EPOCH = 7


def launcher(
    state: domain_pb2.DomainState.ValueType = NONE,
    *,
    applied: int = 0,
    connection: Connection = Connection.CONNECTED,
    shutting_down: bool = False,
    pushed: tuple[int, str] | None = None,
    stopped: tuple[int, int] | None = None,
) -> Launcher:
    report = domain_pb2.DomainReport(
        epoch=EPOCH,
        sequence=1,
        state=state,
        applied_generation=applied,
        shutting_down=shutting_down,
    )
    return Launcher(connection, report, pushed=pushed, stopped=stopped)


def observed(
    machine: Any = None,
    carrier: core.Pod | None = None,
    state: Launcher | None = None,
    *,
    network: PodNetwork | None = WIRED,
) -> Observed:
    return Observed(
        vmi=machine or vmi(),
        pod=carrier or pod(),
        launcher=state or launcher(),
        network=network,
    )


def push(machine: v1.VirtualMachineInstance | None = None) -> ApplyDomain:
    return ApplyDomain(build_domain(machine or vmi(), pod(), WIRED))


def pushed(
    machine: v1.VirtualMachineInstance | None = None, *, epoch: int = EPOCH
) -> tuple[int, str]:
    return epoch, digest_of(push(machine).spec)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param(
            observed(network=None),
            [PrepareNetwork(DEFAULT)],
            id="first sight; what is built depends on what is wired",
        ),
        pytest.param(observed(), [push()], id="wired"),
        pytest.param(observed(state=launcher(pushed=pushed())), [], id="pushed already"),
        pytest.param(
            observed(state=launcher(pushed=pushed(epoch=EPOCH - 1))),
            [push()],
            id="pushed to a launcher that is no more",
        ),
        pytest.param(
            observed(vmi(generation=2), state=launcher(RUNNING, applied=1, pushed=pushed())),
            [push(vmi(generation=2))],
            id="the specification has changed",
        ),
        pytest.param(
            observed(state=launcher(WAITING, pushed=pushed())), [], id="the launcher tries again"
        ),
        pytest.param(observed(state=launcher(RUNNING, applied=1)), [], id="runs"),
        pytest.param(
            observed(state=launcher(RUNNING, applied=1), network=None),
            [PrepareNetwork(DEFAULT)],
            id="runs, and the handler was restarted",
        ),
        pytest.param(
            observed(state=launcher(connection=Connection.WAITING)), [], id="no launcher yet"
        ),
        pytest.param(
            observed(
                vmi(deleted=True), state=launcher(RUNNING, connection=Connection.UNRESPONSIVE)
            ),
            [],
            id="launcher does not answer",
        ),
        pytest.param(
            observed(state=Launcher(Connection.CONNECTED)), [], id="connected, nothing reported"
        ),
        pytest.param(
            observed(vmi(deleted=True), state=launcher(RUNNING)), [ShutdownDomain(5)], id="deleted"
        ),
        pytest.param(
            observed(vmi(deleted=True), state=launcher(WAITING)),
            [ShutdownDomain(5)],
            id="deleted while the start is being retried",
        ),
        pytest.param(
            observed(vmi(deleted=True), state=launcher(RUNNING, stopped=(EPOCH, 5))),
            [],
            id="deleted, asked already",
        ),
        pytest.param(
            observed(vmi(deleted=True), state=launcher(RUNNING, stopped=(EPOCH - 1, 5))),
            [ShutdownDomain(5)],
            id="deleted, another launcher was asked",
        ),
        pytest.param(
            observed(vmi(deleted=True), state=launcher(RUNNING, stopped=(EPOCH, 60))),
            [ShutdownDomain(5)],
            id="deleted, to end sooner than asked",
        ),
        pytest.param(
            observed(vmi(deleted=True), state=launcher(1000)),  # type: ignore[arg-type]
            [ShutdownDomain(5)],
            id="deleted in a state of a later release",
        ),
        pytest.param(observed(vmi(deleted=True)), [], id="deleted before anything was started"),
        pytest.param(
            observed(carrier=pod(deletion_grace_s=35), state=launcher(RUNNING, applied=1)),
            [ShutdownDomain(5)],
            id="pod deleted",
        ),
        pytest.param(
            observed(carrier=pod(deletion_grace_s=2), state=launcher(RUNNING, applied=1)),
            [ShutdownDomain(2)],
            id="pod deleted in haste",
        ),
        pytest.param(
            observed(vmi(deleted=True), state=launcher(ENDED)), [], id="the guest has ended"
        ),
        pytest.param(observed(vmi(phase="Succeeded")), [], id="final"),
        pytest.param(observed(carrier=pod(phase="Failed", exit_code=1)), [], id="pod terminal"),
    ],
)
def test_plan(now: Observed, expected: list[Action]) -> None:
    assert plan(now) == expected


@pytest.mark.parametrize("has_dhcpv6", [True, False], ids=["this release", "an earlier one"])
def test_only_a_launcher_that_has_dhcpv6_is_told_of_it(has_dhcpv6: bool) -> None:
    """And of all else it is told the same: what it does not know would look to it like a machine that was changed."""
    network = wired(attached("default", Masquerade(GUEST_MAC), "10.244.0.7/24", "fd00:244::7/64"))
    state = replace(launcher(), has_dhcpv6=has_dhcpv6)
    (action,) = plan(observed(state=state, network=network))
    assert isinstance(action, ApplyDomain)
    (interface,) = action.spec.interfaces
    assert interface.HasField("dhcpv6") == has_dhcpv6
    assert (interface.tap, interface.dhcp.address) == ("tap0", "10.0.2.2")


def test_a_launcher_of_an_earlier_release_is_not_given_what_it_would_leave_out() -> None:
    """It is told what it knows as before, and no machine is started that lacks what was asked for."""
    state = replace(launcher(), has_hardware=False)
    assert plan(observed(state=state)) == plan(observed())
    domain = {"memory": {"guest": "64M"}, "devices": {"rng": {}}, "rebootPolicy": "Terminate"}
    machine = vmi(spec={"domain": domain})
    with pytest.raises(LauncherTooOld, match="cannot build ends_on_reboot, rng; delete"):
        plan(observed(machine, state=state))
    (action,) = plan(observed(machine))
    assert isinstance(action, ApplyDomain)
    assert action.spec.rng


def test_a_machine_without_interface_needs_no_network() -> None:
    devices = {"autoattachPodInterface": False}
    machine = vmi(spec={"domain": {"memory": {"guest": "64M"}, "devices": devices}})
    expected = ApplyDomain(build_domain(machine, pod(), None))
    assert plan(observed(machine, network=None)) == [expected]


def test_no_pod() -> None:
    assert plan(Observed(vmi(), None, launcher())) == []


@pytest.mark.parametrize(
    ("active", "pods", "chosen"),
    [
        pytest.param((POD_UID,), [pod()], POD_UID, id="the only one"),
        pytest.param((), [pod()], None, id="nobody vouches for it"),
        pytest.param((OTHER_POD_UID,), [pod()], None, id="another one is vouched for"),
        pytest.param((POD_UID,), [pod(namespace="evil")], None, id="other namespace"),
        pytest.param((POD_UID,), [pod(creator="someone")], None, id="claims another instance"),
        pytest.param(
            (POD_UID, OTHER_POD_UID),
            [pod(phase="Failed"), pod(uid=OTHER_POD_UID)],
            OTHER_POD_UID,
            id="the one that lives",
        ),
        pytest.param((POD_UID,), [], None, id="none"),
    ],
)
def test_which_pod_carries_an_instance(
    active: tuple[str, ...], pods: list[core.Pod], chosen: str | None
) -> None:
    assert vmi().metadata.uid == VMI_UID
    found = select_pod(vmi(pods=active), pods)
    assert (found.metadata.uid if found else None) == chosen


BLUE = {"name": "blue", "multus": {"networkName": "blue"}}
PLUGGED = vmi(
    generation=2,
    spec={
        "domain": {
            "memory": {"guest": "64M"},
            "devices": {
                "interfaces": [
                    {"name": "default", "masquerade": {}},
                    {"name": "blue", "bridge": {}},
                ]
            },
        },
        "networks": [{"name": "default", "pod": {}}, BLUE],
    },
)
ABSENT_BLUE = {"name": "blue", "bridge": {}, "state": "absent"}
ON_BLUE = attached("blue", Bridge(), is_secondary=True, may_come_later=True)
ALL = wired(attached(), ON_BLUE)
WITHOUT_BLUE = wired(attached(), missing=(ON_BLUE.attachment,))


PASST = {"name": "default", "passtBinding": {}}
SOME_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0"}


@pytest.mark.parametrize(
    ("interfaces", "sysctls", "is_prepared"),
    [
        ([PASST], PASST_SYSCTLS, True),
        ([PASST], PASST_SYSCTLS | {"net.ipv4.tcp_syncookies": "1"}, True),
        ([PASST], SOME_SYSCTLS, False),
        ([PASST], PASST_SYSCTLS | {"net.ipv4.ip_unprivileged_port_start": "1024"}, False),
        ([PASST], {}, False),
        ([PASST, {"name": "blue", "bridge": {}}], PASST_SYSCTLS, False),
        ([{"name": "default", "masquerade": {}}], PASST_SYSCTLS, False),
    ],
    ids=[
        "passt",
        "and more settings",
        "some of the settings",
        "another value",
        "a pod of an earlier release",
        "passt and another",
        "masquerade",
    ],
)
def test_when_the_kubelet_has_prepared_a_network(
    interfaces: list[dict[str, Any]], sysctls: dict[str, str], is_prepared: bool
) -> None:
    machine = vmi(
        spec={
            "domain": {"devices": {"interfaces": interfaces}},
            "networks": [{"name": "default", "pod": {}}, BLUE],
        }
    )
    (action,) = plan(observed(machine, outline(pod(sysctls=sysctls)), network=None))
    assert isinstance(action, PrepareNetwork)
    assert action.is_prepared == is_prepared


@pytest.mark.parametrize(
    ("network", "is_due", "expected"),
    [
        (WIRED, False, PrepareNetwork),
        (WITHOUT_BLUE, False, ApplyDomain),
        (WITHOUT_BLUE, True, PrepareNetwork),
        (ALL, True, ApplyDomain),
    ],
    ids=["news", "not in the pod yet", "it may be there by now", "it is there"],
)
def test_an_interface_that_a_running_guest_is_to_get(
    network: PodNetwork, is_due: bool, expected: type[Action]
) -> None:
    now = Observed(
        vmi=PLUGGED,
        pod=pod(),
        launcher=launcher(RUNNING, applied=1),
        network=network,
        network_is_due=is_due,
    )
    (action,) = plan(now)
    assert isinstance(action, expected)


def test_a_restarted_handler_gives_the_launcher_what_it_has_not_got() -> None:
    known = launcher(RUNNING, applied=2)
    assert [type(action) for action in plan(observed(PLUGGED, state=known, network=ALL))] == [
        ApplyDomain
    ]
    assert known.report is not None
    known.report.interfaces.add(name="blue")
    assert plan(observed(PLUGGED, state=known, network=ALL)) == []


def test_a_restarted_handler_looks_at_a_pod_whose_last_interface_has_left() -> None:
    """What was made for it is taken away, and its status tells that it is gone."""
    domain = {"memory": {"guest": "64M"}, "devices": {"interfaces": [ABSENT_BLUE]}}
    machine = vmi(spec={"domain": domain, "networks": [BLUE]})
    known = launcher(RUNNING, applied=1)
    assert known.report is not None
    known.report.accepted_generation, known.report.devices_settled = 1, True
    assert plan(observed(machine, state=known, network=None)) == [PrepareNetwork(())]
    assert plan(observed(machine, state=known, network=wired())) == []


def test_a_device_is_opened_where_there_is_no_interface() -> None:
    """With KVM the guest needs one of the node's; without there is nothing to do in the pod."""
    devices = {"autoattachPodInterface": False}
    machine = vmi(spec={"domain": {"memory": {"guest": "64M"}, "devices": devices}})
    alone = observed(machine, pod(kvm=True), network=None)
    assert plan(alone) == [PrepareNetwork((), is_prepared=True)]
    assert [type(action) for action in plan(replace(alone, network=wired()))] == [ApplyDomain]
    assert [type(action) for action in plan(replace(alone, pod=pod()))] == [ApplyDomain]


def test_a_start_alone_is_no_reason_to_wire_again() -> None:
    as_started = attached("blue", Bridge(), is_secondary=True)
    known = launcher(RUNNING, applied=2)
    assert known.report is not None
    known.report.interfaces.add(name="blue")
    assert plan(observed(PLUGGED, state=known, network=wired(attached(), as_started))) == []
