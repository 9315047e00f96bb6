"""Values that a field cannot have, by the end of the field's place, indexes left out: `disks.name`, `ports.port`.

The oracles here are written anew from Kubernetes' rules, not taken from admission: an error in one of the two shows.
"""

import re
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

Values = st.SearchStrategy[Any]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*", re.ASCII)
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?", re.ASCII)
_KEY = re.compile(rf"({_SUBDOMAIN.pattern}/)?{_QUALIFIED.pattern}", re.ASCII)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
_ODD = (
    "ROOT", "Ünïcödé", "ｒｏｏｔ", "ro\u0000ot", "root\n", " root", "ro ot", "-root", "root-", "ro\u202eot", "a" * 64,
    "a" * 300, "😀", "<name/>", "a/b", "../etc", "$(x)", "{{x}}", "\t", "\u007f",
)  # fmt: skip


def _unlike(pattern: re.Pattern[str]) -> Values:
    texts = st.one_of(st.sampled_from(_ODD), _TEXTS)
    return texts.filter(lambda text: not pattern.fullmatch(text))


def _none_of(*allowed: str) -> Values:
    near = [text.swapcase() for text in allowed] + [f"{text} " for text in allowed]
    near += [f"\u200b{allowed[0]}", f"{allowed[-1]}\u0000", "None?"]
    texts = st.one_of(st.sampled_from(near), _TEXTS)
    return texts.filter(lambda text: text not in allowed)


def _outside(least: int, most: int) -> Values:
    return st.one_of(
        st.integers(-(2**63), least - 1), st.integers(most + 1, 2**63 - 1), st.just(least - 1)
    )


def _some(*values: Any) -> Values:
    return st.sampled_from(values)


def _ends(values: dict[str, Values]) -> dict[tuple[str, ...], Values]:
    return {tuple(end.split(".")): strategy for end, strategy in values.items()}


_IMAGES = _some(
    "",
    "A/B",
    "a b",
    "a:b:c",
    "a//b",
    "-a",
    "a@sha256:x",
    "ä/b",
    "http://a/b",
    "a/b:",
    "a\nb",
    "a/B",
    "a\u0000",
)
_PATHS = _some("disk.img", "/a/../b", "/", "/a/", "//a", "/a/./b", "..", "/a\u0000b")
_BLOCK_SIZES = st.one_of(_outside(512, 2**21), _some(513, 768, 1536, 4095, 2**21 - 1))
_OPERATORS = _none_of("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")

NUMBERS = _ends(
    {
        "cpu.cores": _outside(1, 512),
        "cpu.sockets": _outside(1, 512),
        "cpu.threads": _outside(1, 512),
        "disks.bootOrder": _outside(1, 2**31 - 1),
        "interfaces.bootOrder": _outside(1, 2**31 - 1),
        "interfaces.acpiIndex": _outside(1, 16383),
        "ports.port": _outside(1, 65535),
        "privateOptions.option": _outside(224, 254),
        "terminationGracePeriodSeconds": _outside(0, 365 * 24 * 3600),
        "tolerationSeconds": _some(2**63, 2**64 - 1),
        "weight": _outside(1, 100),
        "maxSkew": _outside(1, 2**31 - 1),
        "minDomains": _outside(1, 2**31 - 1),
        "custom.logical": _BLOCK_SIZES,
        "custom.physical": _BLOCK_SIZES,
        "custom.discardGranularity": _some(-1, -512, 1, 511, 2**32, 2**63 - 1),
        "fields.mode": _outside(0, 511),
    }
)

