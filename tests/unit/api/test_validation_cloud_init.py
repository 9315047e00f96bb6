"""What cloud-init is given is judged alike for both data sources, and never quoted."""

import base64

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine, warnings_of

from tests.unit.api.machines import Json, changed, is_refused

SOURCES = pytest.mark.parametrize("source", ["cloudInitNoCloud", "cloudInitConfigDrive"])


@SOURCES
@pytest.mark.parametrize(
    ("value", "field", "message"),
    [
        (
            {},
            "",
            "at least one userdatasource",
        ),
        (
            {"userData": "x", "userDataBase64": "eA=="},
            "",
            "must have only one userdatasource set, not userData and userDataBase64",
        ),
        (
            {"userDataBase64": "no base64!"},
            ".userDataBase64",
            "is not a valid base64 value",
        ),
        (
            {"userData": "é" * 1025},
            ".userData",
            "exceeds 2048 byte limit (it has 2050). Should use secretRef for larger data.",
        ),
        (
            {"networkDataBase64": base64.b64encode(b"x" * 2049).decode()},
            ".networkDataBase64",
            "exceeds 2048 byte limit (it has 2049). Should use networkDataSecretRef",
        ),
        (
            {"secretRef": {"name": "A B"}},
            ".secretRef.name",
            "is not the name of a Secret",
        ),
    ],
)
def test_bad_data(source: str, value: Json, field: str, message: str) -> None:
    volume = {"name": "seed", source: value}
    is_refused("volumes/1", volume, f"volumes[1].{source}{field}", message)


@SOURCES
@pytest.mark.parametrize(
    "value",
    [
        {"userData": "x" * 2048},
        {"userDataBase64": "eHh4\neHh4\n"},
        {"secretRef": {"name": "my.secret"}},
        {"networkData": "x"},
        {"userData": "x", "networkDataSecretRef": {"name": "net"}},
    ],
)
def test_unusual_and_good(source: str, value: Json) -> None:
    assert validate_virtual_machine(changed("volumes/1", {"name": "seed", source: value})) == []


@SOURCES
@pytest.mark.parametrize(
    "value",
    [
        {"userDataBase64": "s3cret!"},
        {"userData": "s3cret" * 500},
        {"userData": ["s3cret"]},
        {"userData": "s3cret", "userDataBase64": "s3cret"},
        {"networkDataBase64": "s3cret!"},
    ],
)
def test_data_never_appears_in_a_message(source: str, value: Json) -> None:
    causes = validate_virtual_machine(changed("volumes/1", {"name": "seed", source: value}))
    assert causes != []
    assert all("s3cret" not in cause.message for cause in causes)


@SOURCES
def test_clear_text_earns_a_warning(source: str) -> None:
    obj = changed("volumes/1", {"name": "seed", source: {"userData": "s3cret"}})
    [warning] = warnings_of(obj)
    assert warning.startswith(f"spec.template.spec.volumes[1].{source}.userData can be read by")
    assert "s3cret" not in warning
