"""Which commands give a guest its public keys and passwords."""

import pytest
from podvisor.domain.v1 import domain_pb2 as pb
from podvisor_launcher.lifecycle.credential_plan import (
    Content,
    GivenKeys,
    complaint_of,
    steps_of,
    wanted_of,
)
from podvisor_launcher.virt.agent import Command
from podvisor_launcher.virt.errors import AgentFailed

KEYS = pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS
PASSWORDS = pb.ACCESS_CREDENTIAL_KIND_PASSWORDS
Spec = pb.AccessCredentialSpec
ADD, REMOVE = "guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys"


def commands(
    specs: list[pb.AccessCredentialSpec], content: Content, given: GivenKeys | None = None
) -> list[Command]:
    wanted = wanted_of(specs, {spec.secret_dir: content for spec in specs})
    return [step.command for step in steps_of(wanted, given or {})]


def test_every_account_gets_every_key() -> None:
    spec = Spec(secret_dir="/c/k", kind=KEYS, users=["root", "me"])
    content = {"a": b"ssh-rsa AAA a\n\nssh-rsa BBB b\r\n", "b": b"  ssh-rsa AAA a  \n# none\n"}
    keys = ["ssh-rsa AAA a", "ssh-rsa BBB b"]
    assert commands([spec], content) == [
        Command(ADD, {"username": "root", "keys": keys}),
        Command(ADD, {"username": "me", "keys": keys}),
    ]


def test_a_key_that_has_left_its_secret_leaves_the_guest() -> None:
    spec = Spec(secret_dir="/c/k", kind=KEYS, users=["root"])
    given = {"root": ("ssh-rsa OLD", "ssh-rsa NEW"), "me": ("ssh-rsa OLD",)}
    assert commands([spec], {"a": b"ssh-rsa NEW"}, given) == [
        Command(ADD, {"username": "root", "keys": ["ssh-rsa NEW"]}),
        Command(REMOVE, {"username": "root", "keys": ["ssh-rsa OLD"]}),
        Command(REMOVE, {"username": "me", "keys": ["ssh-rsa OLD"]}),
    ]


def test_passwords_are_confidential() -> None:
    spec = Spec(secret_dir="/c/p", kind=PASSWORDS)
    [command] = commands([spec], {"root": b"hunter2\n"})
    expected = {"username": "root", "password": "aHVudGVyMg==", "crypted": False}
    assert (command.execute, command.arguments) == ("guest-set-user-password", expected)
    assert command.is_confidential
    wanted = wanted_of([spec], {"/c/p": {"root": b"hunter2"}})
    shown = f"{command!r} {wanted!r} {steps_of(wanted, {})!r}"
    assert "hunter2" not in shown
    assert "aHVu" not in shown


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (KEYS, {}, '"k" does not exist or is empty'),
        (KEYS, {"a": b""}, '"k" holds what is no public key'),
        (KEYS, {"a": b"\xff"}, '"k" holds what is no public key'),
        (KEYS, {"a": b"x" * 20_000}, '"k" holds what is no public key'),
        (KEYS, {"a": b"ssh-rsa \x1b[2J"}, '"k" holds what is no public key'),
        (PASSWORDS, {"root": b"\n"}, "a password that is empty or of several lines"),
        (PASSWORDS, {"root": b"a\nb"}, "a password that is empty or of several lines"),
        (1000, {"a": b"x"}, "started again"),
    ],
    ids=[
        "no Secret", "no key", "no text", "too long", "not printable", "empty", "lines", "later kind",
    ],
)  # fmt: skip
def test_what_cannot_be_given(kind: int, content: Content, message: str) -> None:
    spec = Spec(secret_dir="/c/k", kind=kind, users=["root"])  # type: ignore[arg-type]
    [complaint] = wanted_of([spec], {"/c/k": content}).complaints
    assert message in complaint


@pytest.mark.parametrize(
    ("content", "gone"),
    [({}, ["ssh-rsa OLD"]), (None, None), ({"a": b""}, None)],
    ids=["empty", "not to be read", "no key"],
)
def test_keys_are_taken_back_where_it_is_known_that_they_have_left(
    content: Content | None, gone: list[str] | None
) -> None:
    spec = Spec(secret_dir="/c/k", kind=KEYS, users=["root"])
    given = {"root": ("ssh-rsa OLD",)}
    wanted = wanted_of([spec], {"/c/k": content})
    commands = [step.command for step in steps_of(wanted, given)]
    assert commands == ([Command(REMOVE, {"username": "root", "keys": gone})] if gone else [])
    assert wanted.given_keys(given) == ({} if gone else given)
    assert len(wanted.complaints) == 1


def test_a_bad_secret_is_of_no_matter_to_others() -> None:
    specs = [
        Spec(secret_dir="/c/bad", kind=KEYS, users=["root"]),
        Spec(secret_dir="/c/k", kind=KEYS, users=["root", "me"]),
        Spec(secret_dir="/c/p", kind=PASSWORDS),
        Spec(secret_dir="/c/none", kind=PASSWORDS),
    ]
    contents = {
        "/c/bad": {"a": b"\xff"},
        "/c/k": {"a": b"ssh-rsa AAA"},
        "/c/p": {"root": b"hunter2"},
    }
    wanted = wanted_of(specs, contents)
    given = {"root": ("ssh-rsa OLD",), "me": ("ssh-rsa OLD",)}
    steps = steps_of(wanted, given)
    assert [(each.command.execute, each.command.arguments["username"]) for each in steps] == [
        (ADD, "root"), (ADD, "me"), (REMOVE, "me"), ("guest-set-user-password", "root"),
    ]  # fmt: skip
    assert wanted.given_keys(given) == {
        "root": ("ssh-rsa OLD", "ssh-rsa AAA"),
        "me": ("ssh-rsa AAA",),
    }
    assert [each.partition('"')[2].partition('"')[0] for each in wanted.complaints] == [
        "bad", "none",
    ]  # fmt: skip


def test_what_an_agent_has_not_taken_is_named_by_its_secret() -> None:
    specs = [
        Spec(secret_dir="/c/k", kind=KEYS, users=["root"]),
        Spec(secret_dir="/c/p", kind=PASSWORDS),
    ]
    contents = {"/c/k": {"a": b"ssh-rsa AAA"}, "/c/p": {"root": b"hunter2"}}
    steps = steps_of(wanted_of(specs, contents), {})
    assert complaint_of(steps, [{}, {}]) == ""
    refusal = AgentFailed("hunter2 is too short")
    complaint = complaint_of(steps, [refusal, refusal])
    assert complaint.startswith(
        'accessCredentials: public keys of Secret "k"; accessCredentials: passwords of Secret "p": the agent'
    )
    assert "hunter2" not in complaint
