"""What a launcher says is missing, in words of the manifest."""

from typing import Any

import pytest
from podvisor.domain.v1 import domain_pb2
from podvisor_common.api import meta

from tests.unit.handler.builders import vmi
from tests.unit.handler.observations import observed, said


def told(source: dict[str, Any], message: str, **spec: Any) -> str:
    """What the status says of a machine with that volume, whose launcher has said so much."""
    machine = vmi(spec={"volumes": [{"name": "v", **source}], **spec})
    now = observed(
        domain_pb2.DOMAIN_STATE_WAITING,
        machine=machine,
        reason=domain_pb2.DOMAIN_REASON_MISSING_SECRET,
        message=message,
    )
    found = meta.find_condition(said(now).conditions, "Synchronized")
    assert found is not None
    assert (found.status, found.reason) == ("False", "MissingSecret")
    return found.message


def keys(secret: str, way: str) -> dict[str, Any]:
    source = {"secret": {"secretName": secret}}
    return {"sshPublicKey": {"source": source, "propagationMethod": {way: {}}}}


@pytest.mark.parametrize("kind", ["cloudInitNoCloud", "cloudInitConfigDrive"])
@pytest.mark.parametrize(
    ("source", "message", "expected"),
    [
        (
            {"secretRef": {"name": "late"}},
            'no key "userdata" or "userData"',
            'Secret "late" does not exist in namespace "default" or has no key userdata.',
        ),
        (
            {"secretRef": {"name": "late"}, "networkDataSecretRef": {"name": "net"}},
            'no key "networkdata" or "networkData"',
            'Secret "net" does not exist in namespace "default" or has no key networkdata.',
        ),
        ({"userData": "x"}, 'no key "userdata"', 'no key "userdata"'),
        ({"secretRef": {"name": "late"}}, "Permission denied.", "Permission denied."),
    ],
)
def test_a_missing_secret_of_cloud_init(
    kind: str, source: dict[str, Any], message: str, expected: str
) -> None:
    assert told({kind: source}, f'Volume "v": {message}').startswith(f'Volume "v": {expected}')


@pytest.mark.parametrize(
    ("kind", "named"), [("cloudInitNoCloud", True), ("cloudInitConfigDrive", False)]
)
def test_missing_public_keys(kind: str, named: bool) -> None:
    message = 'Volume "v": the Secret "k" with public keys does not exist or is empty.'
    found = told({kind: {"userData": "x"}}, message, accessCredentials=[keys("k", "noCloud")])
    expected = (
        'Volume "v": Secret "k" does not exist in namespace "default" or has no public key.'
        " The machine starts when it is there."
    )
    assert found == (expected if named else message)


@pytest.mark.parametrize(
    ("source", "thing"),
    [
        ({"configMap": {"name": "c"}}, 'ConfigMap "c"'),
        ({"secret": {"secretName": "s"}}, 'Secret "s"'),
        ({"serviceAccount": {"serviceAccountName": "a"}}, 'ServiceAccount "a"'),
        ({"sysprep": {"secret": {"name": "s"}}}, 'Secret "s"'),
        ({"sysprep": {"configMap": {"name": "c"}}}, 'ConfigMap "c"'),
    ],
)
def test_missing_files(source: dict[str, Any], thing: str) -> None:
    found = told(source, 'Volume "v": the files do not exist.')
    assert found.startswith(f'Volume "v": {thing} does not exist in namespace "default" or ')
    assert found.endswith(" The machine starts when it is there.")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"downwardAPI": {"fields": []}}, 'Volume "v": nothing is there.'),
        ({"configMap": {"name": "c"}}, 'Volume "w": of another volume.'),
        ({"sysprep": {}}, 'Volume "v": nothing is there.'),
    ],
)
def test_what_no_object_stands_for_is_told_as_it_was_said(
    source: dict[str, Any], message: str
) -> None:
    assert told(source, message) == message
