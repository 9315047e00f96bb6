"""Values that are good each for itself and bad together.

A row: what is set, by places under the specification of an instance, and where the refusal may point. None takes a field away.
A row fits a manifest of v1 that has the object around each place.
"""

from typing import Any

from tests.support.manifests.places import Place

Row = tuple[str, dict[str, Any], tuple[str, ...]]

_DISKS = "domain.devices.disks"
_NICS = "domain.devices.interfaces"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_NODES = f"affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms.0.matchExpressions.0"
_PODS = f"affinity.podAffinity.{_REQUIRED}.0"
_SPREAD = "topologySpreadConstraints.0"
_SEED = "volumes.1.cloudInitNoCloud"
_SECOND = {"name": "lan", "multus": {"networkName": "lan"}}
_DEFAULT = {"name": "lan", "multus": {"networkName": "lan", "default": True}}
_NAMELESS = {"name": "lan", "multus": {"networkName": ""}}
_EXTRA = {"name": "extra", "pod": {}}
_IMAGE = {"image": "kubevirt/cirros-container-disk-demo:devel"}
_MANY = [{"name": f"d{number}", "disk": {}} for number in range(300)]
_ENOUGH = [{"name": f"d{number}", "disk": {"bus": "sata"}} for number in range(7)]
_SECTORS = {"logical": 4096, "physical": 4096}
_PLACED = {"bus": "virtio", "pciAddress": "0000:0a:00.0"}
_CLAIM = {"persistentVolumeClaim": {"claimName": "twice"}}
_FILE = {"hostDisk": {"path": "/twice.img", "type": "Disk"}}
_ACCOUNT = {"serviceAccount": {"serviceAccountName": "twice"}}
_PLUGGED = {"name": "a", "dataVolume": {"name": "a", "hotpluggable": True}}
_FACT = "volumes.10.downwardAPI.fields.1"
_KEYS = "accessCredentials.0.sshPublicKey"

