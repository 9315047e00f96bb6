#!/usr/bin/env python3
"""Push OCI archives to a registry, as `docker push` would, without a Docker engine.

    dev/push.py http://127.0.0.1:15000 ARCHIVE.oci.tar...

An archive says itself under which names it is known (annotation `io.containerd.image.name` of its index); the host part of a name
is dropped, since this registry stands in for all of them. Blobs and manifests that are there already are not sent again.
"""

import http.client
import json
import sys
import tarfile
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class PushFailedError(Exception):
    """The registry answered something else than the protocol allows at this point."""


class Registry:
    """The few calls of the distribution protocol that pushing needs."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        media_type: str = "",
        accept: str = MANIFEST,
    ) -> tuple[int, http.client.HTTPMessage]:
        """One request; the answer's status and headers."""
        headers = {"Accept": accept, "Content-Length": str(len(body))}
        if media_type:
            headers["Content-Type"] = media_type
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, answer.headers

    def push_blob(self, repository: str, digest: str, content: bytes) -> None:
        """Make sure that the blob is in the repository."""
        if self.call("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200:
            return
        status, headers = self.call("POST", f"/v2/{repository}/blobs/uploads/")
        if status != 202:
            raise PushFailedError(f"{repository}: upload refused with {status}")
        location = urlsplit(headers["Location"])
        query = f"{location.query}&digest={digest}" if location.query else f"digest={digest}"
        status, _ = self.call(
            "PUT", f"{location.path}?{query}", content, "application/octet-stream"
        )
        if status != 201:
            raise PushFailedError(f"{repository}: blob {digest} refused with {status}")

    def push_manifest(self, repository: str, tag: str, digest: str, content: bytes) -> bool:
        """Make `tag` name the manifest; False when it did so before."""
        status, headers = self.call("HEAD", f"/v2/{repository}/manifests/{tag}")
        if status == 200 and headers["Docker-Content-Digest"] == digest:
            return False
        status, _ = self.call("PUT", f"/v2/{repository}/manifests/{tag}", content, MANIFEST)
        if status != 201:
            raise PushFailedError(f"{repository}:{tag}: manifest refused with {status}")
        return True


def push_archive(registry: Registry, archive: tarfile.TarFile) -> None:
    """Push every image of an archive under each of its names."""
    index: dict[str, Any] = json.loads(_read(archive, "index.json"))
    for entry in index["manifests"]:
        name = entry["annotations"]["io.containerd.image.name"]
        _host, _, path = name.partition("/")
        repository, _, tag = path.rpartition(":")
        manifest = _read_blob(archive, entry["digest"])
        described = json.loads(manifest)
        for blob in [described["config"], *described["layers"]]:
            registry.push_blob(repository, blob["digest"], _read_blob(archive, blob["digest"]))
        new = registry.push_manifest(repository, tag, entry["digest"], manifest)
        print(f"{name} {'pushed' if new else 'is there'}")


def _read(archive: tarfile.TarFile, member: str) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise PushFailedError(f"{member} of an archive is not a file")
    return file.read()


def _read_blob(archive: tarfile.TarFile, digest: str) -> bytes:
    return _read(archive, f"blobs/{digest.replace(':', '/')}")


def main(url: str, *archives: str) -> int:
    """Push the archives at these paths to the registry at `url`."""
    registry = Registry(url)
    for path in archives:
        with tarfile.open(path) as archive:
            push_archive(registry, archive)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
