"""VirtualMachineExport: the wish to have the content of volumes served for download."""

from typing import Annotated

from podvisor_common.api.base import ApiObject, ApiStruct, doc
from podvisor_common.api.duration import MAX_LENGTH
from podvisor_common.api.export import names
from podvisor_common.api.meta import Conditions, ObjectMeta, TypedLocalObjectReference


class VirtualMachineExportSpec(ApiStruct, frozen=True):
    """What is to be served, and for how long. It cannot be changed."""

    source: Annotated[
        TypedLocalObjectReference,
        doc(
            "A PersistentVolumeClaim (`apiGroup` empty), all claims of a VirtualMachine (`kubevirt.io`) that does not run, or"
            " those in a VirtualMachineSnapshot (`snapshot.kubevirt.io`)."
        ),
    ]
    token_secret_ref: Annotated[
        str | None,
        doc(
            "Name of a Secret in the same namespace, whose key `token` holds what a client has to show. By default one is made:"
            " see the status.",
            maxLength=253,
        ),
    ] = None
    ttl_duration: Annotated[
        str | None,
        doc(
            "How long after its creation the export is deleted, with all that was made for it, for example `30m`."
            " `2h` by default.",
            maxLength=MAX_LENGTH,
        ),
    ] = None


class VirtualMachineExportVolumeFormat(ApiStruct, frozen=True):
    """One form in which a volume is served."""

    format: Annotated[str, doc("`raw`, `gzip`, `dir` or `tar.gz`.")]
    url: Annotated[str, doc("Where the volume is, in this form.")]


class VirtualMachineExportVolume(ApiStruct, frozen=True):
    """A volume that is served."""

    name: Annotated[str, doc("Name of the claim.")]
    formats: Annotated[
        list[VirtualMachineExportVolumeFormat] | None,
        doc(
            "Forms in which it is served: `raw` and `gzip` of a disk, `dir` and `tar.gz` of files.",
            x_kubernetes_list_type="map",
            x_kubernetes_list_map_keys=["format"],
        ),
    ] = None


class VirtualMachineExportManifest(ApiStruct, frozen=True):
    """Manifests by which a machine can be made elsewhere."""

    type: Annotated[
        str,
        doc("`all`: the machine and its volumes. `auth-header-secret`: the Secret with the token."),
    ]
    url: Annotated[str, doc("Where they are.")]


class VirtualMachineExportLink(ApiStruct, frozen=True):
    """What is served, and where."""

    cert: Annotated[str, doc("The certificates, as PEM, that the server's is signed by.")]
    volumes: Annotated[
        list[VirtualMachineExportVolume] | None,
        doc(
            "The volumes.",
            x_kubernetes_list_type="map",
            x_kubernetes_list_map_keys=["name"],
        ),
    ] = None
    manifests: Annotated[
        list[VirtualMachineExportManifest] | None,
        doc(
            "The manifests.",
            x_kubernetes_list_type="map",
            x_kubernetes_list_map_keys=["type"],
        ),
    ] = None


class VirtualMachineExportLinks(ApiStruct, frozen=True):
    """Where it is served."""

    internal: Annotated[
        VirtualMachineExportLink | None, doc("For clients inside of the cluster.")
    ] = None
    external: Annotated[
        VirtualMachineExportLink | None, doc("For clients outside of the cluster. Not served yet.")
    ] = None


class VirtualMachineExportStatus(ApiStruct, frozen=True):
    """What is known of an export."""

    phase: Annotated[str, doc("How far it is: Pending, Ready, Terminated or Skipped.")] = ""
    links: Annotated[
        VirtualMachineExportLinks | None, doc("Where it is served, while it is ready.")
    ] = None
    token_secret_ref: Annotated[
        str | None, doc("Name of the Secret whose key `token` holds what a client has to show.")
    ] = None
    ttl_expiration_time: Annotated[
        str | None, doc("When the export is deleted.", format="date-time", nullable=True)
    ] = None
    service_name: Annotated[str, doc("Name of the Service in front of what serves it.")] = ""
    virtual_machine_name: Annotated[
        str | None, doc("Name of the machine that is exported, or that the snapshot is of.")
    ] = None
    conditions: Conditions = None


class VirtualMachineExport(ApiObject, frozen=True):
    """The wish to have the content of volumes served for download."""

    metadata: ObjectMeta
    spec: Annotated[VirtualMachineExportSpec, doc("What is to be served.")]
    status: Annotated[VirtualMachineExportStatus, doc("What is known of it.")] = (
        VirtualMachineExportStatus()
    )
    api_version: str = names.API_VERSION
    kind: str = names.EXPORT
