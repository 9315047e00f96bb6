"""The specification of a machine: domain, disks, volumes. Shared by instances and templates.

Only the fields podvisor implements are here; the rest of the API's names are in podvisor_common.api.unsupported.
"""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc
from podvisor_common.api.quantity import Quantity
from podvisor_common.api.v1.board import (
    Chassis,
    Clock,
    CPUFeature,
    Features,
    Firmware,
    Hugepages,
)
from podvisor_common.api.v1.disks import Disk, Filesystem
from podvisor_common.api.v1.networks import Interface, Network
from podvisor_common.api.v1.peripherals import (
    DiskIOThreads,
    Input,
    PanicDevice,
    Rng,
    SoundDevice,
    TPMDevice,
    VideoDevice,
    Watchdog,
)
from podvisor_common.api.v1.placement import (
    Affinity,
    PodDNSConfig,
    Toleration,
    TopologySpreadConstraint,
)
from podvisor_common.api.v1.probes import Probe
from podvisor_common.api.v1.volumes import AccessCredential, Volume


class ResourceRequirements(ApiStruct, frozen=True):
    """Compute resources of the pod that carries the guest."""

    requests: Annotated[
        dict[str, Quantity] | None,
        doc("Least amounts of `memory` and `cpu`; the guest's memory when nothing else says it."),
    ] = None
    limits: Annotated[dict[str, Quantity] | None, doc("Most amounts of `memory` and `cpu`.")] = None
    overcommit_guest_overhead: Annotated[
        bool,
        doc("What the pod needs beyond the guest's memory is not requested. False by default."),
    ] = False


class CPU(ApiStruct, frozen=True):
    """The guest's processors: sockets × cores × threads of them."""

    cores: Annotated[int | None, doc("Cores of each socket. 1 by default.", minimum=1)] = None
    sockets: Annotated[int | None, doc("Sockets. 1 by default.", minimum=1)] = None
    threads: Annotated[int | None, doc("Threads of each core. 1 by default.", minimum=1)] = None
    model: Annotated[
        str,
        doc("CPU model: a libvirt model name, `host-model` or `host-passthrough`."),
    ] = ""
    features: Annotated[
        list[CPUFeature] | None, doc("Features beside those of the model.", maxItems=256)
    ] = None


class Memory(ApiStruct, frozen=True):
    """The guest's memory."""

    guest: Annotated[
        Quantity | None, doc("Memory the guest sees. By default what the resources request.")
    ] = None
    hugepages: Annotated[Hugepages | None, doc("Large pages that it is made of.")] = None


class Machine(ApiStruct, frozen=True):
    """The emulated board."""

    type: Annotated[str, doc("QEMU machine type, for example `q35`.")] = ""


class Devices(ApiStruct, frozen=True):
    """The guest's devices."""

    disks: Annotated[list[Disk] | None, doc("Block devices.", maxItems=256)] = None
    filesystems: Annotated[
        list[Filesystem] | None, doc("Trees of files shared with the guest.", maxItems=256)
    ] = None
    interfaces: Annotated[list[Interface] | None, doc("Network devices.", maxItems=256)] = None
    autoattach_pod_interface: Annotated[
        bool | None, doc("Attach the pod network when no interface is given. True by default.")
    ] = None
    network_interface_multiqueue: Annotated[
        bool | None,
        doc("Give virtio network devices a pair of queues for each processor. False by default."),
    ] = None
    autoattach_serial_console: Annotated[
        bool | None, doc("Give the guest a serial console. True by default.")
    ] = None
    autoattach_graphics_device: Annotated[
        bool | None, doc("Give the guest a video card and a VNC console. True by default.")
    ] = None
    log_serial_console: Annotated[
        bool | None,
        doc("Copy the serial console into the pod's log. By default as the cluster says: yes."),
    ] = None
    autoattach_input_device: Annotated[
        bool | None, doc("Give the guest a tablet when no input is given. False by default.")
    ] = None
    autoattach_mem_balloon: Annotated[
        bool | None, doc("Give the guest a memory balloon. False by default, unlike KubeVirt's.")
    ] = None
    block_multi_queue: Annotated[
        bool | None,
        doc("Give disks on virtio and scsi a queue for each processor. False by default."),
    ] = None
    inputs: Annotated[list[Input] | None, doc("Pointing devices.", maxItems=16)] = None
    panic_devices: Annotated[
        list[PanicDevice] | None, doc("Devices that tell of the guest's panic.", maxItems=3)
    ] = None
    rng: Annotated[Rng | None, doc("Source of random numbers.")] = None
    sound: Annotated[SoundDevice | None, doc("Sound card.")] = None
    tpm: Annotated[TPMDevice | None, doc("Trusted platform module.")] = None
    use_virtio_transitional: Annotated[
        bool | None,
        doc("Virtio devices work with guests of before virtio 1.0 as well. False by default."),
    ] = None
    video: Annotated[VideoDevice | None, doc("Video card.")] = None
    watchdog: Annotated[Watchdog | None, doc("Watchdog.")] = None


