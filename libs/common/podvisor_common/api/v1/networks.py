"""How a machine is attached to networks. Shared by instances and templates.

Only the fields podvisor implements are here; the rest of the API's names are in podvisor_common.api.unsupported.
"""

from typing import Annotated

from podvisor_common.api.base import ApiStruct, doc

_NAME = {"minLength": 1, "maxLength": 63}


class Masquerade(ApiStruct, frozen=True):
    """The guest has a private address; the pod's address is translated to it."""


class Bridge(ApiStruct, frozen=True):
    """The guest takes the address of the pod's interface, and its hardware address."""


class PasstBinding(ApiStruct, frozen=True):
    """The guest takes the pod's address; a process without privileges carries its connections."""


class Port(ApiStruct, frozen=True):
    """A port of the guest that is reachable through the pod's address."""

    port: Annotated[int, doc("Port number.", minimum=1, maximum=65535)]
    protocol: Annotated[str, doc("`TCP` or `UDP`. `TCP` by default.")] = ""
    name: Annotated[str, doc("Name of the port, unique in the interface.")] = ""


class PrivateOption(ApiStruct, frozen=True):
    """A DHCP option of a site's own."""

    option: Annotated[int, doc("Number, from 224 to 254.", minimum=224, maximum=254)]
    value: Annotated[str, doc("Text of the option.", maxLength=255)]


class DHCPOptions(ApiStruct, frozen=True):
    """What the guest is told by DHCP besides its address."""

    boot_file_name: Annotated[str, doc("Boot file, option 67.")] = ""
    tftp_server_name: Annotated[str, doc("TFTP server, option 66.")] = ""
    ntp_servers: Annotated[
        list[str] | None, doc("IPv4 addresses of time servers, option 42.", maxItems=63)
    ] = None
    private_options: Annotated[
        list[PrivateOption] | None, doc("Options of a site's own.", maxItems=31)
    ] = None


class Interface(ApiStruct, frozen=True):
    """A network device of the guest."""

    name: Annotated[str, doc("Name of the network it is attached to.", **_NAME)]
    bridge: Annotated[
        Bridge | None, doc("Attach by a bridge: the guest takes the pod's address.")
    ] = None
    masquerade: Annotated[
        Masquerade | None, doc("Attach by address translation behind the pod's address.")
    ] = None
    passt_binding: Annotated[
        PasstBinding | None, doc("Attach by a process without privileges, passt.")
    ] = None
    model: Annotated[
        str,
        doc(
            "Device model: `virtio`, `e1000`, `e1000e`, `igb`, `ne2k_pci`, `pcnet` or `rtl8139`."
            " `virtio` by default."
        ),
    ] = ""
    mac_address: Annotated[str, doc("Hardware address, for example `02:00:00:00:00:01`.")] = ""
    boot_order: Annotated[
        int | None,
        doc("Position in the boot order, unique among disks and interfaces.", minimum=1),
    ] = None
    pci_address: Annotated[
        str, doc("Where the guest finds the device, for example `0000:81:01.0`.")
    ] = ""
    acpi_index: Annotated[
        int | None,
        doc("Number by which the guest may name the device, unique.", minimum=1, maximum=16383),
    ] = None
    tag: Annotated[str, doc("Word by which cloud-init's meta-data tells the device.")] = ""
    state: Annotated[
        str,
        doc(
            "`up`, `down` (no carrier) or `absent` (unplugged). `up` by default.",
            enum=["", "up", "down", "absent"],
        ),
    ] = ""
    dhcp_options: Annotated[DHCPOptions | None, doc("What else the guest is told by DHCP.")] = None
    ports: Annotated[
        list[Port] | None, doc("Ports that reach the guest. All of them when empty.", maxItems=256)
    ] = None


class PodNetwork(ApiStruct, frozen=True):
    """The pod's own network."""

    vm_network_cidr: Annotated[
        str, doc("IPv4 network of the guest behind masquerade. `10.0.2.0/24` by default.")
    ] = ""
    vm_ipv6_network_cidr: Annotated[
        str,
        doc("IPv6 network of the guest behind masquerade. `fd10:0:2::/120` by default."),
    ] = ""


class MultusNetwork(ApiStruct, frozen=True):
    """A network that Multus attaches to the pod."""

    network_name: Annotated[
        str,
        doc("NetworkAttachmentDefinition, `name` or `namespace/name`."),
    ]
    default: Annotated[
        bool | None, doc("It takes the place of the pod's default network. False by default.")
    ] = None

    def definition(self, namespace: str) -> tuple[str, str]:
        """Namespace and name of the NetworkAttachmentDefinition, for a machine in `namespace`."""
        where, _, name = self.network_name.rpartition("/")
        return where or namespace, name


class Network(ApiStruct, frozen=True):
    """Where an interface leads: exactly one kind."""

    name: Annotated[str, doc("Name of the network; an interface refers to it.", **_NAME)]
    pod: Annotated[PodNetwork | None, doc("The pod's own network.")] = None
    multus: Annotated[MultusNetwork | None, doc("A network that Multus attaches.")] = None

    @property
    def is_primary(self) -> bool:
        """The pod's own interface leads there."""
        is_in_its_place = self.multus is not None and self.multus.default is True
        return self.pod is not None or is_in_its_place


def is_pluggable(interface: Interface, network: Network) -> bool:
    """An interface that leads there may come and go while the guest runs."""
    return interface.bridge is not None and network.multus is not None and not network.is_primary
