"""Which access credentials a launcher gives its guest by the agent in it."""

from typing import Any

from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_handler.vmi.credentials import build_credentials

from tests.unit.handler.builders import vmi


def keys(secret: str, **way: Any) -> dict[str, Any]:
    source = {"secret": {"secretName": secret}}
    return {"sshPublicKey": {"source": source, "propagationMethod": way}}


def test_what_travels_by_the_agent() -> None:
    source = {"secret": {"secretName": "words"}}
    password = {"source": source, "propagationMethod": {"qemuGuestAgent": {}}}
    given = [
        keys("static", noCloud={}),
        keys("keys", qemuGuestAgent={"users": ["root", "me"]}),
        {"userPassword": password},
    ]
    directory = "/run/podvisor/credentials"
    assert build_credentials(vmi(spec={"accessCredentials": given})) == [
        pb.AccessCredentialSpec(
            secret_dir=f"{directory}/keys",
            kind=pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS,
            users=["root", "me"],
        ),
        pb.AccessCredentialSpec(
            secret_dir=f"{directory}/words", kind=pb.ACCESS_CREDENTIAL_KIND_PASSWORDS
        ),
    ]


def test_without_any_there_is_nothing_to_give() -> None:
    assert build_credentials(vmi()) == []