class Domain(ApiStruct, frozen=True):
    """The virtual hardware."""

    resources: Annotated[ResourceRequirements | None, doc("Compute resources of the pod.")] = None
    cpu: Annotated[CPU | None, doc("Processors.")] = None
    memory: Annotated[Memory | None, doc("Memory.")] = None
    machine: Annotated[Machine | None, doc("Board.")] = None
    firmware: Annotated[Firmware | None, doc("Firmware and its tables.")] = None
    clock: Annotated[Clock | None, doc("Clocks.")] = None
    features: Annotated[Features | None, doc("What the board has besides devices.")] = None
    chassis: Annotated[Chassis | None, doc("What the firmware's tables say of the chassis.")] = None
    io_threads_policy: Annotated[
        str,
        doc(
            "Which threads handle the requests of virtio disks: `shared`, one for all; `auto`, a number by that of processors;"
            " `supplementalPool`, those of `ioThreads`, each disk by all of them. None of their own by default."
        ),
    ] = ""
    io_threads: Annotated[DiskIOThreads | None, doc("Threads of `supplementalPool`.")] = None
    reboot_policy: Annotated[
        str,
        doc(
            "What a reboot by the guest does: `Reboot`, the default, or `Terminate`: the instance ends."
        ),
    ] = ""
    devices: Annotated[Devices, doc("Devices.")] = Devices()


class VirtualMachineInstanceSpec(ApiStruct, frozen=True):
    """What a machine is made of and where it may run."""

    domain: Annotated[Domain, doc("The virtual hardware.")]
    volumes: Annotated[list[Volume] | None, doc("Sources of disks.", maxItems=256)] = None
    access_credentials: Annotated[
        list[AccessCredential] | None,
        doc("Public keys and passwords that are given to the guest.", maxItems=256),
    ] = None
    networks: Annotated[list[Network] | None, doc("Networks of interfaces.", maxItems=256)] = None
    readiness_probe: Annotated[
        Probe | None, doc("Whether others may use the guest: Services lead to it while it passes.")
    ] = None
    liveness_probe: Annotated[
        Probe | None, doc("Whether the guest is alive: where it does not pass, it is shut down.")
    ] = None
    termination_grace_period_seconds: Annotated[
        int | None,
        doc(
            "How long the guest may take to shut down before it is destroyed, in seconds."
            " 30 by default.",
            minimum=0,
            format="int64",
        ),
    ] = None
    start_strategy: Annotated[
        str, doc("`Paused`: the guest does not run before it is unpaused. Empty: it runs at once.")
    ] = ""
    eviction_strategy: Annotated[
        str,
        doc(
            "What an eviction of the pod does: `None` shuts the guest down, `External` refuses it and leaves the rest to"
            " whoever watches `status.evacuationNodeName`, `LiveMigrateIfPossible` is `None` as long as nothing can"
            " migrate. The cluster's setting by default, else `None`."
        ),
    ] = ""
    hostname: Annotated[str, doc("Host name of the guest. The instance's name by default.")] = ""
    subdomain: Annotated[
        str,
        doc("Subdomain of the pod's host name: that of a headless Service gives it a DNS name."),
    ] = ""
    architecture: Annotated[str, doc("Architecture of the guest, for example `amd64`.")] = ""
    node_selector: Annotated[
        dict[str, str] | None, doc("Labels a node must have to run the machine.")
    ] = None
    tolerations: Annotated[list[Toleration] | None, doc("Taints the pod tolerates.")] = None
    affinity: Annotated[Affinity | None, doc("Nodes and pods it is drawn to or away from.")] = None
    topology_spread_constraints: Annotated[
        list[TopologySpreadConstraint] | None, doc("How pods spread over the topology.")
    ] = None
    scheduler_name: Annotated[str, doc("Scheduler that places the pod.")] = ""
    priority_class_name: Annotated[str, doc("PriorityClass of the pod.")] = ""
    dns_policy: Annotated[
        str,
        doc(
            "How names are resolved: `ClusterFirst`, `ClusterFirstWithHostNet`, `Default` or `None`."
            " `ClusterFirst` by default."
        ),
    ] = ""
    dns_config: Annotated[
        PodDNSConfig | None,
        doc("Settings of the resolver, added to those of the policy; needed with `None`."),
    ] = None
