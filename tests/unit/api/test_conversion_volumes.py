"""Claims in v1alpha1 are claims in v1, and the other way round."""

import copy

from podvisor_controller.webhooks.conversion import convert
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import INTRODUCTION, V1, V1ALPHA1


def test_claims_have_in_v1_what_they_have_in_v1alpha1() -> None:
    """A volume takes the name of its disk; what is written in the source stays, and what only v1 says of it comes back."""
    obj = copy.deepcopy(INTRODUCTION)
    claim = {"claimName": "data", "readOnly": True}
    copied = {"persistentVolumeClaim": {"claimName": "base"}}
    obj["spec"]["volumes"] = [
        {"name": "registryvolume", "persistentVolumeClaim": claim},
        {"name": "cloudinitvolume", "ephemeral": copied},
    ]
    obj["spec"]["domain"]["devices"]["disks"][0] |= {"lun": {"bus": "scsi"}}
    del obj["spec"]["domain"]["devices"]["disks"][0]["disk"]
    stored = convert(obj, V1)
    template = stored["spec"]["template"]["spec"]
    assert template["volumes"] == [
        {"name": "registrydisk", "persistentVolumeClaim": claim},
        {"name": "cloudinitdisk", "ephemeral": copied},
    ]
    assert validate_virtual_machine(stored) == []
    assert convert(stored, V1ALPHA1) == obj
    template["volumes"][0]["persistentVolumeClaim"]["hotpluggable"] = True
    template["domain"]["devices"]["disks"][0]["cache"] = "none"
    seen = convert(stored, V1ALPHA1)
    assert seen["spec"] == obj["spec"]
    assert convert(seen, V1) == stored
