"""Each bad value in a specification has its own error, which names the field and says what to do."""

from typing import Any

import pytest
from podvisor_controller.webhooks.validation import validate_virtual_machine

from tests.unit.api.machines import changed, is_refused

DISKS = "domain.devices.disks"
NICS = "domain.devices.interfaces"
CIDR = "networks[0].pod.vmNetworkCIDR"


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        (
            "domain/devices/disks/1/name",
            "nothing",
            f"{DISKS}[1].name",
            "'nothing' not found: there is no volume",
        ),
        (
            "domain/devices/disks/1/name",
            "root",
            f"{DISKS}[1].name",
            "must not have the same Name ('root')",
        ),
        ("domain/devices/disks/1/cdrom", {}, f"{DISKS}[1]", "must have only a single target"),
        (
            "domain/devices/disks/1/disk/bus",
            "ide",
            f"{DISKS}[1].disk.bus",
            "IDE bus is not supported",
        ),
        (
            "domain/devices/disks/1/disk/bus",
            "fdc",
            f"{DISKS}[1].disk.bus",
            "unrecognized bus 'fdc', must be one of",
        ),
        (
            "domain/devices/disks/1",
            {"name": "seed", "cdrom": {"bus": "virtio"}},
            f"{DISKS}[1].cdrom.bus",
            "CD-ROM",
        ),
        (
            "domain/devices/disks/1/disk",
            {"bus": "sata", "readonly": True},
            f"{DISKS}[1].disk.readonly",
            "read-only",
        ),
        (
            "domain/devices/disks/1/serial",
            "a b",
            f"{DISKS}[1].serial",
            "made up of the following characters",
        ),
        ("domain/devices/disks/1/bootOrder", 0, f"{DISKS}[1].bootOrder", "boot order > 0"),
        (
            "startStrategy",
            "Later",
            "startStrategy",
            "startStrategy is set with an unrecognized option: Later",
        ),
        (
            "evictionStrategy",
            "LiveMigrate",
            "evictionStrategy",
            "evictionStrategy LiveMigrate is not supported yet",
        ),
        (
            "evictionStrategy",
            "Sometimes",
            "evictionStrategy",
            "evictionStrategy is set with an unrecognized option: Sometimes",
        ),
        ("domain/devices/gpus", [{}], "domain.devices.gpus", "is not supported yet"),
        (
            "domain/resources/requests/memory",
            0,
            "domain.resources.requests.memory",
            "'0': must be greater than",
        ),
        (
            "domain/resources/requests/memory",
            "64Q",
            "domain.resources.requests.memory",
            "'64Q' is not a quantity",
        ),
        (
            "domain/resources/requests/memory",
            "-64M",
            "domain.resources.requests.memory",
            "'-64M': must be greater",
        ),
        (
            "domain/resources/limits/memory",
            "32M",
            "domain.resources.requests.memory",
            "greater than spec.template",
        ),
        (
            "domain/resources/requests/cpu",
            "x",
            "domain.resources.requests.cpu",
            "'x' is not a quantity",
        ),
        ("domain/resources/requests", {}, "domain.memory", "no memory requested"),
        ("domain/memory/guest", "64Q", "domain.memory.guest", "'64Q' is not a quantity"),
        ("domain/memory/guest", "1k", "domain.memory.guest", "greater than or equal to 1M"),
        ("domain/memory/guest", "17Ti", "domain.memory.guest", "less than or equal to 16Ti"),
        (
            "domain/resources/requests/memory",
            "9Ei",
            "domain.resources.requests.memory",
            "'9Ei': must be less than or equal to 16Ti",
        ),
        (
            "domain/resources/requests/gold",
            1,
            "domain.resources.requests.gold",
            "'gold' must be one of cpu, memory, ephemeral-storage, or a resource of nodes",
        ),
        (
            "domain/resources/requests/hugepages-2Mi",
            "2Mi",
            "domain.resources.requests.hugepages-2Mi",
            "is not supported yet",
        ),
        (
            "domain/resources/requests/example.com~1fpga",
            1,
            "domain.resources.limits",
            "must be set to '1', what is requested of example.com/fpga",
        ),
        (
            "domain/resources/limits/example.com~1fpga",
            "1500m",
            "domain.resources.limits.example.com/fpga",
            "must be an integer",
        ),
        (
            "domain/resources",
            {
                "requests": {"memory": "64M", "example.com/fpga": 1},
                "limits": {"example.com/fpga": 2},
            },
            "domain.resources.limits.example.com/fpga",
            "'2' must be equal to what is requested, '1'",
        ),
        ("domain/firmware/serial", "a\0", "domain.firmware.serial", "printable ASCII"),
        ("domain/firmware/serial", "x" * 257, "domain.firmware.serial", "at most 256"),
        (
            "domain/devices/disks/1/serial",
            "x" * 257,
            f"{DISKS}[1].serial",
            "less than or equal to 256 in length",
        ),
        (
            "domain/devices/disks",
            [{"name": f"d{number}"} for number in range(7)],
            DISKS,
            "7 disks on bus sata, which takes 6",
        ),
        (
            "domain/devices/disks",
            [{"name": f"d{number}", "disk": {"bus": "virtio"}} for number in range(101)],
            DISKS,
            "101 disks on bus virtio",
        ),
        ("domain/cpu/cores", 0, "domain.cpu.cores", "must be greater than 0"),
        ("domain/cpu", {"cores": 100, "sockets": 100}, "domain.cpu", "asks for 10000 processors"),
        ("domain/cpu/model", "a b", "domain.cpu.model", "is not the name of a CPU model"),
        ("domain/cpu/model", "<x/>", "domain.cpu.model", "is not the name of a CPU model"),
        (
            "terminationGracePeriodSeconds",
            2**40,
            "terminationGracePeriodSeconds",
            "must be between 0 and 31536000",
        ),
        (
            "domain/machine/type",
            "isapc",
            "domain.machine.type",
            "is not supported: isapc (allowed values: [q35*",
        ),
        ("domain/firmware/uuid", "x", "domain.firmware.uuid", "'x' is not a UUID"),
        ("hostname", "A_b", "hostname", "does not conform to the DNS-1123 label rules"),
        ("subdomain", "-", "subdomain", "does not conform to the DNS-1123 subdomain rules"),
        ("architecture", "vax", "architecture", "must be one of: amd64"),
        (
            "terminationGracePeriodSeconds",
            -1,
            "terminationGracePeriodSeconds",
            "must be between 0 and",
        ),
        ("networks", [], f"{NICS}[0].name", "'default' not found: there is no network"),
        (
            "domain/devices/interfaces",
            [],
            "networks[0].name",
            "'default' not found: there is no interface",
        ),
        ("networks/0", {"name": "default"}, "networks[0]", "should have a network type"),
        (
            "networks/0",
            {"name": "default", "resourceClaim": {"claimName": "a"}},
            "networks[0].resourceClaim",
            "is not supported yet",
        ),
        (
            "networks/0/pod/vmNetworkCIDR",
            "10.0.2",
            "networks[0].pod.vmNetworkCIDR",
            "is not an IPv4 network",
        ),
        (
            "networks/0/pod/vmNetworkCIDR",
            "10.0.2.0/31",
            "networks[0].pod.vmNetworkCIDR",
            "is too small",
        ),
        ("domain/devices/interfaces/0", {"name": "default"}, f"{NICS}[0]", "must have a binding"),
        (
            "domain/devices/interfaces/0",
            {"name": "default", "sriov": {}},
            f"{NICS}[0].sriov",
            "is not supported yet",
        ),
        (
            "domain/devices/interfaces/0/model",
            "ne1",
            f"{NICS}[0].model",
            "'ne1' is not supported, must be one of",
        ),
        (
            "domain/devices/interfaces/0/macAddress",
            "zz",
            f"{NICS}[0].macAddress",
            "malformed MAC address",
        ),
        (
            "domain/devices/interfaces/0/macAddress",
            "00-00-00-00-00-00",
            f"{NICS}[0].macAddress",
            "reserved MAC",
        ),
        ("nodeSelector", {"a b": "x"}, "nodeSelector", "'a b', which is not the key of a label"),
        ("nodeSelector", {"A.b/c": "x"}, "nodeSelector", "is not the key of a label"),
        ("nodeSelector", {"a": "x y"}, "nodeSelector", "'x y' for a, which is not the value"),
        ("networks/0/pod/vmNetworkCIDR", "127.0.0.0/8", CIDR, "holds no addresses"),
        ("networks/0/pod/vmNetworkCIDR", "0.0.0.0/0", CIDR, "holds no addresses"),
        ("networks/0/pod/vmNetworkCIDR", "224.0.0.0/8", CIDR, "holds no addresses"),
        (
            "domain/devices/interfaces/0/macAddress",
            "01:00:00:00:00:01",
            f"{NICS}[0].macAddress",
            "multicast",
        ),
        (
            "domain/devices/interfaces/0/macAddress",
            "02-00-00-00-00-00",
            f"{NICS}[0].macAddress",
            "reserved",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 0}],
            f"{NICS}[0].ports[0].port",
            "between 1 and 65535",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 1, "protocol": "SCTP"}],
            f"{NICS}[0].ports[0].protocol",
            "must be TCP or UDP",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 1}, {"port": 1, "protocol": "TCP"}],
            f"{NICS}[0].ports[1]",
            "repeats TCP port 1",
        ),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}],
            f"{NICS}[0].ports[1].name",
            "used twice",
        ),
    ],
)
def test_bad_specification(path: str, value: Any, field: str, message: str) -> None:
    is_refused(path, value, field, message)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("domain/devices/disks", []),
        ("domain/devices/gpus", []),
        ("domain/devices/autoattachVSOCK", False),
        ("domain/resources/requests/memory", 67108864),
        ("domain/memory/guest", "64Mi"),
        ("domain/resources/limits/example.com~1fpga", 1),
        ("domain/resources/requests/ephemeral-storage", "1Gi"),
        ("domain/firmware/serial", "4711 / a"),
        ("nodeSelector", {"a.b/C_d.e": "", "disk": "Fast_1.0"}),
        ("domain/machine/type", "pc-q35-10.0"),
        ("domain/devices/interfaces/0/macAddress", "52-54-00-AA-bb-01"),
        (
            "domain/devices/interfaces/0/ports",
            [{"port": 53}, {"port": 53, "protocol": "UDP", "name": "d"}],
        ),
        ("networks/0/pod/vmNetworkCIDR", "192.168.10.0/24"),
    ],
)
def test_unusual_and_good(path: str, value: Any) -> None:
    assert validate_virtual_machine(changed(path, value)) == []


def test_a_bad_request_is_not_complained_of_again_where_admission_copied_it() -> None:
    obj = changed("domain/resources/requests/memory", "64Q")
    obj["spec"]["template"]["spec"]["domain"]["memory"] = {"guest": "64Q"}
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.domain.resources.requests.memory"


def test_an_interface_without_its_network_is_one_error() -> None:
    obj = changed("networks", [])
    [cause] = validate_virtual_machine(obj)
    assert "'default' not found: there is no network of that name" in cause.message


def test_boot_orders_are_unique_among_disks_and_interfaces() -> None:
    obj = changed("domain/devices/disks/0/bootOrder", 1)
    obj["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"][0]["bootOrder"] = 1
    [cause] = validate_virtual_machine(obj)
    assert cause.field == "spec.template.spec.domain.devices.interfaces[0].bootOrder"
    assert "already set for spec.template.spec.domain.devices.disks[0]" in cause.message
