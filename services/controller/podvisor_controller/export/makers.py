"""Makes the objects that an export is served by.

Invariant: whatever has the name of one already is the export's own or is told of as in the way; nothing is ever taken from anybody.
"""

import secrets
import string
from collections.abc import Mapping
from typing import Any

import msgspec
from podvisor_common.api import core, meta
from podvisor_common.api.base import ApiObject
from podvisor_common.api.export import VirtualMachineExport
from podvisor_common.api.export.names import SourceKind
from podvisor_common.api.snapshot import VirtualMachineSnapshotContent
from podvisor_common.kube.client import KubeClient
from podvisor_common.kube.errors import ApiAlreadyExists, ApiNotFound
from podvisor_common.kube.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    SERVICES,
    SNAPSHOT_CONTENTS,
    VIRTUAL_MACHINES,
    ObjectKey,
)

from podvisor_controller.export.authority import Authority
from podvisor_controller.export.identity import expires_at, host, pod_name
from podvisor_controller.export.manifests import Json, ingredients
from podvisor_controller.export.pod import (
    deadline_of,
    render_identity,
    render_service,
    render_token,
    served_by,
)
from podvisor_controller.snapshot.kept import fault_of

TOKEN_LENGTH = 20

_ALPHABET = string.ascii_letters + string.digits


class InTheWay(Exception):
    """Something of somebody else's has a name that is needed, or what was kept is damaged; the message says what, for a person."""


class _Owned(ApiObject, frozen=True):
    """Any object, as far as it says whose it is."""

    metadata: meta.ObjectMeta
    api_version: str = ""
    kind: str = ""


_decode_owned = msgspec.json.Decoder(_Owned).decode
_decode_content = msgspec.json.Decoder(VirtualMachineSnapshotContent).decode


class Makers:
    """Makes Services, Secrets and what goes into them."""

    def __init__(self, client: KubeClient, authority: Authority) -> None:
        self._client = client
        self._authority = authority

    async def service(self, export: VirtualMachineExport) -> bool:
        """Have the Service; whether it was made just now. Raises InTheWay and ApiError."""
        key = ObjectKey(export.metadata.namespace, pod_name(export))
        try:
            there = _decode_owned(await self._client.get(SERVICES, key))
        except ApiNotFound:
            await self._client.create(SERVICES, key.namespace, render_service(export))
            return True
        check_owner(there.metadata, export, f"A Service named {key.name}")
        return False

    async def is_token_name_taken(self, export: VirtualMachineExport) -> bool:
        """Whether there is a Secret where that with the token belongs. No Secret can be read, but a dry run says so, and costs no quota."""
        try:
            manifest = render_token(export, _new_token())
            await self._client.create(SECRETS, export.metadata.namespace, manifest, dry_run=True)
        except ApiAlreadyExists:
            return True
        return False

    async def token(self, export: VirtualMachineExport) -> bool:
        """Make the Secret with a token of our own; whether there was none."""
        return await self._create_secret(
            export.metadata.namespace, render_token(export, _new_token())
        )

    async def identity(
        self, export: VirtualMachineExport, pod: core.Pod, content: str | None
    ) -> bool:
        """Have the Secret that the pod waits for; whether it was made just now. `content` is the name of a snapshot's content.

        Raises InTheWay, NoAuthority and ApiError.
        """
        pair = await self._authority.issue([host(export)], deadline_of(pod, expires_at(export)))
        machine, claims = await self._sources(export, pod, content)
        bundle = await self._authority.bundle()
        manifests = ingredients(export, served_by(pod), bundle, machine, claims)
        return await self._create_secret(
            pod.metadata.namespace, render_identity(pod, pair, manifests)
        )

    async def content(self, namespace: str, name: str) -> VirtualMachineSnapshotContent:
        """What a snapshot has kept, whole. Raises InTheWay where that is damaged, and ApiError."""
        answer = await self._client.get(SNAPSHOT_CONTENTS, ObjectKey(namespace, name))
        content = _decode_content(answer)
        if fault := fault_of(content):
            raise InTheWay(f"{fault}.")
        return content

    async def _sources(
        self, export: VirtualMachineExport, pod: core.Pod, content: str | None
    ) -> tuple[Json | None, Mapping[str, Json]]:
        """The machine word for word, and the specifications of its claims by name."""
        namespace, source = export.metadata.namespace, export.spec.source
        if source.kind == SourceKind.CLAIM:
            return None, {}
        if content is not None:
            kept = await self.content(namespace, content)
            claims = [backup.persistent_volume_claim for backup in kept.spec.volume_backups or ()]
            return kept.spec.source.virtual_machine, {
                claim["metadata"]["name"]: claim["spec"] for claim in claims
            }
        machine = await self._read(VIRTUAL_MACHINES, ObjectKey(namespace, source.name))
        return machine, {
            one.name: (await self._read(PERSISTENT_VOLUME_CLAIMS, ObjectKey(namespace, one.claim)))[
                "spec"
            ]
            for one in served_by(pod)
        }

    async def _read(self, resource: Any, key: ObjectKey) -> Json:
        obj: Json = msgspec.json.decode(await self._client.get(resource, key))
        return obj

    async def _create_secret(self, namespace: str, manifest: Json) -> bool:
        try:
            await self._client.create(SECRETS, namespace, manifest)
        except ApiAlreadyExists:
            return False
        return True


def _new_token() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_LENGTH))


def check_owner(metadata: meta.ObjectMeta, export: VirtualMachineExport, what: str) -> None:
    """Raise InTheWay unless the object is the export's own."""
    owner = metadata.controller_reference()
    if owner is None or owner.uid != export.metadata.uid:
        raise InTheWay(f"{what} exists and does not belong to this export.")
