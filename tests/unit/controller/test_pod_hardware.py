"""What a launcher pod tells the handler, which reads no settings, of the hardware of guests."""

from podvisor_common.api import v1
from podvisor_common.api.v1 import names
from podvisor_controller.config import ClusterConfig
from podvisor_controller.vmi.pod import render_pod

from tests.unit.controller.builders import IMAGE, Json, spec_body, vmi

SILENT = ClusterConfig(launcher_image=IMAGE, image_volumes=True)


def test_the_handler_is_told_what_the_settings_say_of_hardware() -> None:
    """What it is told comes from the settings, never from an instance."""
    given = {"podvisor.io/smbios": '{"sku":"mine"}', names.BALLOON_PERIOD_ANNOTATION: "1"}
    config = ClusterConfig(
        launcher_image=IMAGE, smbios=v1.SMBios(product="Acme"), balloon_period_s=0
    )
    spec = spec_body()
    spec["domain"]["devices"]["autoattachMemBalloon"] = True
    balloon = vmi(metadata={"annotations": given}, spec=spec)

    def told(instance: v1.VirtualMachineInstance, config: ClusterConfig) -> Json:
        found = render_pod(instance, config, {})["metadata"]["annotations"]
        return {key: value for key, value in found.items() if key.startswith("podvisor.io/")}

    assert told(balloon, SILENT) == {}
    assert told(vmi(), config) == {names.SMBIOS_ANNOTATION: '{"product":"Acme"}'}
    assert told(balloon, config) == {
        names.SMBIOS_ANNOTATION: '{"product":"Acme"}',
        names.BALLOON_PERIOD_ANNOTATION: "0",
    }
