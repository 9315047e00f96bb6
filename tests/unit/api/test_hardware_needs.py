"""Hardware that needs other hardware: what is refused together, and the field that says so."""

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import Json, changed


@pytest.mark.parametrize(
    ("domain", "field", "message"),
    [
        (
            {
                "features": {"hyperv": {"evmcs": {}}},
                "cpu": {"features": [{"name": "vmx", "policy": "forbid"}]},
            },
            "cpu.features[0].policy",
            "evmcs of features.hyperv cannot do without vmx",
        ),
        (
            {
                "features": {"hyperv": {"synictimer": {}}},
                "clock": {"timer": {"hyperv": {"present": False}}},
            },
            "clock.timer.hyperv.present",
            "synictimer of features.hyperv cannot do without",
        ),
        (
            {
                "features": {"acpi": {"enabled": False}, "smm": {}},
                "firmware": {"bootloader": {"efi": {}}},
            },
            "features.acpi.enabled",
            "firmware.bootloader.efi cannot do without",
        ),
        (
            {
                "firmware": {"bootloader": {"bios": {"useSerial": True}}},
                "devices": {"autoattachSerialConsole": False},
            },
            "firmware.bootloader.bios.useSerial",
            "there is no serial console",
        ),
    ],
)
def test_what_is_refused_together(domain: Json, field: str, message: str) -> None:
    obj = changed("domain/rebootPolicy", "Reboot")
    given = obj["spec"]["template"]["spec"]["domain"]
    for name, value in domain.items():
        given[name] = {**given.get(name, {}), **value}
    [cause] = validate_virtual_machine(obj)
    assert cause.field == f"spec.template.spec.domain.{field}"
    assert message in cause.message


def test_a_large_page_is_memory_enough() -> None:
    obj = changed("domain/memory", {"hugepages": {"pageSize": "2Mi"}})
    del obj["spec"]["template"]["spec"]["domain"]["resources"]
    assert validate_virtual_machine(obj) == []