ENUMERATIONS = _ends(
    {
        "spec.runStrategy": _none_of("Always", "Halted", "Manual", "RerunOnFailure", "Once"),
        "architecture": _none_of("amd64", "arm64"),
        "startStrategy": _none_of("Paused"),
        "machine.type": _some("pc", "q35 x", "Q35", "virt", "none", "q35\n", "pc-q35/../x", "q35\u0000"),
        "disk.bus": _none_of("virtio", "sata", "scsi", "usb"),
        "cdrom.bus": _none_of("sata", "scsi", "usb"),
        "lun.bus": _none_of("scsi"),
        "cdrom.tray": _none_of("open", "closed"),
        "disks.cache": _none_of("none", "writethrough", "writeback"),
        "disks.io": _none_of("native", "threads"),
        "disks.errorPolicy": _none_of("stop", "ignore", "report", "enospace"),
        "hostDisk.type": _none_of("Disk", "DiskOrCreate"),
        "fieldRef.fieldPath": _some(
            "", "x", "metadata", "metadata.Name", "status.podIP", "spec.nodeName", "metadata.name\n", "metadata.labels['a b']",
            "metadata.labels[a]", "metadata.annotations['']", "metadata.uid['a']",
        ),
        "fieldRef.apiVersion": _none_of("v1"),
        "resourceFieldRef.resource": _some("", "cpu", "limits.gold", "limits.CPU", "limits.memory ", "requests.", "limits.hugepages-2Mi"),
        "resourceFieldRef.containerName": _none_of("compute"),
        "interfaces.model": _none_of("virtio", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139"),
        "interfaces.state": _none_of("up", "down", "absent"),
        "containerDisk.imagePullPolicy": _none_of("Always", "IfNotPresent", "Never"),
        "ports.protocol": _none_of("TCP", "UDP"),
        "dnsPolicy": _none_of("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
        "tolerations.operator": _none_of("Exists", "Equal"),
        "tolerations.effect": _none_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
        "matchExpressions.operator": _OPERATORS,
        "matchFields.operator": _none_of("In", "NotIn"),
        "topologySpreadConstraints.whenUnsatisfiable": _none_of("DoNotSchedule", "ScheduleAnyway"),
        "topologySpreadConstraints.nodeAffinityPolicy": _none_of("Honor", "Ignore"),
        "topologySpreadConstraints.nodeTaintsPolicy": _none_of("Honor", "Ignore"),
    }
)  # fmt: skip

TEXTS = _ends(
    {
        "disks.name": _unlike(_LABEL),
        "volumes.name": _unlike(_LABEL),
        "interfaces.name": _unlike(re.compile(r"[-\w]{1,63}", re.ASCII)),
        "ports.name": _unlike(_LABEL),
        "hostname": _unlike(_LABEL),
        "subdomain": _unlike(_LABEL),
        "schedulerName": _unlike(_SUBDOMAIN),
        "priorityClassName": _unlike(_SUBDOMAIN),
        "containerDisk.image": _IMAGES,
        "registryDisk.image": _IMAGES,
        "containerDisk.imagePullSecret": _unlike(_SUBDOMAIN),
        "containerDisk.path": _PATHS,
        "disks.serial": _unlike(re.compile(r"[-\w.+]{1,256}", re.ASCII)),
        "firmware.serial": _some("é", "a\nb", "a" * 257, "\u0000", "a\u007f"),
        "firmware.uuid": _some("x", "5d307ca9", "5d307ca9-b3ef-428c-8861-06e72d69f22g", "\u0000", "é"),
        "cpu.model": _some("a b", "<model/>", "é", "a\n", "host,model", "\u0000"),
        "interfaces.macAddress": _some(
            "x", "02:00", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02-00:00:00:00:01", "02:00:00:00:00:0g",
            "02:00:00:00:00:01\n", "02:00:00:00:00:00", "ff:ff:ff:ff:ff:ff",
        ),
        "interfaces.pciAddress": _some("x", "0000:81:00.10", "0000:81:00.1", "0000:81:01.0", "0000:e1:00.0", "0001:81:01.0", "0000:81:20.0", "0000:81:01.0\n", "81:01.0"),
        "interfaces.tag": _some("a\nb", "\u0000"),
        "dhcpOptions.bootFileName": _some("a\nb", "\u0000", "a" * 256, "é" * 128),
        "dhcpOptions.tftpServerName": _some("a\nb", "\u0000", "a" * 256),
        "privateOptions.value": _some("", "a\nb", "a" * 256),
        "pod.vmIPv6NetworkCIDR": _some(
            "x", "fd10:0:2::", "fd10:0:2::/127", "fd10:0:2::/129", "10.0.2.0/24", "::1/128", "::/0", "ff02::/16", "fe80::/64", "fd10::/64\n",
        ),
        "pod.vmNetworkCIDR": _some(
            "x", "10.0.2.0", "10.0.2.0/31", "10.0.2.0/33", "fd00::/64", "127.0.0.0/8", "224.0.0.0/24", "0.0.0.0/0",
            "10.0.2.0/24\n", "10.0.2/24", "10.0.2.0/-1",
        ),
        "disk.pciAddress": _some(
            "x", "81:01.0", "0000:81:20.0", "0000:81:01.8", "0001:81:01.0", "0000:81:01.0\n", "0000-81-01-0", "0000:8١:01.0",
        ),
        "disks.tag": _some("a\nb", "\u0000", "\t", "a\u007f"),
        "volumeLabel": _some("x" * 33, "é" * 300, "a\n", "\u0000"),
        "hostDisk.path": st.one_of(_PATHS, _some("", "/" + "a" * 5000)),
        "fields.path": _some("", "/", "/a", "..", "../a", "a/../b", "a/..", "..a", "a\u0000"),
        "claimName": _unlike(_SUBDOMAIN),
        "dataVolume.name": _unlike(_SUBDOMAIN),
        "configMap.name": _unlike(_SUBDOMAIN),
        "secret.name": _unlike(_SUBDOMAIN),
        "secretName": _unlike(_SUBDOMAIN),
        "serviceAccountName": _unlike(_SUBDOMAIN),
        "secretRef.name": _unlike(_SUBDOMAIN),
        "networkDataSecretRef.name": _unlike(_SUBDOMAIN),
        "cloudInitNoCloud.userData": _some("#" * 2049, "é" * 1025, "😀" * 513),
        "cloudInitNoCloud.userDataBase64": _some("%", "a", "YWJj" * 1000, "é", "a b="),
        "cloudInitNoCloud.networkDataBase64": _some("%", "a", "YWJj" * 1000),
        "cloudInitConfigDrive.userData": _some("#" * 2049, "é" * 1025),
        "cloudInitConfigDrive.userDataBase64": _some("%", "a", "YWJj" * 1000, "é", "a b="),
        "cloudInitConfigDrive.networkData": _some("#" * 2049),
        "tolerations.key": _unlike(_KEY),
        "matchExpressions.key": _unlike(_KEY),
        "matchFields.key": _none_of("metadata.name"),
        "topologyKey": st.one_of(st.just(""), _unlike(_KEY)),
        "namespaces.*": _unlike(_LABEL),
        "dnsConfig.nameservers.*": _some("x", "1.2.3", "1.2.3.4.5", "fe80::1%eth0", "1.2.3.4\n", "", "10.96.0.10/32"),
        "dnsConfig.searches.*": _some("a b", "-a", "é", "a" * 300, "a..b", ".."),
        "dnsConfig.options.name": _some(""),
    }
)  # fmt: skip

QUANTITIES = _some(
    "64Q", "-64M", -1, "", " 64M", "64M\n", "NaN", "Infinity", "0x40", "1..0", "１２M", "1e", "64m64", "+-1", "9" * 80, "é",
    "-0.1", -(2**63), "\u0000",
)  # fmt: skip
MEMORY = st.one_of(
    QUANTITIES, _some("0", 0, 1, "1k", "17Ti", "9Ei", "999999n", "1e30", 2**62, "16.1Ti")
)

KEYS = {
    "nodeSelector": _unlike(_KEY),
    "requests": _some("a b", "hugepages-2Mi", "gpu", "example.com/", "/x", "x.kubernetes.io/y", "é", "Memory"),
    "limits": _some("a b", "hugepages-1Gi", "example.com/a b", "\u0000", "storage"),
    "labels": _unlike(_KEY),
    "matchLabels": _unlike(_KEY),
}  # fmt: skip
LABEL_VALUES = _unlike(_QUALIFIED)
# With any value that names no volume.
OUR_ANNOTATIONS = (
    "hooks.kubevirt.io/hookSidecars",
    "kubevirt.io/ignitiondata",
    "podvisor.io/raw-volumes",
)
ANNOTATIONS = st.one_of(
    _some(*OUR_ANNOTATIONS, "a/b/c", "/", "a" * 64),
    _unlike(re.compile(_KEY.pattern, re.ASCII | re.IGNORECASE)),
)
LONG_NAMES = st.integers(64, 253).map(lambda length: "x" * length)
UNSERVED = _some({}, {"a": 1}, True, "x", 7, -1.5, [1], [{}], {"a": [{"b": {}}]}, "\u0000")


def find(table: dict[tuple[str, ...], Values], place: Iterable[str | int]) -> Values | None:
    """The values of the entry that the place ends like; a `*` stands for any index at the end."""
    keys = [key for key in place if isinstance(key, str)]
    indexed = [*keys, "*"] if isinstance(list(place)[-1], int) else keys
    for end, values in table.items():
        if indexed[-len(end) :] == list(end):
            return values
    return None
