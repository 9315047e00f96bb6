"""Buses of disks that name none. Pure."""

_DISK_BUSES = {"amd64": "sata", "arm64": "virtio"}
# No CD-ROM drive is on virtio.
_CDROM_BUSES = {"amd64": "sata", "arm64": "scsi"}
_SCSI = "scsi"


def default_bus(target: str, architecture: str, *, hotpluggable: bool) -> str:
    """The bus of a `disk`, `cdrom` or `lun`. A hard disk that may come and go is where there is always a place for one more."""
    if target == "lun" or (target == "disk" and hotpluggable):
        return _SCSI
    buses = _CDROM_BUSES if target == "cdrom" else _DISK_BUSES
    return buses.get(architecture, "sata")
