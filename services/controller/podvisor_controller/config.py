"""The cluster's settings as the controller uses them, read from the KubeVirt resource.

Invariant: of() is pure and total: a missing resource or field means the documented default, and a value that makes no
sense is answered with the default as well, for a bad setting must not stop guests from being managed.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from podvisor_common.api import v1
from podvisor_common.api.v1.names import (
    HOST_DISK_GATE,
    SUPPORTED_EVICTION_STRATEGIES,
    EvictionStrategy,
)

DEFAULT_CPU_ALLOCATION_RATIO = 10
DEFAULT_MEMORY_OVERCOMMIT_PERCENT = 100
DEFAULT_PVC_SHORTFALL_PERCENT = 10
DEFAULT_PVC_RESERVE_BYTES = 131072
DEBUG_VERBOSITY = 4
_MOST_PERIOD_S = 24 * 3600
# The API's own limit of a number of bytes.
_MOST_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """What decisions about machines depend on beside the machines themselves."""

    launcher_image: str
    image_pull_policy: str = "IfNotPresent"
    use_emulation: bool = False
    cpu_allocation_ratio: int = DEFAULT_CPU_ALLOCATION_RATIO
    memory_overcommit_percent: int = DEFAULT_MEMORY_OVERCOMMIT_PERCENT
    memory_overhead_ratio: Decimal = Decimal(1)
    cpu_request: str | None = None
    log_serial_console: bool = True
    # What an eviction does to instances that do not say it themselves.
    eviction_strategy: str = EvictionStrategy.NONE
    # Whether controllers and new launchers log at level DEBUG, whatever they were started with.
    debug_controller: bool = False
    debug_launcher: bool = False
    architecture: str = "amd64"
    # Whether the cluster mounts OCI images as volumes; None while that is not known yet.
    image_volumes: bool | None = None
    # By how much less than its claim asked for an image may have, and what is left free beside it.
    pvc_shortfall_percent: int = DEFAULT_PVC_SHORTFALL_PERCENT
    pvc_reserve_bytes: int = DEFAULT_PVC_RESERVE_BYTES
    # Whether disks of nodes may be attached.
    host_disks: bool = False
    # What guests' SMBIOS tables say of the system; None for nothing.
    smbios: v1.SMBios | None = None
    # How often balloons tell of their guests' memory, in seconds; None for the default.
    balloon_period_s: int | None = None

    @property
    def mounts_images(self) -> bool:
        """Container disks are image volumes. Unknown counts as possible: a pod that fails for that reason says so itself."""
        return self.image_volumes is not False


def of(
    kubevirt: v1.KubeVirt | None,
    *,
    launcher_image: str,
    architecture: str,
    image_volumes: bool | None,
) -> ClusterConfig:
    """The settings in effect. `kubevirt` is None before the resource exists."""
    configuration = kubevirt.configuration if kubevirt else v1.KubeVirtConfiguration()
    developer = configuration.developer_configuration or v1.DeveloperConfiguration()
    verbosity = developer.log_verbosity or v1.LogVerbosity()
    options = configuration.virtual_machine_options or v1.VirtualMachineOptions()
    cpu_request = configuration.cpu_request
    return ClusterConfig(
        launcher_image=launcher_image,
        image_pull_policy=(kubevirt.spec.image_pull_policy if kubevirt else "") or "IfNotPresent",
        use_emulation=developer.use_emulation,
        cpu_allocation_ratio=_at_least_one(
            developer.cpu_allocation_ratio, DEFAULT_CPU_ALLOCATION_RATIO
        ),
        memory_overcommit_percent=_at_least_one(
            developer.memory_overcommit, DEFAULT_MEMORY_OVERCOMMIT_PERCENT
        ),
        memory_overhead_ratio=_ratio(configuration.additional_guest_memory_overhead_ratio),
        cpu_request=None if cpu_request is None else str(cpu_request),
        log_serial_console=options.disable_serial_console_log is None,
        eviction_strategy=eviction_strategy_of(configuration) or EvictionStrategy.NONE,
        debug_controller=(verbosity.virt_controller or 0) >= DEBUG_VERBOSITY,
        debug_launcher=(verbosity.virt_launcher or 0) >= DEBUG_VERBOSITY,
        architecture=architecture,
        image_volumes=image_volumes,
        pvc_shortfall_percent=_within(
            developer.pvc_tolerate_less_space_up_to_percent, 100, DEFAULT_PVC_SHORTFALL_PERCENT
        ),
        pvc_reserve_bytes=_within(
            developer.minimum_reserve_pvc_bytes, _MOST_BYTES, DEFAULT_PVC_RESERVE_BYTES
        ),
        host_disks=HOST_DISK_GATE in feature_gates_of(configuration),
        smbios=configuration.smbios,
        balloon_period_s=_period_s(configuration.mem_balloon_stats_period),
    )


def eviction_strategy_of(configuration: v1.KubeVirtConfiguration) -> str:
    """The cluster's eviction strategy, empty when it has none or one that is not served."""
    strategy = configuration.eviction_strategy
    return strategy if strategy in SUPPORTED_EVICTION_STRATEGIES else ""


def feature_gates_of(configuration: v1.KubeVirtConfiguration) -> frozenset[str]:
    """The feature gates that are on: a gate that is named as disabled as well is off."""
    developer = configuration.developer_configuration or v1.DeveloperConfiguration()
    return frozenset(developer.feature_gates or ()) - frozenset(
        developer.disabled_feature_gates or ()
    )


def _at_least_one(value: int | None, default: int) -> int:
    return value if value is not None and value >= 1 else default


def _within(value: int | None, most: int, default: int) -> int:
    return value if value is not None and 0 <= value <= most else default


def _period_s(value: int | None) -> int | None:
    return value if value is not None and 0 <= value <= _MOST_PERIOD_S else None


def _ratio(text: str) -> Decimal:
    try:
        ratio = Decimal(text or "1")
    except InvalidOperation:
        return Decimal(1)
    return ratio if ratio.is_finite() and ratio >= 1 else Decimal(1)
