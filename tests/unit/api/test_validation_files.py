"""Each bad value in a volume that is a disk with files, or in public keys, has its own error."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import Json, changed, is_refused, machine
from tests.unit.controller.builders import situations

FACT: Json = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
ACCOUNT: Json = {"serviceAccount": {"serviceAccountName": "default"}}


@pytest.mark.parametrize(
    ("source", "field", "message"),
    situations(
        ("no config map", {"configMap": {}}, "configMap.name", "must name a ConfigMap"),
        ("no secret", {"secret": {}}, "secret.secretName", "is empty: it must name a Secret"),
        (
            "no account",
            {"serviceAccount": {}},
            "serviceAccount.serviceAccountName",
            "is empty: it must name a ServiceAccount",
        ),
        (
            "no name",
            {"secret": {"secretName": "_"}},
            "secret.secretName",
            "not the name of a Secret",
        ),
        ("no source", {"sysprep": {}}, "sysprep", "must have exactly one source, not none"),
        (
            "two sources",
            {"sysprep": {"secret": {"name": "a"}, "configMap": {"name": "b"}}},
            "sysprep",
            "must have exactly one source, not secret and configMap",
        ),
        ("nothing", {"sysprep": {"secret": {}}}, "sysprep.secret.name", "must name a Secret"),
        (
            "long label",
            {"configMap": {"name": "a", "volumeLabel": "x" * 33}},
            "configMap.volumeLabel",
            "must be at most 32 characters",
        ),
        (
            "label with a line break",
            {"secret": {"secretName": "a", "volumeLabel": "a\nb"}},
            "secret.volumeLabel",
            "none of them a control character",
        ),
        (
            "label of facts",
            {"downwardAPI": {"volumeLabel": "\0"}},
            "downwardAPI.volumeLabel",
            "control character",
        ),
    ),
)
def test_bad_source(source: Json, field: str, message: str) -> None:
    is_refused("volumes/1", {"name": "seed", **source}, f"volumes[1].{field}", message)


def of_resource(**change: Any) -> Json:
    reference = {"containerName": "compute", "resource": "limits.memory", **change}
    return {"path": "memory", "resourceFieldRef": reference}


@pytest.mark.parametrize(
    ("fact", "field", "message"),
    situations(
        ("no path", FACT | {"path": ""}, ".path", "must be a relative path"),
        ("absolute path", FACT | {"path": "/a"}, ".path", "must be a relative path"),
        ("path up", FACT | {"path": "a/../b"}, ".path", "without '..'"),
        ("path like one up", FACT | {"path": "..a"}, ".path", "must not start with '..'"),
        ("mode", FACT | {"mode": 0o1000}, ".mode", "between 0 and 0777 octal"),
        ("neither", {"path": "a"}, "", "exactly one of fieldRef and resourceFieldRef, not none"),
        (
            "both",
            FACT | of_resource(),
            "",
            "exactly one of fieldRef and resourceFieldRef, not both",
        ),
        (
            "field that no volume tells",
            {"path": "a", "fieldRef": {"fieldPath": "status.podIP"}},
            ".fieldRef.fieldPath",
            "'status.podIP' must be one of: metadata.annotations",
        ),
        (
            "key that is none",
            {"path": "a", "fieldRef": {"fieldPath": "metadata.labels['a b']"}},
            ".fieldRef.fieldPath",
            "has no key of a label",
        ),
        (
            "other version",
            {"path": "a", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v2"}},
            ".fieldRef.apiVersion",
            "'v2' must be v1",
        ),
        (
            "other container",
            of_resource(containerName="other"),
            ".resourceFieldRef.containerName",
            "must be compute",
        ),
        (
            "other resource",
            of_resource(resource="limits.gold"),
            ".resourceFieldRef.resource",
            "'limits.gold' must be one of: limits.cpu",
        ),
        (
            "unit of another resource",
            of_resource(divisor="1m"),
            ".resourceFieldRef.divisor",
            "'1m' is no unit of limits.memory",
        ),
        ("no unit", of_resource(divisor="x"), ".resourceFieldRef.divisor", "'x' is no unit"),
    ),
)
def test_bad_fact(fact: Json, field: str, message: str) -> None:
    volume = {"name": "seed", "downwardAPI": {"fields": [fact]}}
    is_refused("volumes/1", volume, f"volumes[1].downwardAPI.fields[0]{field}", message)


@pytest.mark.parametrize(
    "source",
    [
        {"configMap": {"name": "a.b", "optional": True, "volumeLabel": "x" * 32}},
        {"secret": {"secretName": "a", "volumeLabel": "größe"}},
        {"sysprep": {"configMap": {"name": "unattend"}}},
        ACCOUNT,
        {"downwardAPI": {}},
        {"downwardAPI": {"fields": [FACT | {"mode": 0o444}, of_resource(divisor="1Mi")]}},
        {"downwardAPI": {"fields": [of_resource(resource="requests.cpu", divisor="1m")]}},
        {
            "downwardAPI": {
                "fields": [
                    {
                        "path": "a/b",
                        "fieldRef": {"fieldPath": "metadata.annotations['Kept.io/Note']"},
                    }
                ]
            }
        },
    ],
)
def test_good_source(source: Json) -> None:
    assert validate_virtual_machine(changed("volumes/1", {"name": "seed", **source})) == []


def test_a_pod_has_one_service_account() -> None:
    obj = machine()
    obj["spec"]["template"]["spec"]["volumes"] = [
        {"name": "root", **ACCOUNT},
        {"name": "seed", **ACCOUNT},
    ]
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.volumes[1].serviceAccount"
    assert "at most one serviceAccount volume" in cause.message


def keys(**change: Any) -> Json:
    good = {"source": {"secret": {"secretName": "keys"}}, "propagationMethod": {"noCloud": {}}}
    return {"sshPublicKey": good | change}


def password(**change: Any) -> Json:
    way: Json = {"qemuGuestAgent": {}}
    good = {"source": {"secret": {"secretName": "p"}}, "propagationMethod": way}
    return {"userPassword": good | change}


def by_agent(*users: str) -> Json:
    return keys(propagationMethod={"qemuGuestAgent": {"users": list(users)}})


@pytest.mark.parametrize(
    ("credential", "field", "message"),
    situations(
        ("no type", {}, "", "must be exactly one of sshPublicKey, userPassword, not none"),
        ("two types", keys() | password(), "", "not sshPublicKey and userPassword"),
        (
            "a password from nowhere",
            password(source={}),
            ".userPassword.source",
            "exactly one source, not none",
        ),
        (
            "a password of a Secret without a name",
            password(source={"secret": {}}),
            ".userPassword.source.secret.secretName",
            "is empty: it must name a Secret",
        ),
        (
            "a password that goes nowhere",
            password(propagationMethod={}),
            ".userPassword.propagationMethod",
            "must be exactly one of qemuGuestAgent, not none",
        ),
        ("no source", keys(source={}), ".sshPublicKey.source", "exactly one source, not none"),
        (
            "source without a name",
            keys(source={"secret": {}}),
            ".sshPublicKey.source.secret.secretName",
            "is empty: it must name a Secret",
        ),
        (
            "no way",
            keys(propagationMethod={}),
            ".sshPublicKey.propagationMethod",
            "must be exactly one of noCloud, configDrive, qemuGuestAgent, not none",
        ),
        (
            "two ways",
            keys(propagationMethod={"noCloud": {}, "configDrive": {}}),
            ".sshPublicKey.propagationMethod",
            "not noCloud and configDrive",
        ),
        (
            "an agent, and nobody to have the keys",
            by_agent(),
            ".sshPublicKey.propagationMethod.qemuGuestAgent.users",
            "must name at least one account",
        ),
        (
            "no account",
            by_agent("root", "a/../b"),
            ".sshPublicKey.propagationMethod.qemuGuestAgent.users[1]",
            "must be the name of an account",
        ),
        (
            "way without its volume",
            keys(propagationMethod={"configDrive": {}}),
            ".sshPublicKey.propagationMethod.configDrive",
            "requires a cloudInitConfigDrive volume",
        ),
    ),
)
def test_bad_credential(credential: Json, field: str, message: str) -> None:
    is_refused("accessCredentials", [credential], f"accessCredentials[0]{field}", message)


def test_good_credentials() -> None:
    good = [by_agent("root", "me@shop", "CORP\\me"), password()]
    assert validate_virtual_machine(changed("accessCredentials", good)) == []
    assert validate_virtual_machine(changed("accessCredentials", [keys(), keys()])) == []
    obj = changed("accessCredentials", [keys(propagationMethod={"configDrive": {}})])
    drive = {"name": "seed", "cloudInitConfigDrive": {"userData": "x"}}
    obj["spec"]["template"]["spec"]["volumes"][1] = drive
    assert validate_virtual_machine(obj) == []
