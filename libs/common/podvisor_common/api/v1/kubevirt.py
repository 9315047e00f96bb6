"""KubeVirt: the settings of the whole cluster, one object in the install namespace."""

from typing import Annotated, Any

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.meta import Conditions, ObjectMeta
from podvisor_common.api.quantity import Quantity
from podvisor_common.api.v1 import names
from podvisor_common.api.v1.board import SMBios


class LogVerbosity(ApiStruct, frozen=True):
    """Verbosity of single services, 0 to 9: 4 and more is DEBUG."""

    virt_controller: Annotated[int | None, doc("Of the controllers, at once.", minimum=0)] = None
    virt_launcher: Annotated[int | None, doc("Of new launchers.", minimum=0)] = None


class DeveloperConfiguration(ApiStruct, frozen=True):
    """Settings for development and for unusual hosts."""

    use_emulation: Annotated[bool, doc("Run guests without KVM, by translation, and slowly.")] = (
        False
    )
    cpu_allocation_ratio: Annotated[
        int | None, doc("How many virtual processors share one real one. 10 by default.", minimum=1)
    ] = None
    memory_overcommit: Annotated[
        int | None,
        doc("Guest memory per requested memory, in percent. 100 by default.", minimum=10),
    ] = None
    log_verbosity: Annotated[LogVerbosity | None, doc("How much services log.")] = None
    pvc_tolerate_less_space_up_to_percent: Annotated[
        int | None,
        doc(
            "By how much the space in a volume may fall short of its claim, in percent. 10 by default.",
            minimum=0,
            maximum=100,
        ),
    ] = None
    minimum_reserve_pvc_bytes: Annotated[
        int | None,
        doc("What is left free in a volume whose disk image is made, in bytes. 131072 by default."),
    ] = None
    feature_gates: Annotated[
        list[str] | None,
        doc(
            "Of those, HostDisk counts: without it no disk of the node is attached. The others are accepted; what they"
            " name needs no gate."
        ),
    ] = None
    disabled_feature_gates: Annotated[
        list[str] | None, doc("What is named here is off, whatever `featureGates` says.")
    ] = None


class NetworkConfiguration(ApiStruct, frozen=True):
    """Network defaults."""

    default_network_interface: Annotated[
        str,
        doc(
            "Binding of an interface nobody asked for. `bridge` by default.",
            enum=["", "bridge", "masquerade"],
        ),
    ] = ""
    permit_bridge_interface_on_pod_network: Annotated[
        bool | None,
        doc("Whether guests may be attached to the pod network by a bridge. True by default."),
    ] = None


class VirtualMachineOptions(ApiStruct, frozen=True):
    """Defaults for guests."""

    disable_serial_console_log: Annotated[
        dict[str, Any] | None, doc("When present, serial consoles are not copied to pod logs.")
    ] = None


class ArchitectureSettings(ApiStruct, frozen=True):
    """Defaults for guests of one architecture."""

    machine_type: Annotated[str, doc("Board of guests that name none.")] = ""


class ArchitectureConfiguration(ApiStruct, frozen=True):
    """Defaults for guests by their architecture."""

    amd64: Annotated[ArchitectureSettings | None, doc("Of amd64. `q35` by default.")] = None
    arm64: Annotated[ArchitectureSettings | None, doc("Of arm64. `virt` by default.")] = None

    def machine_types(self) -> dict[str, str]:
        """The board of each architecture that is given one."""
        given = {"amd64": self.amd64, "arm64": self.arm64}
        return {name: one.machine_type for name, one in given.items() if one and one.machine_type}


class KubeVirtConfiguration(ApiStruct, frozen=True):
    """Settings of the cluster."""

    developer_configuration: Annotated[
        DeveloperConfiguration | None, doc("Settings for development.")
    ] = None
    network: Annotated[NetworkConfiguration | None, doc("Network defaults.")] = None
    virtual_machine_options: Annotated[
        VirtualMachineOptions | None, doc("Defaults for guests.")
    ] = None
    architecture_configuration: Annotated[
        ArchitectureConfiguration | None, doc("Defaults by architecture.")
    ] = None
    machine_type: Annotated[
        str,
        doc("Board of guests that name none; the one in `architectureConfiguration` comes first."),
    ] = ""
    cpu_model: Annotated[str, doc("CPU model of guests that name none.")] = ""
    smbios: Annotated[
        SMBios | None,
        doc("What the SMBIOS tables of guests say of the system. The emulator's words by default."),
    ] = None
    mem_balloon_stats_period: Annotated[
        int | None,
        doc(
            "How often guests with a balloon are asked about their memory, in seconds; 0 for never. 10 by default.",
            minimum=0,
            maximum=86400,
        ),
    ] = None
    eviction_strategy: Annotated[
        str,
        doc(
            "What an eviction does to instances that do not say it themselves. `None` by default.",
            enum=["", *names.SUPPORTED_EVICTION_STRATEGIES],
        ),
    ] = ""
    cpu_request: Annotated[Quantity | None, doc("CPU request of guests that give none.")] = None
    additional_guest_memory_overhead_ratio: Annotated[
        str, doc("Factor on the memory a pod requests beyond the guest's, for example `1.2`.")
    ] = ""


class KubeVirtSpec(ApiStruct, frozen=True):
    """What the installation shall be."""

    configuration: Annotated[KubeVirtConfiguration | None, doc("Settings of the cluster.")] = None
    image_pull_policy: Annotated[str, doc("Pull policy of podvisor's own images.")] = ""
    certificate_rotate_strategy: Annotated[
        dict[str, Any] | None, doc("Accepted; certificates rotate by themselves.")
    ] = None
    customize_components: Annotated[
        dict[str, Any] | None, doc("Accepted; the chart's values customise components.")
    ] = None
    workload_update_strategy: Annotated[
        dict[str, Any] | None, doc("Accepted; running guests are never disturbed.")
    ] = None


class KubeVirtStatus(ApiStruct, frozen=True):
    """What is known of the installation."""

    phase: Annotated[str, doc("`Deploying` or `Deployed`.")] = ""
    conditions: Conditions = None
    observed_generation: Annotated[
        int | None, doc("Generation that is in effect.", format="int64")
    ] = None
    operator_version: Annotated[str, doc("Version of podvisor.")] = ""
    observed_kube_virt_version: Annotated[str, doc("Version of podvisor that serves.")] = ""
    default_architecture: Annotated[str, doc("Architecture of guests that name none.")] = ""


class KubeVirt(ApiObject, frozen=True):
    """The settings of podvisor in this cluster."""

    metadata: ObjectMeta
    spec: Annotated[KubeVirtSpec, doc("What the installation shall be.")] = KubeVirtSpec()
    status: Annotated[KubeVirtStatus, doc("What is known of it.")] = KubeVirtStatus()
    api_version: str = names.API_VERSION
    kind: str = names.KUBEVIRT

    @property
    def configuration(self) -> KubeVirtConfiguration:
        """The settings, empty when none are given."""
        return self.spec.configuration or KubeVirtConfiguration()
