"""Which commands give a guest what lets somebody in. Pure.

Invariant: a password is in a command and nowhere else; what is said of a failure names a Secret and nothing that is in it.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from podvisor.domain.v1 import domain_pb2 as pb

from podvisor_launcher.virt.agent import Answer, Command
from podvisor_launcher.virt.errors import AgentFailed

# What was read of one Secret, by its keys.
Content = Mapping[str, bytes]
# Public keys that a guest was given, by account.
GivenKeys = Mapping[str, tuple[str, ...]]

_KEY_LIMIT = 16 * 1024  # of characters; a key of RSA has 700


class CredentialsUnusable(Exception):
    """A Secret does not hold what it should. The text, a sentence, names it and says what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a guest is to have. Its `repr` has no password."""

    keys: dict[str, dict[str, str]] = field(default_factory=dict)  # Secret by account and key
    passwords: dict[str, tuple[bytes, str]] = field(default_factory=dict, repr=False)  # by account
    # Accounts of which is not known which keys they shall have, so that none is taken from them.
    uncertain: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)  # of Secrets that are not usable

    def given_keys(self, given: GivenKeys) -> GivenKeys:
        """The keys alone that the guest has in the end, where it had the `given` ones."""
        known = {user: tuple(keys) for user, keys in self.keys.items() if keys}
        kept = {user: keys for user, keys in given.items() if user in self.uncertain}
        return all_keys(kept, known)


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what is said when it fails."""

    command: Command
    complaint: str


def all_keys(one: GivenKeys, other: GivenKeys) -> GivenKeys:
    """The keys of both, each once."""
    users = dict.fromkeys((*one, *other))
    return {
        user: tuple(dict.fromkeys((*one.get(user, ()), *other.get(user, ())))) for user in users
    }


def wanted_of(
    specs: Sequence[pb.AccessCredentialSpec], contents: Mapping[str, Content | None]
) -> Wanted:
    """By the specification and what is in its Secrets' directories; None for one that cannot be read. Of two passwords of an
    account, the later counts. What is wrong with one Secret is said, and of no matter to the others."""
    wanted = Wanted()
    for spec in specs:
        content = contents.get(spec.secret_dir)
        try:
            _add(spec, content, wanted)
        except CredentialsUnusable as error:
            wanted.complaints.append(str(error))
            # Of a Secret that is there and holds nothing, every key has left.
            if content is None or content:
                wanted.uncertain.update(spec.users)
    return wanted


def _add(spec: pb.AccessCredentialSpec, content: Content | None, wanted: Wanted) -> None:
    secret = spec.secret_dir.rpartition("/")[2]
    if not content:
        raise CredentialsUnusable(
            f'accessCredentials: the Secret "{secret}" does not exist or is empty. It is applied when it is there.'
        )
    if spec.kind == pb.ACCESS_CREDENTIAL_KIND_SSH_PUBLIC_KEYS:
        keys = dict.fromkeys(_keys_of(content, secret), secret)
        for user in spec.users:
            wanted.keys.setdefault(user, {}).update(keys)
    elif spec.kind == pb.ACCESS_CREDENTIAL_KIND_PASSWORDS:
        passwords = {user: _password_of(value, secret) for user, value in content.items()}
        wanted.passwords.update({user: (each, secret) for user, each in passwords.items()})
    else:
        raise CredentialsUnusable(
            "accessCredentials: this launcher does not know that kind. A machine that is started again has one that does."
        )


def steps_of(wanted: Wanted, given: GivenKeys) -> list[Step]:
    """What an agent is to be told, in order: new keys, those of the `given` that are wanted no more, passwords."""
    steps = []
    for user, keys in wanted.keys.items():
        command = Command("guest-ssh-add-authorized-keys", {"username": user, "keys": list(keys)})
        steps.append(Step(command, _complaint("public keys", *dict.fromkeys(keys.values()))))
    for user, known in given.items():
        if user in wanted.uncertain:
            continue
        if gone := [key for key in known if key not in wanted.keys.get(user, {})]:
            command = Command("guest-ssh-remove-authorized-keys", {"username": user, "keys": gone})
            steps.append(Step(command, "accessCredentials: keys that are gone from their Secret"))
    for user, (password, secret) in wanted.passwords.items():
        arguments = {
            "username": user,
            "password": base64.b64encode(password).decode(),
            "crypted": False,
        }
        command = Command("guest-set-user-password", arguments, is_confidential=True)
        steps.append(Step(command, _complaint("passwords", secret)))
    return steps


def complaint_of(steps: Sequence[Step], answers: Sequence[Answer | AgentFailed]) -> str:
    """Which steps the agent has not done, as a sentence; empty where it has done all. Its own words are not in it."""
    failed = [
        step.complaint
        for step, answer in zip(steps, answers, strict=True)
        if isinstance(answer, AgentFailed)
    ]
    if not failed:
        return ""
    return (
        f"{'; '.join(dict.fromkeys(failed))}: the agent of the guest has not taken them."
        " Look whether the accounts are there. It is tried again."
    )


def _complaint(what: str, *secrets: str) -> str:
    return f"accessCredentials: {what} of {_listed(secrets)}"


def _listed(secrets: Sequence[str]) -> str:
    return ", ".join(f'Secret "{each}"' for each in secrets)


def _keys_of(content: Content, secret: str) -> list[str]:
    keys: list[str] = []
    for value in content.values():
        try:
            lines = value.decode().splitlines()
        except UnicodeDecodeError:
            raise CredentialsUnusable(_no_keys(secret)) from None
        keys += [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys or any(len(key) > _KEY_LIMIT or not key.isprintable() for key in keys):
        raise CredentialsUnusable(_no_keys(secret))
    return keys


def _no_keys(secret: str) -> str:
    return f'accessCredentials: the Secret "{secret}" holds what is no public key. Every value must be one, or some, a line each.'


def _password_of(value: bytes, secret: str) -> bytes:
    """Without the end of the line that editors add."""
    password = value.rstrip(b"\r\n")
    if not password or b"\x00" in password or b"\n" in password:
        raise CredentialsUnusable(
            f'accessCredentials: the Secret "{secret}" holds a password that is empty or of several lines.'
        )
    return password
