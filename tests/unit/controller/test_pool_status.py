"""What a pool says of itself, and that it says nothing when nothing has changed."""

import msgspec
import pytest
from podvisor_common.api.meta import find_condition
from podvisor_common.api.v1.names import Reason
from podvisor_controller.pool.status import status_of
from podvisor_controller.sets.conditions import Failure
from podvisor_controller.status_patch import patch_of

from tests.unit.controller.builders import stamp
from tests.unit.controller.pools import machine_of, pool, pool_observed

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
REFUSED = Failure(Reason.FAILED_SCALE_OUT, "The VirtualMachine cannot be created: quota")


def test_machines_are_counted() -> None:
    deleted = {"deletionTimestamp": stamp(1)}
    own = [
        machine_of(pool(), 0, status=READY),
        machine_of(pool(), 1),
        machine_of(pool(), 2, metadata=deleted, status=READY),
    ]
    status = status_of(pool_observed(pool(2), own), None)
    assert (status.replicas, status.ready_replicas) == (3, 2)
    assert status.label_selector == "pool=web"
    assert status.conditions is None


def test_none_is_said_as_a_number() -> None:
    """Autoscalers and kubectl read the count of an empty pool."""
    status = msgspec.to_builtins(status_of(pool_observed(pool(0), []), None))
    assert (status["replicas"], status["readyReplicas"]) == (0, 0)


@pytest.mark.parametrize(
    ("paused", "failure", "expected"),
    [
        (False, None, {}),
        (False, REFUSED, {"ReplicaFailure": "FailedScaleOut"}),
        (True, None, {"ReplicaPaused": "Paused"}),
        (True, REFUSED, {"ReplicaPaused": "Paused"}),
    ],
)
def test_conditions(paused: bool, failure: Failure | None, expected: dict[str, str]) -> None:
    status = status_of(pool_observed(pool(paused=paused), []), failure)
    assert {c.type: c.reason for c in status.conditions or ()} == expected


@pytest.mark.parametrize("paused", [False, True])
def test_an_unchanged_pool_needs_no_write(paused: bool) -> None:
    own = [machine_of(pool(), 0, status=READY)]
    said = status_of(pool_observed(pool(1, paused=paused), own), REFUSED)
    again = msgspec.structs.replace(pool(1, paused=paused), status=said)
    assert patch_of(said, status_of(pool_observed(again, own), REFUSED)) == {}


def test_what_is_over_is_taken_back() -> None:
    said = status_of(pool_observed(pool(0), []), REFUSED)
    again = msgspec.structs.replace(pool(0), status=said)
    now = status_of(pool_observed(again, []), None)
    assert find_condition(said.conditions, "ReplicaFailure") is not None
    assert patch_of(said, now) == {"conditions": None}
