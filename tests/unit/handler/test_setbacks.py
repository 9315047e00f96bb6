"""What went wrong lasts until it is put right, whatever else is done meanwhile."""

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_handler.launchers.state import Connection
from podvisor_handler.network.attachments import Attachment, Masquerade
from podvisor_handler.vmi.plan import (
    Action,
    ApplyDomain,
    PrepareNetwork,
    PrepareVolumes,
    Problem,
    ShutdownDomain,
)
from podvisor_handler.vmi.setbacks import Setback, Step, is_specified, step_of

from tests.unit.handler.networks import GUEST_MAC
from tests.unit.handler.observations import observed

PROBLEM = Problem("DomainRejected", "it can never work")
NETWORK = PrepareNetwork((Attachment("default", Masquerade(GUEST_MAC)),))
APPLY = ApplyDomain(domain_pb2.DomainSpec())


@pytest.mark.parametrize(
    ("step", "done", "lasts"),
    [
        (Step.DOMAIN, NETWORK, True),
        (Step.DOMAIN, PrepareVolumes(()), True),
        (Step.DOMAIN, APPLY, False),
        (Step.DOMAIN, ShutdownDomain(5), False),
        (Step.SPECIFICATION, NETWORK, True),
        (Step.SPECIFICATION, APPLY, False),
        (Step.NETWORK, NETWORK, False),
        (Step.VOLUMES, NETWORK, True),
        (Step.VOLUMES, PrepareVolumes(()), False),
    ],
)
def test_what_ends_a_problem(step: Step, done: Action, lasts: bool) -> None:
    setback = Setback()
    assert setback.met(step, PROBLEM)
    setback.passed(step_of(done))
    assert setback.problem == (PROBLEM if lasts else None)


def test_a_problem_is_news_once() -> None:
    setback = Setback()
    assert setback.met(Step.DOMAIN, PROBLEM)
    assert not setback.met(Step.DOMAIN, PROBLEM)
    setback.passed(Step.DOMAIN)
    assert setback.met(Step.DOMAIN, PROBLEM)


@pytest.mark.parametrize(
    ("connection", "actions", "expected"),
    [
        (Connection.CONNECTED, [], True),
        (Connection.CONNECTED, [APPLY], True),
        (Connection.CONNECTED, [NETWORK], False),
        (Connection.UNRESPONSIVE, [], False),
    ],
)
def test_what_proves_that_a_machine_can_be_specified(
    connection: Connection, actions: list[Action], expected: bool
) -> None:
    assert is_specified(observed(connection=connection), actions) is expected
