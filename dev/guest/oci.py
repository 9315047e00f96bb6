"""OCI image archives with the standard library: one layer, one manifest, any number of names.

Invariant: the same files give the same digests. The archive is an OCI image layout in a tar file;
each name has its own entry in index.json, under the annotations that containerd and others read.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_QEMU_UID = 107  # the account that the launcher runs QEMU under


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file in an image: its absolute path there and the bytes."""

    path: str
    data: bytes


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int, uid: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.uid, entry.gid = len(data), mode, uid, uid
    archive.addfile(entry, io.BytesIO(data))


def _layer(files: Sequence[ImageFile]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        parents = sorted({str(p) for f in files for p in Path(f.path).parents if str(p) != "/"})
        for parent in parents:
            entry = tarfile.TarInfo(parent.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o555
            entry.uid = entry.gid = _QEMU_UID
            archive.addfile(entry)
        for file in files:
            _add(archive, file.path.lstrip("/"), file.data, 0o444, _QEMU_UID)
    return out.getvalue()


def write_archive(target: Path, names: Sequence[str], files: Sequence[ImageFile]) -> None:
    """Write an image of `files` to `target`, known as each of `names` (`repository:tag`).

    The layer is not compressed: the disks in it are already, and a plain layer unpacks faster.
    """
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def document(media_type: str, content: dict[str, Any]) -> dict[str, Any]:
        return blob(media_type, json.dumps(content, sort_keys=True).encode())

    layer = blob("application/vnd.oci.image.layer.v1.tar", _layer(files))
    config = document(
        "application/vnd.oci.image.config.v1+json",
        {
            # The platform is the node's that pulls it; what guest is inside is nobody's business.
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        },
    )
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = document(
        manifest_type,
        {"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]},
    )
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**manifest, "annotations": _annotations(name)} for name in names],
    }
    scratch = target.with_suffix(".new")
    with tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644, 0)
        _add(archive, "index.json", json.dumps(index, sort_keys=True).encode(), 0o644, 0)
        for digest, data in sorted(blobs.items()):
            _add(archive, f"blobs/sha256/{digest}", data, 0o644, 0)
    scratch.replace(target)


def _annotations(name: str) -> dict[str, str]:
    return {
        "org.opencontainers.image.ref.name": name,
        "io.containerd.image.name": f"docker.io/{name}",
    }
