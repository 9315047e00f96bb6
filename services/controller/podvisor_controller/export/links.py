"""Where the volumes of an export are, in the addresses that KubeVirt has for them. Pure."""

from collections.abc import Sequence

from podvisor_common.api.export import (
    VirtualMachineExport,
    VirtualMachineExportLink,
    VirtualMachineExportLinks,
    VirtualMachineExportManifest,
    VirtualMachineExportVolume,
    VirtualMachineExportVolumeFormat,
)
from podvisor_common.api.export.names import Format, ManifestType, SourceKind

from podvisor_controller.export.identity import host
from podvisor_controller.export.pod import ServedVolume

# The file under which each form of a volume is.
_OF_DISKS = {Format.RAW: "disk.img", Format.GZIP: "disk.img.gz"}
_OF_FILES = {Format.DIRECTORY: "dir", Format.ARCHIVE: "disk.tar.gz"}


def links(
    export: VirtualMachineExport,
    volumes: Sequence[ServedVolume],
    disks: Sequence[int],
    authority: bytes,
) -> VirtualMachineExportLinks:
    """The links to `volumes`, of which those with a number in `disks` have a disk image; `authority` is a bundle as PEM."""
    base = f"https://{host(export)}"
    internal = VirtualMachineExportLink(
        cert=authority.decode().strip(),
        volumes=[
            _volume(base, volume, is_disk=number in disks) for number, volume in enumerate(volumes)
        ],
        manifests=_manifests(base, export),
    )
    return VirtualMachineExportLinks(internal=internal)


def _volume(base: str, volume: ServedVolume, *, is_disk: bool) -> VirtualMachineExportVolume:
    forms = _OF_DISKS if is_disk else _OF_FILES
    formats = [
        VirtualMachineExportVolumeFormat(format=form, url=f"{base}/volumes/{volume.claim}/{file}")
        for form, file in forms.items()
    ]
    return VirtualMachineExportVolume(name=volume.name, formats=formats)


def _manifests(base: str, export: VirtualMachineExport) -> list[VirtualMachineExportManifest]:
    paths = {ManifestType.AUTH_HEADER: "secret"}
    if export.spec.source.kind != SourceKind.CLAIM:
        paths = {ManifestType.ALL: "all"} | paths
    return [
        VirtualMachineExportManifest(type=type_, url=f"{base}/internal/manifests/{path}")
        for type_, path in paths.items()
    ]