CONTRADICTIONS: tuple[Row, ...] = (
    ("two sources", {"volumes.1.containerDisk": _IMAGE}, ("volumes.1",)),
    ("two sources, one empty", {"volumes.0.emptyDisk": {"capacity": "1Gi"}}, ("volumes.0",)),
    ("two sources, one not served", {"volumes.0.memoryDump": {"claimName": "a"}}, ("volumes.0",)),
    ("two targets", {f"{_DISKS}.0.cdrom": {"bus": "sata"}}, (f"{_DISKS}.0",)),
    ("CD-ROM on virtio", {f"{_DISKS}.1.disk": None, f"{_DISKS}.1.cdrom": {"bus": "virtio"}}, (f"{_DISKS}.1.cdrom.bus",)),
    ("read-only disk on sata", {f"{_DISKS}.0.disk": {"bus": "sata", "readonly": True}}, (f"{_DISKS}.0.disk.readonly",)),
    ("lun of an image", {f"{_DISKS}.0.disk": None, f"{_DISKS}.0.lun": {}}, (f"{_DISKS}.0.lun",)),
    ("thread of its own on sata", {f"{_DISKS}.1.disk": None, f"{_DISKS}.1.cdrom": {}, f"{_DISKS}.1.dedicatedIOThread": True}, (f"{_DISKS}.1",)),
    ("native requests through a cache", {f"{_DISKS}.0.io": "native", f"{_DISKS}.0.cache": "writeback"}, (f"{_DISKS}.0.io",)),
    ("shared through a cache", {f"{_DISKS}.0.shareable": True, f"{_DISKS}.0.cache": "writeback"}, (f"{_DISKS}.0.shareable",)),
    ("PCI address on scsi", {f"{_DISKS}.0.disk": {"bus": "scsi", "pciAddress": "0000:0a:00.0"}}, (f"{_DISKS}.0.disk",)),
    ("one PCI address twice", {f"{_DISKS}.0.disk": _PLACED, f"{_DISKS}.1.cdrom": None, f"{_DISKS}.1.disk": _PLACED}, (f"{_DISKS}.1.disk",)),
    ("no block size", {f"{_DISKS}.0.blockSize": {}}, (f"{_DISKS}.0.blockSize",)),
    ("two block sizes", {f"{_DISKS}.0.blockSize": {"custom": _SECTORS, "matchVolume": {}}}, (f"{_DISKS}.0.blockSize",)),
    ("sectors too large for sata", {f"{_DISKS}.0.disk": {"bus": "sata"}, f"{_DISKS}.0.blockSize.custom": _SECTORS}, (f"{_DISKS}.0.blockSize",)),
    ("sectors larger than blocks", {f"{_DISKS}.0.blockSize.custom": _SECTORS | {"physical": 512}}, (f"{_DISKS}.0.blockSize",)),
    ("one claim twice", {"volumes.0": _CLAIM | {"name": "a"}, "volumes.1": _CLAIM | {"name": "b"}}, ("volumes.1",)),
    ("one file of a node twice", {"volumes.0": _FILE | {"name": "a"}, "volumes.1": _FILE | {"name": "b"}}, ("volumes.1",)),
    ("two accounts", {"volumes.0": _ACCOUNT | {"name": "a"}, "volumes.1": _ACCOUNT | {"name": "b"}}, ("volumes.1",)),
    ("volume that may go on sata", {f"{_DISKS}.0": {"name": "a", "disk": {"bus": "sata"}}, "volumes.0": _PLUGGED}, (f"{_DISKS}.0.disk.bus",)),
    ("copy of nothing", {"volumes.0": {"name": "a", "ephemeral": {}}}, ("volumes.0.ephemeral",)),
    ("size of a file that is there", {"volumes.7.hostDisk.type": "Disk"}, ("volumes.7.hostDisk.capacity",)),
    ("no size of a file to be made", {"volumes.7.hostDisk.capacity": None}, ("volumes.7.hostDisk.capacity",)),
    ("fact of two kinds", {f"{_FACT}.fieldRef": {"fieldPath": "metadata.name"}}, (_FACT,)),
    ("fact of no kind", {f"{_FACT}.resourceFieldRef": None}, (_FACT,)),
    ("unit of another resource", {f"{_FACT}.resourceFieldRef.resource": "limits.cpu"}, (f"{_FACT}.resourceFieldRef.divisor",)),
    ("two sources of answers", {"volumes.12.sysprep.secret": {"name": "a"}}, ("volumes.12.sysprep",)),
    ("no source of answers", {"volumes.12.sysprep": {}}, ("volumes.12.sysprep",)),
    ("two ways of keys", {f"{_KEYS}.propagationMethod.configDrive": {}}, (f"{_KEYS}.propagationMethod",)),
    ("no way of keys", {f"{_KEYS}.propagationMethod": {}}, (f"{_KEYS}.propagationMethod",)),
    ("no source of keys", {f"{_KEYS}.source": {}}, (f"{_KEYS}.source",)),
    ("keys without their volume", {f"{_KEYS}.propagationMethod": {"noCloud": {}}, "volumes.1": _CLAIM | {"name": "b"}}, (_KEYS,)),
    ("no type of credential", {"accessCredentials.0": {}}, ("accessCredentials.0",)),
    ("two user data", {f"{_SEED}.userDataBase64": "YQ=="}, (_SEED,)),
    ("two user data, one secret", {f"{_SEED}.secretRef": {"name": "a"}}, (_SEED,)),
    ("two network data", {f"{_SEED}.networkDataSecretRef": {"name": "a"}, f"{_SEED}.networkData": "a"}, (_SEED,)),
    ("no data", {_SEED: {}}, (_SEED,)),
    ("two bindings", {f"{_NICS}.0.bridge": {}}, (f"{_NICS}.0",)),
    ("no binding", {f"{_NICS}.0.masquerade": None}, (f"{_NICS}.0",)),
    ("no type", {"networks.0.pod": None}, ("networks.0",)),
    ("two types", {"networks.0.multus": {"networkName": "a"}}, ("networks.0",)),
    ("two default networks", {"networks.1": _DEFAULT, f"{_NICS}.1": {"name": "lan", "bridge": {}}}, ("networks.1.multus.default",)),
    ("masquerade on a Multus network", {"networks.1": _SECOND, f"{_NICS}.1": {"name": "lan", "masquerade": {}}}, (f"{_NICS}.1.masquerade",)),
    ("passt on a Multus network", {"networks.1": _SECOND, f"{_NICS}.1": {"name": "lan", "passtBinding": {}}}, (f"{_NICS}.1.passtBinding",)),
    ("no name of a network", {"networks.1": _NAMELESS, f"{_NICS}.1": {"name": "lan", "bridge": {}}}, ("networks.1.multus.networkName",)),
    ("unplugged pod network", {f"{_NICS}.0.state": "absent"}, (f"{_NICS}.0.state",)),
    ("one hardware address twice", {"networks.1": _SECOND, f"{_NICS}.1": {"name": "lan", "bridge": {}, "macAddress": "02-00-00-00-00-01"}}, (f"{_NICS}.1.macAddress",)),
    ("PCI address of a disk", {f"{_DISKS}.0.disk": _PLACED, f"{_NICS}.0.pciAddress": "0000:0A:00.0"}, (f"{_NICS}.0.pciAddress",)),
    ("private option twice", {f"{_NICS}.0.dhcpOptions.privateOptions": [{"option": 240, "value": "a"}] * 2}, (f"{_NICS}.0.dhcpOptions.privateOptions.1.option",)),
    ("time server by name", {f"{_NICS}.0.dhcpOptions.ntpServers": ["a.example"]}, (f"{_NICS}.0.dhcpOptions.ntpServers.0",)),
    ("network without interface", {"networks.1": _EXTRA}, ("networks.1",)),
    ("interface without network", {f"{_NICS}.0.name": "ghost"}, (f"{_NICS}.0.name", "networks.0.name")),
    ("interface twice", {f"{_NICS}.1": {"name": "default", "masquerade": {}}}, (f"{_NICS}.1.name",)),
    ("boot order twice", {f"{_NICS}.0.bootOrder": 7, f"{_DISKS}.0.bootOrder": 7}, (f"{_NICS}.0.bootOrder",)),
    ("port twice", {f"{_NICS}.0.ports.1": {"port": 22}}, (f"{_NICS}.0.ports.1",)),
    ("name of a port twice", {f"{_NICS}.0.ports.1": {"port": 23, "name": "ssh"}}, (f"{_NICS}.0.ports.1.name",)),
    ("no memory", {"domain.memory": None, "domain.resources": {}}, ("domain.memory",)),
    ("request over limit", {"domain.resources.limits.memory": "128M", "domain.resources.requests.memory": "1Gi"}, ("domain.resources",)),
    ("guest over limit", {"domain.resources.limits.memory": "128M", "domain.memory.guest": "1Gi"}, ("domain.memory.guest", "domain.resources")),
    ("half a device", {"domain.resources.limits": {"example.com/device": "500m"}}, ("domain.resources.limits",)),
    ("device without limit", {"domain.resources.requests.example~com/other": 1}, ("domain.resources.limits",)),
    ("other device than its limit", {"domain.resources.requests.example~com/device": 2}, ("domain.resources",)),
    ("too many processors", {"domain.cpu": {"cores": 300, "sockets": 2}}, ("domain.cpu",)),
    ("too many disks", {_DISKS: _MANY}, (_DISKS,)),
    ("too many disks for the bus", {_DISKS: _ENOUGH, "volumes.0": {"name": "d0", "containerDisk": _IMAGE}}, (_DISKS,)),
    ("too many volumes", {"volumes": [{"name": f"d{n}"} for n in range(400)]}, ("volumes",)),
    ("board of another architecture", {"architecture": "arm64", "domain.machine.type": "q35"}, ("domain.machine.type",)),
    ("toleration of all with value", {"tolerations.1.value": "x"}, ("tolerations.1.value",)),
    ("toleration of nothing", {"tolerations.0.key": ""}, ("tolerations.0.operator",)),
    ("toleration that cannot end", {"tolerations.0.tolerationSeconds": 5}, ("tolerations.0.effect",)),
    ("bad ones in a long list", {"tolerations": [{"key": "a b"}] * 2000}, ("tolerations",)),
    ("no terms", {f"affinity.nodeAffinity.{_REQUIRED}.nodeSelectorTerms": []}, ("affinity.nodeAffinity",)),
    ("values for Exists", {f"{_NODES}.operator": "Exists"}, (f"{_NODES}.values",)),
    ("no values for In", {f"{_NODES}.values": []}, (f"{_NODES}.values",)),
    ("text for Gt", {f"{_NODES}.operator": "Gt"}, (f"{_NODES}.values",)),
    ("two values for Lt", {f"{_NODES}.operator": "Lt", f"{_NODES}.values": ["1", "2"]}, (f"{_NODES}.values",)),
    ("keys without selector", {f"{_PODS}.labelSelector": None, f"{_PODS}.matchLabelKeys": ["a"]}, (f"{_PODS}.matchLabelKeys",)),
    ("key in selector as well", {f"{_PODS}.matchLabelKeys": ["app"]}, (f"{_PODS}.matchLabelKeys.0",)),
    ("key wanted and not", {f"{_PODS}.matchLabelKeys": ["a"], f"{_PODS}.mismatchLabelKeys": ["a"]}, (f"{_PODS}.matchLabelKeys.0",)),
    ("spread twice", {"topologySpreadConstraints.1": {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}}, ("topologySpreadConstraints.1",)),
    ("least domains for a wish", {f"{_SPREAD}.whenUnsatisfiable": "ScheduleAnyway"}, (f"{_SPREAD}.minDomains",)),
    ("no server for policy None", {"dnsPolicy": "None", "dnsConfig": {}}, ("dnsConfig.nameservers",)),
    ("too many servers", {"dnsConfig.nameservers": ["1.1.1.1"] * 4}, ("dnsConfig.nameservers",)),
    ("too many searches", {"dnsConfig.searches": ["a"] * 33}, ("dnsConfig.searches",)),
    ("searches too long", {"dnsConfig.searches": ["a" * 63 + f".{n}" for n in range(32)]}, ("dnsConfig.searches",)),
)  # fmt: skip


def place(text: str) -> Place:
    """A place as it is written in the rows: keys and indexes between dots, `~` for a dot in a key."""
    keys = (key.replace("~", ".") for key in text.split("."))
    return tuple(int(key) if key.isdigit() else key for key in keys)
