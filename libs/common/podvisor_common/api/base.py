"""The base of every API type and the way a field describes itself.

Invariant: decoding is lenient. What the API server has stored always decodes: limits and enumerations are part of the
published schema (see schema.py) and of admission, never of decoding, so one odd object cannot stop an informer.
A decoded struct is partial and must never be written back whole: unknown fields are gone.
"""

from typing import Any

import msgspec

# Python names whose JSON spelling is not plain camel case.
_JSON_NAMES = {
    "attach_pod_uid": "attachPodUID",
    "container_id": "containerID",
    "current_cpu_topology": "currentCPUTopology",
    "dedicated_io_thread": "dedicatedIOThread",
    "downward_api": "downwardAPI",
    "guest_os_info": "guestOSInfo",
    "host_ip": "hostIP",
    "image_id": "imageID",
    "last_failed_vmi_uid": "lastFailedVMIUID",
    "new_smbios_serial": "newSMBiosSerial",
    "minimum_reserve_pvc_bytes": "minimumReservePVCBytes",
    "pod_cidr": "podCIDR",
    "pod_ip": "podIP",
    "pod_ips": "podIPs",
    "provider_id": "providerID",
    "source_uid": "sourceUID",
    "unmounted_pod_uid": "unmountedPodUID",
    "vm_network_cidr": "vmNetworkCIDR",
    "vm_ipv6_network_cidr": "vmIPv6NetworkCIDR",
    "observed_kube_virt_version": "observedKubeVirtVersion",
}


def json_name(python_name: str) -> str:
    """The JSON name of a field: camel case, with the initialisms Kubernetes spells in capitals."""
    if python_name in _JSON_NAMES:
        return _JSON_NAMES[python_name]
    head, *rest = python_name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class ApiStruct(
    msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, rename=json_name, gc=False
):
    """An object of the API or a part of one; immutable, so that caches can hand it out."""


class ApiObject(ApiStruct, frozen=True, omit_defaults=False):
    """A whole object: `apiVersion` and `kind` are always written out."""


def doc(description: str, **schema: Any) -> msgspec.Meta:
    """What a field means, and how the published schema narrows it.

    Keywords are OpenAPI (`minimum=1`, `enum=[...]`) or, with underscores, Kubernetes extensions
    (`x_kubernetes_list_type="map"`). They do not apply to decoding.
    """
    extra = {
        key.replace("_", "-") if key.startswith("x_") else key: value
        for key, value in schema.items()
    }
    return msgspec.Meta(description=description, extra_json_schema=extra or None)
